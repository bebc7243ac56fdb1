"""``coefvq show``: the result of the last run at 80 columns, and the same as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coefvq.__main__ import app
from coefvq.errors import DataError
from coefvq.files import write_json
from tests.unit.report_world import inputs


@pytest.fixture
def workspace(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("params.yaml", "recipe.yaml"):
        (tmp_path / name).write_text((repository / name).read_text())
    given = inputs()
    for name in ("evaluation", "thresholds"):
        write_json(tmp_path / "reports" / "icd" / f"{name}.json", dict(getattr(given, name)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("workspace")
def test_the_table_fits_80_columns_and_says_why() -> None:
    shown = CliRunner().invoke(app, ["show", "--issue", "icd"], catch_exceptions=False).stdout
    lines = shown.splitlines()
    table = lines[: next(at for at, line in enumerate(lines) if line.startswith("icd: "))]
    assert max(map(len, table)) <= 80
    for word in ("base", "MLLM", "(chosen)", "F1", "R@P80", "AUC", "QPS"):
        assert any(word in line for line in table), shown
    assert "…" not in "".join(table)


@pytest.mark.usefixtures("workspace")
def test_json_holds_the_same_rows() -> None:
    shown = CliRunner().invoke(app, ["show", "--issue", "icd", "--json"], catch_exceptions=False).stdout
    result = json.loads(shown)[0]
    assert result["issue"] == "icd"
    assert [row["name"] for row in result["rows"] if row["chosen"]]
    assert "NaN" not in shown


@pytest.mark.usefixtures("workspace")
def test_an_issue_without_reports_is_one_line() -> None:
    with pytest.raises(DataError, match=r"reports/ucc/evaluation\.json"):
        CliRunner().invoke(app, ["show"], catch_exceptions=False)


def test_a_damaged_report_is_one_line(workspace: Path) -> None:
    path = workspace / "reports" / "icd" / "evaluation.json"
    report = json.loads(path.read_text())
    path.write_text(json.dumps({**report, "precision_targets": ["many"]}))
    with pytest.raises(DataError, match=r"evaluation\.json"):
        CliRunner().invoke(app, ["show", "--issue", "icd"], catch_exceptions=False)
