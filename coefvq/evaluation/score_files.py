"""Scores of two models from any table, checked for what makes thresholds worthless."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coefvq.cascade.curves import FloatArray
from coefvq.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Columns:
    """Names in the file; ``weight``, ``ids`` and ``split`` are used where the file has them."""

    base: str = "base"
    mllm: str = "mllm"
    label: str = "label"
    weight: str = "weight"
    ids: str = "video_id"
    split: str = "split"

    def names(self) -> frozenset[str]:
        """All of them."""
        return frozenset({self.base, self.mllm, self.label, self.weight, self.ids, self.split})


@dataclass(frozen=True)
class ScoreColumns:
    """Labelled rows, each column float64 [n]; ``weight`` is None where the file has none."""

    label: FloatArray
    base: FloatArray
    mllm: FloatArray
    weight: FloatArray | None


@dataclass(frozen=True)
class ScoreTable:
    """One file: its used columns, ids and splits as text and the rest as float64; the index holds row numbers."""

    path: Path
    frame: pd.DataFrame
    columns: tuple[str, ...]

    def without_id(self, columns: Columns) -> list[int]:
        """Numbers of the rows whose id is empty."""
        return (
            [int(row) for row in self.frame.index[self.frame[columns.ids].isna()]] if columns.ids in self.frame else []
        )

    def need(self, *names: str) -> None:
        """Check that columns are there.

        Raises:
            DataError: names the one that is not.
        """
        for name in names:
            if name not in self.frame:
                raise DataError(f"{self.path}: no column '{name}'; columns are {', '.join(self.columns)}")


def read_scores(path: Path, columns: Columns, renames: Mapping[str, str] | None = None) -> ScoreTable:
    """A .csv, .tsv, .jsonl or .parquet table; its cells are read as ``coefvq ingest`` reads them.

    ``renames`` is ``ingest.columns``: what a table calls the columns that are manifest words.

    Raises:
        DataError: no such file, another suffix, or a cell does not fit; the message names file, row and column.
    """
    import pandas as pd

    from coefvq.data.importers.columns import Expected
    from coefvq.data.importers.tables import read_cells

    if path.suffix.lower() == ".parquet" and path.is_file() and not renames:
        whole = _by_columns(path, columns)
        if whole is not None:
            return whole
    table = read_cells(path, Expected(columns.names()), renames)
    numbers: list[int] = []
    rows: list[dict[str, Any]] = []
    named: dict[str, None] = {}
    for number, raw in table.rows:
        named.update(dict.fromkeys(raw))
        numbers.append(number)
        rows.append(_cells(f"{path} row {number}", raw, columns, table.decimal_comma))
    if not rows:
        raise DataError(f"{path}: no rows; add at least one scored video")
    used = [name for name in named if name in columns.names()]
    frame = pd.DataFrame(rows, columns=used, index=pd.Index(numbers, name="row"))
    return ScoreTable(path, _typed(frame, columns), tuple(named))


def _typed(frame: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    text = {name: object for name in (columns.ids, columns.split) if name in frame}
    return frame.astype({**dict.fromkeys(frame.columns, "float64"), **text})


def _by_columns(path: Path, columns: Columns) -> ScoreTable | None:
    """A Parquet table column by column; None where a cell needs a look, and the reader of rows says which."""
    import pandas as pd
    import pyarrow as pa

    from coefvq.data.importers import column_cells
    from coefvq.data.importers.columns import Expected
    from coefvq.data.importers.parquet_reader import read_batches

    found: dict[str, list[Any]] = {}
    names: tuple[str, ...] = ()
    try:
        for batch in read_batches(path, columns.names().__contains__):
            Expected(columns.names()).check(str(path), batch.names)
            names = batch.names
            for name, cells in zip(batch.cells.schema.names, batch.cells.columns, strict=True):
                if name in (columns.ids, columns.split):
                    found.setdefault(name, []).extend(column_cells.text(name, cells))
                elif pa.types.is_float64(cells.type) or pa.types.is_integer(cells.type):
                    found.setdefault(name, []).extend(column_cells.number(name, cells, math.nan))
                else:
                    return None
    except (DataError, ValueError, OverflowError, pa.ArrowException):
        return None
    if not found:
        return None
    index = pd.RangeIndex(1, len(next(iter(found.values()))) + 1, name="row")
    frame = pd.DataFrame({name: found[name] for name in names if name in found}, index=index)
    return ScoreTable(path, _typed(frame, columns), names)


def _cells(place: str, raw: Mapping[str, Any], columns: Columns, decimal_comma: bool) -> dict[str, Any]:
    from coefvq.data.importers import values

    cells: dict[str, Any] = {}
    for name in columns.names() & raw.keys():
        if name in (columns.ids, columns.split):
            cells[name] = values.text(place, name, raw[name])
        elif name == columns.label:
            cells[name] = values.truth(place, name, raw[name], decimal_comma=decimal_comma)
        else:
            cells[name] = values.number(place, name, raw[name], math.nan, decimal_comma=decimal_comma)
    return cells


def joined(base: ScoreTable, mllm: ScoreTable, columns: Columns) -> ScoreTable:
    """The base model's table with the MLLM's column put beside it, row by row of the same id; without one, no row.

    Raises:
        DataError: no column of ids, an id comes twice, or the two models did not score the same videos.
    """
    for table in (base, mllm):
        table.need(columns.ids)
        _refuse_repeated(table.path, table.frame[columns.ids])
    mllm.need(columns.mllm)
    rows, others = (table.frame.dropna(subset=columns.ids) for table in (base, mllm))
    here, there = set(rows[columns.ids]), set(others[columns.ids])
    if here != there:
        raise DataError(
            f"ids of the two models differ: {len(here - there)} only in the base file, {len(there - here)} only in the "
            f"MLLM file, first {min(here ^ there)}; score the same videos with both"
        )
    scores = others.set_index(columns.ids)[columns.mllm]
    frame = rows.assign(**{columns.mllm: rows[columns.ids].map(scores)})
    return ScoreTable(base.path, frame, base.columns)


def labelled_rows(table: ScoreTable, columns: Columns, split: str | None = None) -> ScoreColumns:
    """The labelled rows, of ``split`` only if it is given.

    Raises:
        DataError: a column is missing, an id comes twice, or no row is labelled.
    """
    table.need(columns.base, columns.mllm, columns.label)
    rows = table.frame
    if split is not None:
        table.need(columns.split)
        rows = rows[rows[columns.split] == split]
    rows = rows[rows[columns.label].notna()]
    if not len(rows):
        where = "" if split is None else f" in split '{split}'"
        raise DataError(f"{table.path}: no labelled row{where}; label some or name another column with --label-col")
    if columns.ids in rows:
        _refuse_repeated(table.path, rows[columns.ids])
    found = {name: rows[name].to_numpy(dtype=np.float64) for name in (columns.label, columns.base, columns.mllm)}
    weight = rows[columns.weight].to_numpy(dtype=np.float64) if columns.weight in rows else None
    return ScoreColumns(found[columns.label], found[columns.base], found[columns.mllm], weight)


def check_disjoint(table: pd.DataFrame, columns: Columns, fitted: str, reported: str) -> None:
    """Refuse a table in which a video is in both splits: figures on the second would be figures on the first.

    Raises:
        DataError: some id is in both.
    """
    if columns.ids not in table or columns.split not in table:
        return
    of = {name: set(table.loc[table[columns.split] == name, columns.ids].dropna()) for name in (fitted, reported)}
    both = sorted(map(str, of[fitted] & of[reported]))
    if both:
        raise DataError(
            f"{len(both)} videos are in '{fitted}' and in '{reported}', first {both[0]}; split by video before scoring"
        )


def _refuse_repeated(path: Path, ids: pd.Series[Any]) -> None:
    """Rows without an id are others than each other."""
    known = ids.dropna()
    twice = known[known.duplicated()]
    if len(twice):
        video_id, row = twice.iloc[0], twice.index[0]
        first = known.index[known == video_id][0]
        raise DataError(f"{path} row {row}: id {video_id} comes again (first in row {first}); keep one row per video")


def float_column(rows: pd.DataFrame, name: str) -> FloatArray:
    """A column as float64 [n], NaN for null."""
    return rows[name].to_numpy(dtype=np.float64, na_value=np.nan)
