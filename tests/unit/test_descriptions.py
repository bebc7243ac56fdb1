"""Descriptions for the warm-up: the column caption, the synthetic world's file, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from coefvq.data.descriptions import read_descriptions
from coefvq.data.importers import open_table
from coefvq.data.manifest import normalise
from coefvq.errors import DataError
from coefvq.records import MANIFEST_COLUMNS

SHOWN = {
    **{"object": "flower", "action": "calm", "topic": "dare", "sticker": "unsafe"},
    **{"edit": "pip", "claim": "own", "sound": "music"},
}
LINE = json.dumps({"video_id": "a", "shown": SHOWN})
ROWS = pd.DataFrame({"video_id": ["a", "b", "c"]})


def test_a_column_caption_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "factors.jsonl").write_text(LINE + "\n", "utf-8")
    assert read_descriptions(ROWS.assign(caption=["x", None, "z"]), tmp_path) == [("x",), (), ("z",)]
    found = read_descriptions(ROWS, tmp_path)
    assert found == read_descriptions(ROWS, tmp_path / "metadata.csv")
    assert found[1:] == [(), ()]
    assert found[0][0] == " flower calm dare danger corner own music"
    assert found[0][6] == " music flower calm dare danger corner own"
    assert len(found[0]) == 7


def test_without_column_and_file_no_row_has_any(tmp_path: Path) -> None:
    assert read_descriptions(ROWS, tmp_path) == [(), (), ()]


@pytest.mark.parametrize("line", ["{", "[]", '{"video_id": "a"}', LINE.replace("calm", "wild")])
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "factors.jsonl").write_text(f"{LINE}\n{line}\n", "utf-8")
    with pytest.raises(DataError, match="row 2"):
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
