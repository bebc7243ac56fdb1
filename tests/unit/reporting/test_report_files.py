"""Reports that were edited, cut or made by another version are named with their key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coefvq.data.validation.profile import check_profile
from coefvq.errors import DataError
from coefvq.reporting.files import read_calibration, read_evaluation, read_stability, read_thresholds
from tests.unit.report_world import inputs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e, t: e.pop("test"), r"evaluation\.json: test: field required"),
        (lambda e, t: e["test"].update(base=[]), r"evaluation\.json: test\.base: "),
        (lambda e, t: e["test"]["mllm"].update(f1="high"), r"evaluation\.json: test\.mllm\.f1"),
        (lambda e, t: e.update(precision_targets="60"), r"evaluation\.json: precision_targets: "),
        (lambda e, t: t.update(policies={}), r"thresholds\.json: policies: "),
        (lambda e, t: [row.update(selected=False) for row in t["policies"]], "expected one that is selected"),
        (lambda e, t: t["policies"][0].pop("qps_ratio"), r"thresholds\.json: policies\.0\.qps_ratio: field required"),
    ],
)
def test_a_key_that_does_not_fit_is_named(change: Any, message: str, tmp_path: Path) -> None:
    given = inputs()
    reports = json.loads(json.dumps([given.evaluation, given.thresholds]))
    change(*reports)
    for name, report in zip(("evaluation", "thresholds"), reports, strict=True):
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    with pytest.raises(DataError, match=message):
        _ = [read_evaluation(tmp_path / "evaluation.json"), read_thresholds(tmp_path / "thresholds.json")]


def test_other_reports(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"base": {"chosen": "x", "calibrators": {}}, "mllm": {"chosen": null, "calibrators": {}}}')
    with pytest.raises(DataError, match=r"a\.json: base\.chosen = x: expected one of its calibrators"):
        read_calibration(path)
    path.write_text(
        '{"base": {"chosen": null, "calibrators": {}}, "mllm": {"chosen": null, "calibrators": {}}, "x": 1}'
    )
    assert set(read_calibration(path)) == {"base", "mllm"}  # a key more does no harm
    path.write_text('{"n": "3", "flip_rate": 0.1, "variants": []}')
    with pytest.raises(DataError, match=r"a\.json: n: "):
        read_stability(path)
    assert check_profile({}, "reference.json") == {}
    with pytest.raises(DataError, match=r"reference\.json: columns\.views: expected edges"):
        check_profile({"rows": 3, "columns": {"views": {"edges": [1.0], "shares": [1.0]}}}, "reference.json")
