"""Blocks of a Parquet table say what its rows say one by one, values and refusals alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coefvq.data.importers import open_table
from coefvq.data.importers.blocks import Block, read_blocks
from coefvq.data.importers.rows import Row, read_rows
from coefvq.data.importers.sources import Part, Source
from coefvq.data.importers.survey import Survey
from coefvq.errors import DataError

TEXTS = st.sampled_from(["a", "b c", "", "  ", " ä ", "日本", "[", "1,5", None])
MOMENTS = ["2026-01-02T03:04:05+00:00", "2026-01-02 03:04:05+02:00", "2026-01-02", "2026-13-02", None]
CELLS: dict[str, list[st.SearchStrategy[Any]]] = {
    "video_id": [st.integers(0, 99).map(lambda n: f"v{n}"), TEXTS, st.integers(0, 2**60), st.floats(0, 3), st.none()],
    "title": [TEXTS, st.sampled_from(["plain", "nul\0", "x" * 131_073]), st.booleans(), st.integers(-2, 2)],
    "stickers": [st.lists(st.sampled_from(["s", " t "]), max_size=2), st.none() | st.lists(TEXTS, max_size=2), TEXTS],
    "published_at": [st.just(MOMENTS[0]), st.sampled_from(MOMENTS), st.just(datetime(2026, 1, 2, tzinfo=UTC))],
    "creator_id": [TEXTS, st.none() | st.integers(0, 9), st.floats(allow_nan=True)],
    "views": [st.integers(0, 2**63 - 1), st.none() | st.integers(-1, 3), st.none() | st.floats(0, 9), TEXTS],
    "weight": [st.floats(0.5, 2), st.none() | st.floats(-1, 2), st.integers(1, 3), TEXTS],
    "split": [st.sampled_from(["train", "test", None]), st.sampled_from(["train", " val ", "other"])],
    "sha256": [st.none() | st.just("A" * 64), st.sampled_from(["a" * 63, "g" * 64, "a" * 64])],
    "posterior_icd": [st.none() | st.floats(0, 1), st.integers(0, 1), TEXTS],
    "caption": [TEXTS],
    "duration_s": [st.none() | st.floats(0, 9)],
}
PATHS = [
    st.sampled_from(["a.mp4", "b/c.mp4", " d.mp4"]),
    st.sampled_from(["a.mp4", "/x/y.mp4", "https://h/a.mp4", None]),
]


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    rows = draw(st.integers(1, 6))
    names = draw(st.lists(st.sampled_from(sorted(CELLS)), unique=True))
    kinds = {"uri": draw(st.sampled_from(PATHS)), **{name: draw(st.sampled_from(CELLS[name])) for name in names}}
    return pa.table({name: draw(st.lists(kind, min_size=rows, max_size=rows)) for name, kind in kinds.items()})


def outcome(read: Iterator[Any]) -> tuple[list[Any], str]:
    """What comes before the refusal, and the refusal."""
    found: list[Any] = []
    try:
        for item in read:
            found.extend(item.rows() if isinstance(item, Block) else [item])
    except DataError as error:
        return found, str(error)
    return found, ""


def facts(row: Row) -> str:
    return repr((row.place, row.words, row.zoned, list(row.raw)))  # NaN is no equal of itself


def of_file(path: Path, **options: Any) -> Source:
    return Source(path, path.parent, (Part(path, "parquet", **options),))


@settings(max_examples=60, deadline=None)
@given(table=tables(), folder=st.sampled_from(["", "in"]), split=st.sampled_from([None, "train"]))
def test_blocks_are_rows(
    tmp_path_factory: pytest.TempPathFactory, table: pa.Table, folder: str, split: str | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "table.parquet"
    pq.write_table(table, path)
    source = of_file(path, folder=folder, split=split)
    blocks, refusal = outcome(read_blocks(source, None, others=("duration_s",)))
    rows, expected = outcome(read_rows(source, None, others=("duration_s",)))
    assert ([*map(facts, blocks)], refusal) == ([*map(facts, rows)], expected)


@pytest.mark.parametrize("again", [1, 300, 5000])
def test_an_id_that_comes_again_is_refused_in_whatever_block(tmp_path: Path, again: int) -> None:
    ids = [f"v{row}" for row in range(5001)]
    ids[again] = "v0"
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"uri": [f"{row}.mp4" for row in range(5001)], "video_id": ids}), path)
    with pytest.raises(DataError, match=rf"row {again + 1}: duplicate video_id 'v0' \(first in row 1\)"):
        open_table(path)


def test_a_plain_table_is_blocks_and_a_chat_is_none(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"uri": ["a.mp4"] * 600, "title": ["t"] * 600}), path)
    assert [len(block) for block in read_blocks(of_file(path), None) if isinstance(block, Block)] == [600]
    pq.write_table(pa.table({"messages": [[{"role": "user", "content": "t"}]], "videos": [["a.mp4"]]}), path)
    assert [type(item) for item in read_blocks(of_file(path), None)] == [Row]


@settings(max_examples=40, deadline=None)
@given(table=tables())
def test_what_holds_over_all_rows_is_checked_alike(tmp_path_factory: pytest.TempPathFactory, table: pa.Table) -> None:
    path = tmp_path_factory.getbasetemp() / "table.parquet"
    pq.write_table(table, path)

    def by_rows() -> tuple[int, tuple[str, ...]]:
        survey = Survey(of_file(path), {}, str)
        for row in read_rows(of_file(path), None):
            survey.add(row)
        return survey.count, survey.columns

    def by_blocks() -> tuple[int, tuple[str, ...]]:
        opened = open_table(path, id_of=str)
        return opened.count, opened.columns

    assert said(by_blocks) == said(by_rows)


def said(check: Callable[[], object]) -> object:
    """What a check returns, or its refusal."""
    try:
        return check()
    except DataError as error:
        return str(error)
