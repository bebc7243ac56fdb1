"""Pages of a table in the order of (time of change, tenant, id), and the marks that say where one ended.

A time alone is no place to go on from: many rows may share it, and a page may end between two of them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID

from coefvq.documents import parse_json
from coefvq.errors import DataError
from coefvq.files import sha256_json
from coefvq.redaction import redact
from coefvq.vmp.configuration import TableSource
from coefvq.vmp.readonly import driver_words, is_passing, limit, open_engine

#: what one look at the table may take
ANSWER_SECONDS = 60.0
#: the database's own time
_CLOCKS = {
    "postgresql": "SELECT extract(epoch FROM clock_timestamp())",
    "mysql": "SELECT unix_timestamp(sysdate(6))",
    "mariadb": "SELECT unix_timestamp(sysdate(6))",
    # not unixepoch('subsec'): SQLite knows it since 3.42 only
    "sqlite": "SELECT (julianday('now') - 2440587.5) * 86400.0",
}
# what SQLAlchemy would take for a parameter in somebody's query
_PARAMETER = re.compile(r"(?<![:\w\\]):(?=\w)")
#: cells that say where a row stands
Cells = tuple[Any, ...]


class UnavailableError(DataError):
    """The database does not answer now; it may a moment later."""


@dataclass(frozen=True)
class Row:
    """A row: where it stands, when it was changed (unix time), and its cells by the names of the settings."""

    place: Cells
    changed_at: float
    cells: Mapping[str, Any]


@dataclass(frozen=True)
class Page:
    """Rows in their order, and the database's unix time from before they were read."""

    rows: Sequence[Row]
    read_at: float


class Table:
    """The table or query of a source; close it."""

    def __init__(self, source: TableSource) -> None:
        """Nothing is asked yet.

        Raises:
            ConfigError: the URL or its driver does not fit.
        """
        import sqlalchemy as sa

        columns = {field: name for field, name in source.columns.model_dump().items() if name is not None}
        columns |= {"version": source.version, "updated_at": source.updated_at}
        if source.deleted_at is not None:
            columns["deleted_at"] = source.deleted_at
        self.name = f"table:{source.table}" if source.table else f"query:{sha256_json(source.query)[:12]}"
        self.what = f"{redact(source.url)} {self.name}"
        rows = _rows(source, sorted(set(columns.values())))
        self._fields = tuple(columns)
        # the table's name stands before each column: SQLite takes a quoted name that is none for a text
        named = [rows.c[column].label(f"field_{at}") for at, column in enumerate(columns.values())]
        self._keys = [rows.c[columns[field]] for field in ("updated_at", "tenant", "video_id") if field in columns]
        self._select = sa.select(*named).where(*(key.is_not(None) for key in self._keys)).order_by(*self._keys)
        self._unordered = sa.select(*named).where(sa.or_(*(key.is_(None) for key in self._keys)))
        self._newest = sa.select(*named).where(*(key.is_not(None) for key in self._keys))
        self._newest = self._newest.order_by(*(key.desc() for key in self._keys))
        self._engine = open_engine(source.url)

    def page(self, after: Cells, size: int) -> Page:
        """Up to ``size`` rows behind a place, all from the start where it is empty.

        Raises:
            UnavailableError: the database does not answer.
            DataError: it refuses, or a row has no time that could be ordered.
        """
        import sqlalchemy as sa

        statement = self._select
        if after:
            # without SQLAlchemy's types: a text that was cast to VARCHAR is compared with no enum
            behind = sa.tuple_(*self._keys) > sa.tuple_(*(sa.literal(cell, sa.types.NullType()) for cell in after))
            statement = statement.where(behind)
        read_at, found = self._ask(statement.limit(size))
        rows = [self._row(cells) for cells in found]
        times = [*([self._time(after[0])] if after else []), *(row.changed_at for row in rows)]
        for earlier, later in pairwise(times):
            if later < earlier:
                raise DataError(
                    f"{self.what}: updated_at {datetime.fromtimestamp(later, UTC).isoformat()} comes behind "
                    f"{datetime.fromtimestamp(earlier, UTC).isoformat()}: its texts are not in the order of their "
                    "times; write all of them in one form, in UTC"
                )
        return Page(rows, read_at)

    def newest(self, size: int) -> Page:
        """Up to ``size`` rows, the last changed ones first.

        Raises:
            UnavailableError, DataError: as ``page``.
        """
        read_at, found = self._ask(self._newest.limit(size))
        return Page([self._row(cells) for cells in found], read_at)

    def unordered(self) -> Mapping[str, Any] | None:
        """The cells of a row that no page gives, since it has no time or no id; None where there is none.

        Raises:
            UnavailableError, DataError: as ``page``.
        """
        _, found = self._ask(self._unordered.limit(1))
        return dict(zip(self._fields, found[0], strict=True)) if found else None

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def _ask(self, statement: Any) -> tuple[float, Sequence[Sequence[Any]]]:
        import sqlalchemy as sa

        try:
            with self._engine.connect() as connection:
                limit(connection, ANSWER_SECONDS)
                # the time first: what committed before it is seen by the statement after it
                read_at = float(connection.exec_driver_sql(_CLOCKS[self._engine.dialect.name]).scalar_one())
                return read_at, connection.execute(statement).fetchall()
        except sa.exc.SQLAlchemyError as error:
            kind = UnavailableError if is_passing(error) else DataError
            raise kind(
                f"{self.what}: {driver_words(error)}; start the database, correct source.url, table or columns, or "
                "grant SELECT"
            ) from error

    def _row(self, cells: Sequence[Any]) -> Row:
        named = dict(zip(self._fields, cells, strict=True))
        place = tuple(named[field] for field in ("updated_at", "tenant", "video_id") if field in named)
        return Row(place, self._time(named["updated_at"]), named)

    def _time(self, cell: Any) -> float:
        with suppress(ValueError, OverflowError):
            return unix_time(cell)
        raise DataError(f"{self.what}: updated_at = {cell!r:.60}: expected a time, an ISO 8601 text or unix seconds")


def _rows(source: TableSource, columns: Sequence[str]) -> Any:
    import sqlalchemy as sa

    named: list[Any] = [sa.column(name) for name in columns]
    if source.query is not None:
        text = sa.text(_PARAMETER.sub(r"\\:", source.query.rstrip().rstrip(";")))
        return text.columns(*named).subquery("scanned")
    schema, _, name = (source.table or "").rpartition(".")
    return sa.table(name, *named, schema=schema or None)


def unix_time(cell: Any) -> float:
    """The unix time of a cell; without an offset it is in UTC.

    Raises:
        ValueError: it is no time.
    """
    if isinstance(cell, str):
        cell = datetime.fromisoformat(cell)
    if isinstance(cell, datetime):
        return (cell if cell.tzinfo is not None else cell.replace(tzinfo=UTC)).timestamp()
    if isinstance(cell, int | float | Decimal) and not isinstance(cell, bool) and math.isfinite(cell):
        return float(cell)
    raise ValueError(f"{cell!r:.60} is no time")


_TO_TEXT: Mapping[type, Any] = {datetime: datetime.isoformat, Decimal: str, UUID: str}
_FROM_TEXT: Mapping[str, Any] = {"datetime": datetime.fromisoformat, "Decimal": Decimal, "UUID": UUID}


def mark_text(place: Cells, what: str) -> str:
    """A place as text, from which it comes back exactly.

    Raises:
        DataError: a cell is of a type that is no key.
    """
    cells: list[Any] = []
    for cell in place:
        if isinstance(cell, str | int | float):
            cells.append(cell)
        elif type(cell) in _TO_TEXT:
            cells.append({type(cell).__name__: _TO_TEXT[type(cell)](cell)})
        else:
            raise DataError(f"{what}: {cell!r:.60}: a key is a text, a number, a time or a UUID; cast it in a query")
    return json.dumps(cells)


def mark_place(text: str) -> Cells:
    """The place that ``mark_text`` wrote; empty for an empty text.

    Raises:
        DataError: somebody else wrote it.
    """
    remedy = "restore the index from a copy"
    cells = parse_json(text, "stream_marks", remedy) if text else []
    try:
        return tuple(_cell(cell) for cell in cells)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise DataError(f"stream_marks: {text!r:.80} is no mark; {remedy}") from error


def _cell(written: Any) -> Any:
    if not isinstance(written, dict):
        return written
    ((kind, text),) = written.items()
    return _FROM_TEXT[kind](text)
