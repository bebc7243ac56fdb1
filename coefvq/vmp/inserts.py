"""One INSERT for the rows of a batch, and the conditions that read them: few statements, however many rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from pydantic_core import to_json

from coefvq.vmp.database import Connection

Item = TypeVar("Item")
#: rows of one statement at most; a power of two
_MOST = 64


@dataclass(frozen=True)
class Insert:
    """An INSERT whose rows differ in the columns ``own`` only; ``conflict`` is what stands behind the values."""

    table: str
    own: tuple[str, ...]
    shared: tuple[str, ...] = ()
    conflict: str = ""

    def run(self, connection: Connection, rows: Sequence[Sequence[Any]], shared: Sequence[Any] = ()) -> None:
        """Insert the rows, which meet no conflict with each other, in their order."""
        if not rows:
            return
        if not isinstance(connection, sqlite3.Connection):
            # one parameter for all rows: a server's driver takes longer over a row of its own than the server does
            cells = [[int(cell) if isinstance(cell, bool) else cell for cell in row] for row in rows]
            records = to_json([dict(zip(self.own, row, strict=True)) for row in cells]).decode()
            connection.execute(_of_records(self), (*shared, records))
            return
        # SQLite: one statement of 32 rows takes half the time of 32 statements
        for part in powers_of_two(rows):
            values = [*shared]
            for row in part:
                values += row
            connection.execute(_statement(self, len(part)), values)


@lru_cache(maxsize=64)
def _of_records(insert: Insert) -> str:
    """PostgreSQL: rows from a JSON array of objects, whose values take the types of the table's columns."""
    common = len(insert.shared)
    cells = (*(f"?{number}" for number in range(1, common + 1)), *(f"r.{name}" for name in insert.own))
    return (
        f"INSERT INTO {insert.table} ({', '.join((*insert.shared, *insert.own))}) SELECT {', '.join(cells)} "  # noqa: S608
        f"FROM json_populate_recordset(NULL::{insert.table}, ?{common + 1}) AS r {insert.conflict}"
    )


@lru_cache(maxsize=256)
def _statement(insert: Insert, rows: int) -> str:
    columns = (*insert.shared, *insert.own)
    common, width = len(insert.shared), len(insert.own)
    groups = (
        (*range(1, common + 1), *range(common + 1 + row * width, common + 1 + (row + 1) * width)) for row in range(rows)
    )
    values = ", ".join("(" + ", ".join(f"?{number}" for number in group) + ")" for group in groups)
    return f"INSERT INTO {insert.table} ({', '.join(columns)}) VALUES {values} {insert.conflict}"  # noqa: S608


def powers_of_two(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Cut into parts of 64, 32, 16, ... items: a few statements serve batches of any size, so they stay prepared."""
    start, size = 0, _MOST
    while start < len(items):
        while size > len(items) - start:
            size //= 2
        yield items[start : start + size]
        start += size


def chosen(column: str, values: Sequence[Any]) -> Iterator[tuple[str, Sequence[Any]]]:
    """Conditions that ``column`` holds one of the values, and their parameters; together they cover all values.

    The number of parameters is a power of two, for the same reason as above; the last value fills up the rest.
    """
    for start in range(0, len(values), _MOST):
        part = values[start : start + _MOST]
        size = 1 << (len(part) - 1).bit_length()
        yield f"{column} IN ({_marks(size)})", [*part, *[part[-1]] * (size - len(part))]


@lru_cache(maxsize=16)
def _marks(size: int) -> str:
    return ", ".join("?" * size)
