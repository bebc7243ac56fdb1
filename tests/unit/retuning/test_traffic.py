"""Scores from a table or from the index: names, ids, what is left out, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from coefvq.errors import DataError
from coefvq.retuning.settings import RetuneRequest
from coefvq.retuning.traffic import from_index, from_table, read_traffic
from coefvq.vmp.audit import DrawnLabel, read_drawn_labels
from coefvq.vmp.keys import DEFAULT, key
from coefvq.vmp.records import Event, SinkRow
from coefvq.vmp.state import open_state
from tests.unit.scored_world import scores_table


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "scores.csv"
    path.write_text(text)
    return path


def test_scores_of_the_pipeline_give_their_traffic(tmp_path: Path):
    scores = scores_table(n=50)
    scores.to_parquet(tmp_path / "scores.parquet")
    found = from_table(tmp_path / "scores.parquet", "icd").frame
    traffic = scores[scores["split"] == "traffic"]
    assert found["video_id"].tolist() == traffic["video_id"].tolist()
    assert found["base"].tolist() == traffic["base"].tolist()
    assert found["views"].tolist() == traffic["views"].astype(float).tolist()


def test_lines_of_the_score_command(tmp_path: Path):
    path = tmp_path / "scored.jsonl"
    lines = [
        {
            "video_id": "a",
            "issue": "icd",
            "base_score": 0.2,
            "mllm_score": None,
            "bundle_version": "1-x",
            "error": None,
        },
        {"video_id": "a", "issue": "ucc", "base_score": 0.9, "mllm_score": 0.8, "bundle_version": "4-y", "error": None},
        {"video_id": "b", "issue": "icd", "base_score": None, "mllm_score": None, "error": "no such file"},
    ]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    found = from_table(path, "icd")
    assert found.frame[["video_id", "base", "bundle"]].to_numpy().tolist() == [["a", 0.2, "1-x"]]
    assert found.failed == {"b"}
    assert found.scored_by([]).other_models == {"a"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video_id,base\na,0.1\na,0.2\n", r"row 3: id a comes again \(first in row 2\)"),
        ("video_id,base\n,0.1\n", "row 2: no video_id"),
        ("video_id,base\na,\n", "row 2: base is empty; score the video"),
        ("video_id,base\na,1.5\n", r"base = '1.5': expected a probability in \[0, 1\]"),
        ("video_id,title\na,x\n", r"row 2: no column base \(or base_score\); columns are video_id, title"),
        ("video_id,base,split\na,0.5,val\n", "no scored video; score videos first"),
        ("video_id,bsae\na,0.5\n", "column 'bsae': did you mean 'base'"),
    ],
)
def test_tables_that_are_refused(tmp_path: Path, text: str, message: str):
    with pytest.raises(DataError, match=message):
        from_table(table(tmp_path, text), "icd")


def test_an_index_without_scores_names_the_command():
    with pytest.raises(DataError, match="vmp: no scored video; publish videos and run the stream"):
        from_index("vmp", [("a", {"error": "broken"})])


@pytest.mark.parametrize("cell", ["0", "1.2", "-0.5", "nan", "much"])
def test_a_probability_outside_its_range_is_refused(tmp_path: Path, cell: str):
    with pytest.raises(DataError, match="row 3: probability = "):
        read_drawn_labels(table(tmp_path, f"video_id,label,probability\na,1,1\nb,0,{cell}\n"), "icd")


def test_labels_with_and_without_probability(tmp_path: Path):
    path = table(tmp_path, "video_id,label,probability\na,1,0.25\nb,0,\nc,,0.5\n")
    assert read_drawn_labels(path, "icd") == {"a": DrawnLabel(1, 0.25), "b": DrawnLabel(0, None)}
    with pytest.raises(DataError, match="id a comes again"):
        read_drawn_labels(table(tmp_path, "video_id,label\na,1\na,1\n"), "icd")


def test_a_frame_keeps_empty_columns_numeric(tmp_path: Path):
    found = from_table(table(tmp_path, "video_id,base\na,0.5\n"), "icd").frame
    assert [str(found[name].dtype) for name in ("base", "mllm", "views")] == ["float64"] * 3
    assert isinstance(found, pd.DataFrame)


def test_each_tenant_s_videos_by_their_own_ids(tmp_path: Path):
    owned = {DEFAULT: {"a": 0.1}, "acme": {"a": 0.7, "b": 0.8}}
    names = [(key(tenant, name), score) for tenant, scores in owned.items() for name, score in scores.items()]
    moment = "2026-01-01T00:00:00+00:00"
    with open_state(tmp_path / "vmp") as (log, index):
        log.publish([Event(name) for name, _ in names])
        rows = [
            SinkRow(
                offset=number, video_id=name, source_version=1, epoch=1, rank=2, decided_at=moment, content=name,
                bundle_version="icd=1-ab", outcome="live", state="live", rule="default",
                value=json.dumps({"scores": {"icd": {"base_score": score, "bundle_version": "1-ab"}}}),
            )
            for number, (name, score) in enumerate(names, start=1)
        ]  # fmt: skip
        index.apply(rows, "vmp", len(rows))
    for tenant, scores in owned.items():
        request = RetuneRequest(tmp_path / "labels.csv", None, tmp_path / "vmp", tenant=tenant)
        found = read_traffic("icd", request).frame
        assert dict(zip(found["video_id"], found["base"], strict=True)) == scores
