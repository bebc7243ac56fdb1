"""Descriptions for the warm-up: the column caption, the synthetic world's file, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from coefvq.config import load_params
from coefvq.data.descriptions import read_descriptions
from coefvq.data.importers import open_table
from coefvq.data.manifest import normalise, write_table
from coefvq.errors import DataError
from coefvq.records import MANIFEST_COLUMNS
from coefvq.stages.inputs import TrainBaseInputs, TrainMLLMInputs
from coefvq.training.data import read_training_data
from coefvq.training.job import training_job
from coefvq.training.run import without_missing_descriptions
from tasks.workspace import write_pipeline

TEXTS = [" flower calm", " calm flower"]
LINE = json.dumps({"video_id": "a", "descriptions": TEXTS})
ROWS = pd.DataFrame({"video_id": ["a", "b", "c"]})


def test_a_column_caption_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "descriptions.jsonl").write_text(LINE + "\n", "utf-8")
    assert read_descriptions(ROWS.assign(caption=["x", None, "z"]), tmp_path) == [("x",), (), ("z",)]
    found = read_descriptions(ROWS, tmp_path)
    assert found == read_descriptions(ROWS, tmp_path / "metadata.csv")
    assert found == [tuple(TEXTS), (), ()]


def test_without_column_and_file_no_row_has_any(tmp_path: Path) -> None:
    assert read_descriptions(ROWS, tmp_path) == [(), (), ()]


BROKEN = [{"video_id": "a"}, {"video_id": "a", "descriptions": "flower"}, {"video_id": "a", "descriptions": [1]}]


@pytest.mark.parametrize("line", ["{", "[]", *map(json.dumps, BROKEN)])
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "descriptions.jsonl").write_text(f"{LINE}\n{line}\n", "utf-8")
    with pytest.raises(DataError, match="row 2"):
        read_descriptions(ROWS, tmp_path)


def test_clips_of_an_earlier_version_are_not_left_without_descriptions(tmp_path: Path) -> None:
    (tmp_path / "factors.jsonl").write_text("{}\n", "utf-8")
    with pytest.raises(DataError, match="same numbers"):
        read_descriptions(ROWS, tmp_path)


def test_the_importer_and_the_manifest_keep_a_caption(tmp_path: Path) -> None:
    (tmp_path / "one.mp4").write_bytes(b"x")
    table = tmp_path / "metadata.csv"
    table.write_text('file_name,caption\none.mp4,"a man, a dog"\n', "utf-8")
    assert [row["caption"] for row in open_table(table).rows()] == ["a man, a dog"]
    frame = pd.DataFrame([dict.fromkeys(MANIFEST_COLUMNS, "")]).assign(
        **dict.fromkeys(["decode_ok", "has_audio"], True),
        **dict.fromkeys(["views", "size_bytes", "width", "height"], 1),
        **dict.fromkeys(["weight", "duration_s", "fps"], 1.0),
    )
    assert "caption" not in normalise(frame, [])
    assert normalise(frame.assign(caption=["a"]), [])["caption"].tolist() == ["a"]


def test_a_table_without_captions_has_none(tmp_path: Path) -> None:
    (tmp_path / "one.mp4").write_bytes(b"x")
    (tmp_path / "metadata.csv").write_text("file_name\none.mp4\n", "utf-8")
    assert all("caption" not in row for row in open_table(tmp_path / "metadata.csv").rows())


@pytest.mark.parametrize(
    "captions", [{}, {"caption": ["", None, "a cat", None]}, {"caption": ["a dog", None, None, None]}]
)
def test_where_no_training_clip_has_a_caption_alignment_is_off_and_that_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    captions: dict[str, list[str | None]],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pipeline(tmp_path, {"mllm.icd.alignment.epochs": 1}, "starter")  # 0 in the recipe, which starts aligned
    frame = pd.DataFrame([dict.fromkeys(MANIFEST_COLUMNS, "")] * 4).assign(
        **dict.fromkeys(["decode_ok", "has_audio"], True),
        **dict.fromkeys(["views", "size_bytes", "width", "height"], 1),
        **dict.fromkeys(["weight", "duration_s", "fps"], 1.0),
        **{"video_id": list("abcd"), "label_icd": [1, 0, 1, 0], **captions},
    )
    write_table(normalise(frame, ["icd"]), Path("data/manifest.parquet"))
    splits = pd.DataFrame({"video_id": list("abcd"), "split": ["train", "train", "val", "val"], "weight": 1.0})
    write_table(splits, Path("data/splits.parquet"))
    inputs = TrainMLLMInputs.of(load_params(), "icd")
    job = training_job(inputs.settings, inputs.model)
    assert job.alignment is not None
    data = read_training_data(inputs.settings, job)
    possible = without_missing_descriptions(job, data.descriptions)
    if captions.get("caption", [None])[0] == "a dog":
        assert possible == job
        assert capsys.readouterr().err == ""
    else:
        assert (possible.alignment, possible.description_weight) == (None, 0.0)
        assert capsys.readouterr().err == "[icd mllm] alignment: off, no captions\n"
    silent = training_job(inputs.settings, TrainBaseInputs.of(load_params(), "icd").model)
    assert not silent.reads_descriptions
    assert without_missing_descriptions(silent, None) == silent
