"""A table as people export it: its own names for the columns, absolute paths, columns that nothing reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coefvq.config import LabelSource, Params, load_params
from coefvq.data.importers import Naming, import_table, open_table
from coefvq.data.importers.columns import KNOWN
from coefvq.data.importers.renames import COMMON_NAMES, proposed, renamed
from coefvq.data.raw_table import canonical_rows
from coefvq.errors import DataError
from coefvq.records import CAPTION

EXPORT = {"id": "7", "filepath": "a.mp4", "caption": "my dinner", "hashtags": "#fun", "play_count": 12, "bad": "t"}
COLUMNS = {"video_id": "id", "uri": "filepath", "title": "caption", "stickers": "hashtags", "views": "play_count"}
BAD = {"icd": LabelSource(column="bad", positive=("t",))}


def write(folder: Path, kind: str, *rows: dict[str, Any]) -> Path:
    path, frame = folder / f"clips.{kind}", pd.DataFrame(rows)
    if kind == "parquet":
        frame.to_parquet(path)
    elif kind == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_every_format_is_read_in_manifest_words(tmp_path: Path, kind: str) -> None:
    table = open_table(write(tmp_path, kind, EXPORT), labels=BAD, naming=Naming(COLUMNS))
    (row,) = table.rows()
    assert (row["video_id"], row["uri"], row["title"], row["views"]) == ("7", "a.mp4", "my dinner", 12)
    assert (row["stickers"], row["label_icd"]) == (["#fun"], 1)
    assert CAPTION not in row  # it was taken as the title
    assert table.unused_line() == ""


def test_a_caption_that_is_not_mapped_stays_a_description(tmp_path: Path) -> None:
    columns = {word: column for word, column in COLUMNS.items() if word != "title"}
    (row,) = open_table(write(tmp_path, "csv", EXPORT), naming=Naming(columns)).rows()
    assert (row[CAPTION], row["title"]) == ("my dinner", "")


def test_a_table_in_manifest_words_needs_no_mapping(tmp_path: Path) -> None:
    naming = Naming(COLUMNS)
    (canonical,) = canonical_rows(open_table(write(tmp_path, "csv", EXPORT), naming=naming), BAD)
    (again,) = open_table(write(tmp_path, "csv", {**canonical, "stickers": "#fun"}), naming=naming).rows()
    assert (again["title"], again["views"]) == ("my dinner", 12)


def test_a_snapshot_keeps_an_empty_column_that_the_mapping_names(tmp_path: Path) -> None:
    path = write(tmp_path, "csv", {**EXPORT, "play_count": None})
    (row,) = canonical_rows(open_table(path, naming=Naming(COLUMNS)), BAD)
    assert row["views"] is None


@pytest.mark.parametrize(
    ("changes", "columns", "message"),
    [
        ({"title": "x"}, COLUMNS, r"clips\.csv row 2: columns 'caption' \(ingest\.columns\.title\) and 'title'"),
        ({}, {**COLUMNS, "creator_id": "owner"}, r"no column 'owner' \(ingest\.columns\.creator_id\); add it"),
        ({}, {"title": "caption"}, r"no column file_name; .* ingest\.columns\.uri: filepath"),
        ({"play_counts": 3}, {**COLUMNS, "views": "play_count_"}, "did you mean 'play_count_'"),
    ],
)
def test_a_mapping_that_does_not_fit(
    tmp_path: Path, changes: dict[str, Any], columns: dict[str, str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        open_table(write(tmp_path, "csv", {**EXPORT, **changes}), naming=Naming(columns))


def test_a_table_to_score_may_lack_a_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, "csv", {name: value for name, value in EXPORT.items() if name != "play_count"})
    table = import_table(path, naming=Naming(COLUMNS, lenient=True))
    assert table.frame["title"].tolist() == ["my dinner"]
    assert "no column 'play_count' (ingest.columns.views), so views is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"title": "text", "caption": "text"}, "columns.caption and columns.title both name column 'text'"),
        ({"title": "label_icd"}, "columns.title and labels.icd both name column 'label_icd'"),
        ({"titel": "text"}, "titel"),
    ],
)
def test_settings_that_give_one_column_two_meanings(repository: Path, columns: dict[str, str], message: str) -> None:
    values = load_params(repository / "params.yaml").model_dump(mode="json", by_alias=True)
    values["ingest"]["columns"] = columns
    with pytest.raises(ValueError, match=message):
        Params.model_validate(values, strict=False)


def test_absolute_paths_below_the_root_become_relative_ones(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "tables").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "videos")
    rows = [{"file_name": str(tmp_path / place)} for place in ("videos/a.mp4", "link/b.mp4", "tables/c.mp4")]
    path = write(tmp_path / "tables", "csv", *rows)
    assert [row["uri"] for row in open_table(path).rows()] == [rows[0]["file_name"], rows[1]["file_name"], "c.mp4"]
    named = open_table(path, naming=Naming(media=tmp_path / "videos"))
    assert [row["uri"] for row in named.rows()] == ["a.mp4", "b.mp4", rows[2]["file_name"]]


def test_unused_columns_are_named_with_what_they_may_mean(tmp_path: Path) -> None:
    line = open_table(write(tmp_path, "csv", {"file_name": "a.mp4", **EXPORT, "mood": 1}), labels=BAD).unused_line()
    assert line == (
        "columns not used: id (video_id?), filepath, hashtags (stickers?), play_count (views?), mood; to use one, set "
        "ingest.columns, e.g. {video_id: id}"
    )


@given(st.lists(st.sampled_from(sorted({name for names in COMMON_NAMES.values() for name in names})), unique=True))
@settings(max_examples=100)
def test_what_is_proposed_can_be_read(names: list[str]) -> None:
    columns = proposed(names)
    assert len(set(columns.values())) == len(columns)
    row = renamed("t.csv row 2", dict.fromkeys(names), columns)
    assert set(columns) <= set(row)
    assert len(row) == len(names)
    assert not (set(proposed(row)) & set(columns))


def test_common_names_are_each_listed_once() -> None:
    every = [name for names in COMMON_NAMES.values() for name in names]
    assert len(every) == len(set(every))
    assert not set(every) & (KNOWN - {CAPTION})
