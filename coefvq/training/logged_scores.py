"""MLLM scores that a stream has logged, as a second teacher of a distilled base model: no MLLM is asked for them.

The table is named by its content, since DVC compares the setting that names it. A video came to the MLLM with a
known probability (its propensity): escalated ones with certainty, audited ones by a draw. Each stands for as many
videos as that probability says, 1 / p (Horvitz and Thompson 1952), at most for ``MOST``.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

from coefvq.data.manifest import parquet_errors
from coefvq.errors import DataError
from coefvq.files import ROOM, atomic_path, check_regular, sha256_file, storage_errors

#: a video that was drawn more rarely counts as this many: one that nobody expected must not rule an epoch
MOST = 10.0
_COLUMNS = ("video_id", "score", "probability")
_REMEDY = "write it again: coefvq vmp scores"
_DIGITS = 12


def write_logged(folder: Path, issue: str, rows: pd.DataFrame) -> Path:
    """Write ``video_id``, ``score`` and ``probability`` as ``<issue>-<hash>.parquet``; returns the path.

    Raises:
        StorageError: the disk is full, or the folder may not be written.
    """
    data = rows.loc[:, list(_COLUMNS)].to_parquet(index=False)
    path = folder / f"{issue}-{hashlib.sha256(data).hexdigest()[:_DIGITS]}.parquet"
    with storage_errors(path, ROOM), atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return path


def read_logged(path: Path, key: str) -> pd.DataFrame:
    """Rows of such a table; ``key`` is the setting that names it.

    Raises:
        DataError: it is missing, is not what its name says, or a row does not fit.
    """
    check_regular(path, missing=f"{key} names it; {_REMEDY}", remedy=_REMEDY)
    if path.stem.rpartition("-")[2] != sha256_file(path)[:_DIGITS]:
        raise DataError(f"{path}: changed since it was named, so {key} does not say what it holds; {_REMEDY}")
    with parquet_errors(path, _REMEDY):
        rows = pd.read_parquet(path, columns=list(_COLUMNS))
    for name, low in (("score", 0.0), ("probability", 1e-9)):
        numbers = pd.to_numeric(rows[name], errors="coerce")
        wrong = ~numbers.between(low, 1.0)
        if wrong.any():
            at = int(wrong.to_numpy().argmax())
            raise DataError(
                f"{path}: {name} of {rows['video_id'].iloc[at]!r} is {rows[name].iloc[at]}: expected a probability"
                f"{'' if name == 'score' else ' above 0'}; {_REMEDY}"
            )
        rows[name] = numbers.astype("float64")
    if (again := rows["video_id"][rows["video_id"].duplicated()]).size:
        raise DataError(f"{path}: video {again.iloc[0]!r} comes twice; {_REMEDY}")
    return rows


def row_weights(probability: pd.Series[float]) -> pd.Series[float]:
    """1 / probability [n], at most ``MOST``, divided by their mean: together the rows weigh as many as they are."""
    weight = (1.0 / probability).clip(upper=MOST)
    return weight / weight.mean()
