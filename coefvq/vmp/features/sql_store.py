"""Features in a table of a database, through SQLAlchemy; the table is only read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from coefvq.redaction import redact
from coefvq.vmp.features.values import Kind, StoreError
from coefvq.vmp.readonly import driver_words, is_passing, limit, open_engine


class SqlStore:
    """One row per key of ``table``; ``columns`` maps a field to its column where the names differ."""

    def __init__(
        self, url: str, table: str, key_column: str, kinds: Mapping[str, Kind], columns: Mapping[str, str]
    ) -> None:
        """Connections are made at the first question.

        Raises:
            ConfigError: the URL or its driver does not fit.
        """
        import sqlalchemy as sa

        self._place, self._kinds = f"{redact(url)} table {table}", kinds
        fields: list[Any] = [
            sa.column(columns.get(field, field)).label(f"field_{place}") for place, field in enumerate(kinds)
        ]
        key: Any = sa.column(key_column)
        self._select = (
            sa.select(key, *fields).select_from(sa.table(table)).where(key.in_(sa.bindparam("keys", expanding=True)))
        )
        self._engine = open_engine(url)

    def fetch(self, keys: Sequence[str], seconds: float) -> dict[str, Mapping[str, Any]]:
        """The rows of ``keys``.

        Raises:
            StoreError: the database does not answer in time or refuses, or has two rows of a key.
        """
        import sqlalchemy as sa

        try:
            with self._engine.connect() as connection:
                limit(connection, seconds)
                found = connection.execute(self._select, {"keys": list(keys)}).fetchall()
        except sa.exc.SQLAlchemyError as error:
            raise StoreError(f"{self._place}: {driver_words(error)}", temporary=is_passing(error)) from error
        rows: dict[str, Mapping[str, Any]] = {}
        for key, *values in found:
            if key in rows:
                raise StoreError(f"{self._place}: two rows of {key!r:.60}; expected one", temporary=False)
            cells = zip(self._kinds.items(), values, strict=True)
            rows[key] = {field: _plain(value, kind) for (field, kind), value in cells}
        return rows

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()


def _plain(value: Any, kind: Kind) -> Any:
    """A cell as the field's type; SQLite has no truth values, and exact decimals are numbers too."""
    if kind == "flag" and value in (0, 1):
        return bool(value)
    return float(value) if isinstance(value, Decimal) else value
