"""``coefvq vmp audit``: kinds of rows, labels, refusals; and a scorer that escalates what the audit draws."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from coefvq.cascade.audit_sample import AuditSample, uniform_draws
from coefvq.cli.vmp import app
from coefvq.errors import DataError
from coefvq.vmp import audit_rows
from coefvq.vmp import index as index_module
from coefvq.vmp.audit import audit_stream, kind_of, read_labels
from coefvq.vmp.audit_rows import audited_scores
from coefvq.vmp.records import Event, SinkRow
from coefvq.vmp.state import open_state


def score(base: float, mllm: float | None, positive: bool, audit: float | None = None, error: str | None = None):
    made = {"base_score": base, "mllm_score": mllm, "positive": positive, "decided_by": "mllm" if mllm else "base"}
    made |= {} if audit is None else {"audit_probability": audit}
    return made | ({} if error is None else {"error": error})


ROWS = [
    *((f"f{i}", score(0.9, 0.8, True)) for i in range(10)),
    *((f"r{i}", score(0.6, 0.2, False)) for i in range(20)),
    *((f"a{i}", score(0.1, 0.9 if i < 2 else 0.1, i < 2, audit=0.1)) for i in range(10)),
    *((f"u{i}", score(0.1, None, False, audit=0.1)) for i in range(90)),
    *((f"o{i}", score(0.1, None, False)) for i in range(5)),
    ("broken", score(0.1, None, False, error="no such file")),
]
LABELS = {f"f{i}": int(i < 8) for i in range(10)} | {f"r{i}": int(i < 1) for i in range(20)}
LABELS |= {f"a{i}": int(i < 2) for i in range(10)}


def test_by_hand():
    """8 found; missed: 1 rejected, and 2 audited that stand for 10 each."""
    found = audit_stream("icd", ROWS, LABELS)
    assert found.rows == {"flagged": 10, "rejected": 20, "audited": 10, "unseen": 90}
    assert found.unlogged == 5
    assert (found.estimate.found.value, found.estimate.missed.value) == (8, 21)
    assert found.estimate.recall.value == pytest.approx(8 / 29)
    # 10 of 100 were drawn, just as many as expected: both estimates agree
    assert found.estimate.recall_hajek == pytest.approx(8 / 29)
    assert found.estimate.recall.low < 8 / 29 < found.estimate.recall.high


def test_a_complaint_is_no_random_label():
    assert audit_stream("icd", ROWS, LABELS | {f"u{i}": 1 for i in range(90)}) == audit_stream("icd", ROWS, LABELS)


def test_half_of_the_flagged_labelled_counts_twice():
    half = {name: label for name, label in LABELS.items() if not (name[0] == "f" and int(name[1:]) % 2)}
    found = audit_stream("icd", ROWS, half)
    assert found.labels["flagged"] == 5
    assert found.estimate.found.value == 8
    assert found.estimate.found.low < 8 < found.estimate.found.high


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        ([row for row in ROWS if row[0][0] != "a"], LABELS, "--issue icd: no video was audited for it"),
        (ROWS, {k: v for k, v in LABELS.items() if k[0] != "r"}, "none of the 20 rejected"),
    ],
)
def test_refused(rows, labels, message):
    with pytest.raises(DataError, match=message):
        audit_stream("icd", rows, labels)


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for module in (index_module, audit_rows):
        monkeypatch.setattr(module, "_PAGE", 7)  # the whole index is never held at once
    rows = [
        SinkRow(
            offset=number,
            video_id=name,
            source_version=1,
            epoch=1,
            rank=2,
            decided_at="2026-01-01T00:00:00+00:00",
            content=name,
            bundle_version="icd=1-ab",
            outcome="removed" if value["positive"] else "live",
            state="removed" if value["positive"] else "live",
            rule="default",
            value=json.dumps({"scores": {"icd": value}}),
        )
        for number, (name, value) in enumerate(ROWS, start=1)
    ]
    with open_state(tmp_path / "vmp") as (log, index):
        log.publish([Event(name) for name, _ in ROWS])
        index.apply(rows, "vmp", len(rows))
    labels = tmp_path / "labels.csv"
    labels.write_text("video_id,label\n" + "".join(f"{name},{value}\n" for name, value in LABELS.items()))
    arguments = ["audit", "--issue", "icd", "--labels", str(labels), "--state", str(tmp_path / "vmp")]
    shown = CliRunner().invoke(app, [*arguments, "--json"])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["estimate"]["missed"]["value"] == 21
    assert "recall 27.6 %" in CliRunner().invoke(app, arguments).stdout
    within = CliRunner().invoke(app, [*arguments, "--json", "--since", "2026-01-01", "--until", "2026-01-02"])
    assert within.stdout == shown.stdout
    assert "no video was audited" in str(CliRunner().invoke(app, [*arguments, "--since", "2026-01-02"]).exception)
    with open_state(tmp_path / "vmp") as (_, index):
        assert [name for name, _ in index.scores("icd")] == sorted(name for name, _ in ROWS)
        for issue in ("icd", "ucc", 'i"cd'):
            found = list(audited_scores(index, issue))
            assert [(name, kind_of(row)) for name, row in found] == [
                (name, kind_of(row)) for name, row in index.scores(issue)
            ]
        damage = "UPDATE entries SET value = value || ',' WHERE video_id = 'r7'"
        with index.database.transaction() as connection:
            connection.execute(damage)
    assert "entry r7: not JSON" in str(CliRunner().invoke(app, arguments).exception)
    labels.write_text("video_id,label\na0,3\n")
    assert "expected 0 or 1" in str(CliRunner().invoke(app, arguments).exception)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("video_id,label\n007,1\n7,0\nNA,1\n1e5,0\nnull,\n", {"007": 1, "7": 0, "NA": 1, "1e5": 0}),
        ("video_id,label_icd,label\na,1.0,0\n", {"a": 1}),
        ("video_id;label\na;1\n", {"a": 1}),
        ("label,video_id\nTrue,1475000000000000001\nfalse,1475000000000000002\n",
         {"1475000000000000001": 1, "1475000000000000002": 0}),
        ("video_id,label\na,1,\n", "row 2: 3 fields: expected 2"),
        ("video_id,label,label\na,1,0\n", "column 'label' twice"),
        ("video_id,label\na,1\nb,0\na,0\n", "row 4: id a comes again (first in row 2)"),
        ("video_id,label\n,1\n", "row 2: no video_id"),
        ("video_id,label\na,0.5\n", "row 2: label = '0.5': expected 0 or 1, or empty"),
        ("video_id,label\na,yes\n", "row 2: label = 'yes': expected a finite number"),
        ("video_id,Label\na,1\n", "column 'Label': did you mean 'label'?"),
        ("id,label\na,1\n", "row 2: expected the columns video_id and label; found id, label"),
    ],
)  # fmt: skip
def test_labels_are_read_as_strictly_as_clips(tmp_path: Path, text: str, expected: dict[str, int] | str):
    (tmp_path / "l.csv").write_text(text)
    if isinstance(expected, dict):
        assert read_labels(tmp_path / "l.csv", "icd") == expected
        return
    with pytest.raises(DataError) as caught:
        read_labels(tmp_path / "l.csv", "icd")
    assert expected in str(caught.value)


def test_labels_of_other_formats(tmp_path: Path):
    pd.DataFrame({"video_id": [7.0, 8.0, 9.0], "label": [1.0, None, 0.0]}).to_parquet(tmp_path / "l.parquet")
    assert read_labels(tmp_path / "l.parquet", "icd") == {"7": 1, "9": 0}
    (tmp_path / "l.jsonl").write_text('{"video_id": 1475000000000000001, "label": true}\n')
    assert read_labels(tmp_path / "l.jsonl", "icd") == {"1475000000000000001": 1}
    pd.DataFrame({"video_id": [1475000000000000001.0], "label": [1]}).to_parquet(tmp_path / "l.parquet")
    with pytest.raises(DataError, match="column video_id as string or Int64"):
        read_labels(tmp_path / "l.parquet", "icd")
    with pytest.raises(DataError, match=r"l\.txt: expected a \.csv"):
        read_labels(tmp_path / "l.txt", "icd")


def test_selection_is_the_logged_probability():
    ids = [f"v{i}" for i in range(3000)]
    assert AuditSample(rate=0.2, seed=4).selected(ids).mean() == pytest.approx(0.2, abs=0.03)
    drawn = AuditSample(rate=0.2, seed=4).selected(ids)
    assert (drawn == (uniform_draws([f"audit:{name}" for name in ids], 4) < 0.2)).all()
    other = uniform_draws(ids, 4) < 0.2  # such as a canary's, by the same ids and seed
    assert abs(float(np.mean(drawn[other])) - 0.2) < 0.1
    assert np.isfinite(uniform_draws(ids, 4)).all()
