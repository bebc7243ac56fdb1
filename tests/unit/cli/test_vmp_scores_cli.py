"""``coefvq vmp scores``: which answers of a stream become a table, with which probability, and under which name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from coefvq.cli.vmp import app
from coefvq.errors import DataError
from coefvq.training.logged_scores import read_logged
from coefvq.vmp.records import Event, SinkRow
from coefvq.vmp.state import open_state
from tests.vmp_world import NOW, promote

PAIR = {"bundle_version": "1-ab", "base_score": 0.4, "positive": False}
SCORES: dict[str, dict[str, Any]] = {
    "flagged": {**PAIR, "mllm_score": 0.9, "positive": True},
    "rejected": {**PAIR, "mllm_score": 0.2},
    "audited": {**PAIR, "mllm_score": 0.6, "audit_probability": 0.05},
    "audited-positive": {**PAIR, "mllm_score": 0.7, "audit_probability": 0.05, "bundle_version": "2-cd"},
    "unseen": {**PAIR, "audit_probability": 0.05},
    "unlogged": PAIR,
    "by-base-alone": {**PAIR, "positive": True},
    "pending": {**PAIR, "awaits": "mllm"},
    "failed": {"error": "no frames"},
}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """One video of each kind."""
    with open_state(tmp_path / "vmp") as (log, index):
        log.publish([Event(name, uri=f"/{name}.mp4", sha256=name) for name in SCORES])
        epoch = promote(index, 1, "1-ab")
        rows = [
            SinkRow(number, name, 1, epoch, 2, "icd=1-ab", "live", "live", "r",
                    json.dumps({"scores": {"icd": score}}), NOW.isoformat(), name)
            for number, (name, score) in enumerate(SCORES.items(), start=1)
        ]  # fmt: skip
        index.apply(rows, "vmp", len(rows))
    return tmp_path / "vmp"


def run(state: Path, *words: object) -> str:
    shown = CliRunner().invoke(app, ["scores", *map(str, words), "--state", str(state)])
    if shown.exception is not None:
        raise shown.exception
    return shown.stdout


def test_what_the_mllm_answered_is_written_with_its_probability(state: Path, tmp_path: Path) -> None:
    found = json.loads(run(state, "--issue", "icd", "--out", tmp_path / "logged", "--json"))
    assert (found["rows"], found["audited"], found["pairs"]) == (4, 2, {"1-ab": 3, "2-cd": 1})
    table = read_logged(Path(found["file"]), "base.icd.distil.logged").set_index("video_id")
    expected = {"flagged": (0.9, 1.0), "rejected": (0.2, 1.0), "audited": (0.6, 0.05), "audited-positive": (0.7, 0.05)}
    assert {name: (row.score, row.probability) for name, row in table.iterrows()} == expected
    # the same answers have the same name, so DVC has nothing to do
    assert json.loads(run(state, "--issue", "icd", "--out", tmp_path / "logged", "--json")) == found
    assert [path.name for path in (tmp_path / "logged").iterdir()] == [Path(found["file"]).name]
    said = run(state, "--issue", "icd", "--out", tmp_path / "logged")
    assert f"4 scores, 2 of audited videos, by 1-ab, 2-cd: {found['file']}" in said.replace("\n", "")
    assert "base.icd.distil.logged: " in said


def test_the_table_lies_in_the_workspace_and_the_setting_starts_there(
    state: Path, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("params.yaml", "recipe.yaml"):
        (tmp_path / name).write_text((repository / name).read_text())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    said = run(state, "--issue", "icd", "--params", "../params.yaml")
    (table,) = (tmp_path / "data" / "logged").iterdir()
    assert f"base.icd.distil.logged: data/logged/{table.name}" in said
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_stream_without_answers_is_named(state: Path) -> None:
    with pytest.raises(DataError, match="the MLLM has answered no video of ucc; run the stream: coefvq vmp run"):
        run(state, "--issue", "ucc")
    with pytest.raises(DataError, match="answered no video of icd"):
        run(state, "--issue", "icd", "--tenant", "acme")


def test_a_table_names_its_content(state: Path, tmp_path: Path) -> None:
    found = json.loads(run(state, "--issue", "icd", "--out", tmp_path, "--json"))
    other = Path(found["file"]).with_name("icd-000000000000.parquet")
    pd.read_parquet(found["file"]).to_parquet(other)
    with pytest.raises(DataError, match="changed since it was named"):
        read_logged(other, "base.icd.distil.logged")
