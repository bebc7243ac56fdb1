"""Two columns of scores from any Parquet or CSV file, checked for what makes thresholds worthless."""

from __future__ import annotations

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
    """Names in the file; ``weight``, ``ids``, ``split`` and ``group`` are used where the file has them."""

    base: str = "base"
    mllm: str = "mllm"
    label: str = "label"
    weight: str = "weight"
    ids: str = "video_id"
    split: str = "split"


@dataclass(frozen=True)
class ScoreColumns:
    """Labelled rows, each column float64 [n]; ``weight`` is None where the file has none."""

    label: FloatArray
    base: FloatArray
    mllm: FloatArray
    weight: FloatArray | None


def read_scores(path: Path) -> pd.DataFrame:
    """A .parquet or .csv table.

    Raises:
        DataError: no such file, another suffix, or not readable as that.
    """
    import pandas as pd

    if not path.is_file():
        raise DataError(f"{path}: no such file; check the path")
    suffix = path.suffix.lower()
    if suffix not in (".parquet", ".csv"):
        raise DataError(f"{path}: expected a .parquet or .csv file")
    try:
        table = pd.read_parquet(path) if suffix == ".parquet" else pd.read_csv(path)
    except (ValueError, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: not readable as {suffix[1:]} ({first})") from error
    return table


def joined(base: pd.DataFrame, mllm: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """The base model's table with the MLLM's column put beside it, row by row of the same id.

    Raises:
        DataError: an id column is missing, an id comes twice, or the two models did not score the same videos.
    """
    for table, name in ((base, "base"), (mllm, "MLLM")):
        _need(table, (columns.ids,), f"{name} file")
        _refuse_repeated(table[columns.ids], f"{name} file")
    _need(mllm, (columns.mllm,), "MLLM file")
    here, there = set(base[columns.ids]), set(mllm[columns.ids])
    if here != there:
        only = sorted(map(str, here ^ there))
        raise DataError(
            f"ids of the two models differ: {len(here - there)} only in the base file, {len(there - here)} only in the "
            f"MLLM file, first {only[0]}; score the same videos with both"
        )
    other = mllm.set_index(columns.ids)[columns.mllm]
    return base.assign(**{columns.mllm: base[columns.ids].map(other)})


def labelled_rows(table: pd.DataFrame, columns: Columns, split: str | None = None) -> ScoreColumns:
    """The labelled rows, of ``split`` only if it is given.

    Raises:
        DataError: a column is missing or not numeric, an id comes twice, no row is labelled, or a score is missing.
    """
    _need(table, (columns.base, columns.mllm, columns.label), "scores")
    rows = table
    if split is not None:
        _need(table, (columns.split,), "scores")
        rows = table[table[columns.split] == split]
    rows = rows[rows[columns.label].notna()]
    if not len(rows):
        where = "" if split is None else f" in split '{split}'"
        raise DataError(f"scores: no labelled row{where}; label some or name another column with --label-col")
    if columns.ids in rows:
        _refuse_repeated(rows[columns.ids], "scores")
    weight = _numbers(rows, columns.weight) if columns.weight in rows else None
    return ScoreColumns(
        _numbers(rows, columns.label), _numbers(rows, columns.base), _numbers(rows, columns.mllm), weight
    )


def check_disjoint(table: pd.DataFrame, columns: Columns, fitted: str, reported: str) -> None:
    """Refuse a table in which a video is in both splits: figures on the second would be figures on the first.

    Raises:
        DataError: some id is in both.
    """
    if columns.ids not in table or columns.split not in table:
        return
    of = {name: set(table.loc[table[columns.split] == name, columns.ids]) for name in (fitted, reported)}
    both = sorted(map(str, of[fitted] & of[reported]))
    if both:
        raise DataError(
            f"{len(both)} videos are in '{fitted}' and in '{reported}', first {both[0]}; split by video before scoring"
        )


def _need(table: pd.DataFrame, names: tuple[str, ...], what: str) -> None:
    for name in names:
        if name not in table:
            raise DataError(f"{what}: no column '{name}'; columns are {', '.join(map(str, table.columns))}")


def _refuse_repeated(ids: pd.Series[Any], what: str) -> None:
    twice = ids[ids.duplicated()]
    if len(twice):
        raise DataError(f"{what}: id {twice.iloc[0]} comes more than once; keep one row per video")


def _numbers(rows: pd.DataFrame, name: str) -> FloatArray:
    try:
        return rows[name].to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise DataError(f"scores: column '{name}' is not numeric ({error})") from error
