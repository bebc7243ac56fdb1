"""Audit rows (``effects``) that left the index: Parquet files in the folder ``audit`` of a state.

A file gets its final name after its rows have left the index. One that a kill left with the name of before is looked
at by the next run: its rows are still in the index, then it is thrown away, or they are not, then it is kept.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from coefvq.data.manifest import parquet_errors
from coefvq.files import ROOM, atomic_path, private_folder, storage_errors
from coefvq.vmp.database import Database

if TYPE_CHECKING:
    import pandas as pd

FOLDER, _UNFINISHED = "audit", ".unfinished"
_ROWS_PER_FILE = 200_000
_COLUMNS = (
    "number, consumer, offset, video_id, source_version, epoch, rank, bundle_version, outcome, rule, written, error, "
    "applied_at, routes, effective, waited"
)
_REMEDY = "restore it from a copy, or delete it: its audit rows are lost then"


def archive(database: Database, folder: Path, before: str) -> int:
    """Move audit rows older than ``before`` (ISO 8601, UTC) from the index to Parquet; return how many.

    Raises:
        StorageError: the disk is full, or the folder may not be written.
    """
    finish(database, folder)
    last = database.query("SELECT coalesce(max(number), 0) FROM effects WHERE applied_at < ?", (before,))[0][0]
    moved = 0
    while rows := database.query(
        f"SELECT {_COLUMNS} FROM effects WHERE number <= ? ORDER BY number LIMIT ?",  # noqa: S608
        (last, _ROWS_PER_FILE),
    ):
        _move(database, folder, rows)
        moved += len(rows)
    return moved


def finish(database: Database, folder: Path) -> None:
    """Settle the files of a run that was killed."""
    for path in sorted(folder.glob(f"*{_UNFINISHED}")):
        first = _read(path).iloc[0]
        sql = "SELECT 1 FROM effects WHERE number = ? AND video_id = ? AND applied_at = ?"
        if database.query(sql, (int(first["number"]), str(first["video_id"]), str(first["applied_at"]))):
            path.unlink()
        else:
            path.rename(path.with_suffix(".parquet"))


def forget(folder: Path, video_ids: Collection[str]) -> int:
    """Take the rows of these videos out of all files; return how many.

    Raises:
        DataError: a file is damaged.
    """
    gone = 0
    for path in sorted(folder.glob("*.parquet")):
        table = _read(path)
        kept = table[~table["video_id"].isin(list(video_ids))]
        if len(kept) < len(table):
            gone += len(table) - len(kept)
            _write(kept, path) if len(kept) else path.unlink()
    return gone


def _move(database: Database, folder: Path, rows: list[tuple[object, ...]]) -> None:
    import pandas as pd

    first, last = rows[0][0], rows[-1][0]
    private_folder(folder)
    # an index that was built anew counts from 1 again
    path = folder / f"effects-{first:09d}-{last:09d}-{secrets.token_hex(4)}{_UNFINISHED}"
    _write(pd.DataFrame(rows, columns=_COLUMNS.split(", ")), path)
    with database.transaction() as connection:
        connection.execute("DELETE FROM effects WHERE number BETWEEN ? AND ?", (first, last))
    path.rename(path.with_suffix(".parquet"))


def _write(table: pd.DataFrame, path: Path) -> None:
    with storage_errors(path, ROOM), atomic_path(path, durable=True, private=True) as temporary:
        table.to_parquet(temporary, index=False)


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    with parquet_errors(path, _REMEDY):
        return pd.read_parquet(path)
