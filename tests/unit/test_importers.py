"""Every table a user may bring, and the line each mistake is told in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from coefvq.config import LabelSource
from coefvq.data.importers import apply_labels, read_table
from coefvq.errors import DataError

ROWS: list[dict[str, Any]] = [
    {"file_name": "a.mp4", "label": "fight", "title": "one", "stickers": '["x", "y"]', "views": "10"},
    {"file_name": "b.mp4", "label": "normal", "title": "", "stickers": "", "views": ""},
]
FIGHT = {"icd": LabelSource(column="label", positive=("fight",))}


def write_csv(folder: Path, rows: list[dict[str, Any]]) -> Path:
    pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)
    return folder


def test_video_folder_with_csv(tmp_path: Path) -> None:
    table = read_table(write_csv(tmp_path, ROWS))
    frame = apply_labels(table, FIGHT)
    assert table.root == tmp_path
    assert list(frame["video_id"]) == ["a", "b"]
    assert list(frame["stickers"]) == [["x", "y"], []]
    assert list(frame["label_icd"]) == [1, 0]
    assert frame["views"].tolist() == [10, pd.NA]
    assert list(frame["weight"]) == [1.0, 1.0]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_tables_of_every_format_give_the_same_rows(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"table.{kind}"
    frame = pd.DataFrame(ROWS)
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in ROWS))
    else:
        frame.to_parquet(path)
    table = read_table(path)
    assert table.root == tmp_path
    assert table.frame[["uri", "title", "views"]].equals(
        read_table(write_csv(tmp_path, ROWS)).frame[["uri", "title", "views"]]
    )


def test_folders_named_after_labels(tmp_path: Path) -> None:
    for label in ("fight", "normal"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "x.mp4").touch()
    frame = apply_labels(read_table(tmp_path), FIGHT)
    assert sorted(frame["uri"]) == ["fight/x.mp4", "normal/x.mp4"]
    assert frame["video_id"].is_unique
    assert sorted(frame["label_icd"]) == [0, 1]


def test_parquet_with_timestamps_and_gaps(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS).assign(published_at=pd.to_datetime(["2026-01-01", None], utc=True))
    frame.to_parquet(tmp_path / "t.parquet")
    published = read_table(tmp_path / "t.parquet").frame["published_at"]
    assert published[0].startswith("2026-01-01")
    assert pd.isna(published[1])


def test_empty_label_is_unlabelled(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "label": "1"}, {**ROWS[1], "label": ""}]
    frame = apply_labels(read_table(write_csv(tmp_path, rows)), {"icd": LabelSource(column="label", positive=None)})
    assert frame["label_icd"].tolist() == [1, pd.NA]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"file_name": "a.mp4"}, "row 3: duplicate video_id 'a' (first in row 2)"),
        ({"file_name": ""}, "row 3: empty file name"),
        ({"views": "many"}, "row 3: views = 'many': expected a number"),
        ({"stickers": "[oops"}, "row 3: stickers = '[oops': expected a JSON list"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    write_csv(tmp_path, [ROWS[0], {**ROWS[1], **change}])
    with pytest.raises(DataError) as caught:
        read_table(tmp_path)
    assert expected in str(caught.value)
    assert "metadata.csv" in str(caught.value)


def test_label_outside_zero_and_one(tmp_path: Path) -> None:
    table = read_table(write_csv(tmp_path, [ROWS[0], {**ROWS[1], "label": "2"}]))
    with pytest.raises(DataError, match=r"row 2: label = 'fight': expected 0, 1 or empty.*ingest\.labels\.icd"):
        apply_labels(table, {"icd": LabelSource(column="label", positive=None)})


def test_a_positive_value_that_never_occurs_is_a_misspelling(tmp_path: Path) -> None:
    table = read_table(write_csv(tmp_path, ROWS))
    with pytest.raises(DataError, match=r"never holds 'fihgt' .*values there: fight, normal"):
        apply_labels(table, {"icd": LabelSource(column="label", positive=("fight", "fihgt"))})


def test_missing_label_column_lists_the_others(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'y' for issue icd.*file_name"):
        apply_labels(read_table(write_csv(tmp_path, ROWS)), {"icd": LabelSource(column="y", positive=None)})


@pytest.mark.parametrize("name", ["nothing", "empty_folder", "odd.txt", "broken.jsonl", "broken.parquet"])
def test_what_is_no_table(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty_folder").mkdir()
    (tmp_path / "odd.txt").write_text("x")
    (tmp_path / "broken.jsonl").write_text('{"file_name": "a.mp4"}\n{')
    (tmp_path / "broken.parquet").write_text("x")
    with pytest.raises(DataError) as caught:
        read_table(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_of_a_jsonl_are_its_lines(tmp_path: Path) -> None:
    rows = [json.dumps(ROWS[0]), json.dumps(ROWS[0])]
    (tmp_path / "t.jsonl").write_text("\n".join(rows))
    with pytest.raises(DataError, match=r"row 2: duplicate video_id 'a' \(first in row 1\)"):
        read_table(tmp_path / "t.jsonl")
