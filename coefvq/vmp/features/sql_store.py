"""Features in a table of a database, through SQLAlchemy; the table is only read."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from coefvq.errors import ConfigError
from coefvq.redaction import redact
from coefvq.vmp.features.values import Kind, StoreError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

_SQLITE_STEPS = 10_000


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
        try:
            self._engine = _engine(url)
        except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ImportError, ValueError) as error:
            raise ConfigError(f"{redact(url)}: {error}; correct the url or install its driver") from error

    def fetch(self, keys: Sequence[str], seconds: float) -> dict[str, Mapping[str, Any]]:
        """The rows of ``keys``.

        Raises:
            StoreError: the database does not answer in time or refuses, or has two rows of a key.
        """
        import sqlalchemy as sa

        try:
            with self._engine.connect() as connection:
                _limit(connection, seconds)
                found = connection.execute(self._select, {"keys": list(keys)}).fetchall()
        except sa.exc.SQLAlchemyError as error:
            # the driver's own words: SQLAlchemy adds the statement with all keys
            said = " ".join(str(getattr(error, "orig", None) or error).split())
            raise StoreError(f"{self._place}: {said}", temporary=isinstance(error, sa.exc.OperationalError)) from error
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


def _engine(url: str) -> Engine:
    import sqlalchemy as sa

    made = sa.make_url(url)
    if made.drivername == "postgresql":
        made = made.set(drivername="postgresql+psycopg")
    if made.get_backend_name() == "sqlite" and made.database and not made.database.startswith("file:"):
        # a file that is missing must not be made
        made = made.set(database=f"file:{quote(made.database)}").update_query_dict({"mode": "ro", "uri": "true"})
    # a connection that the server closed is replaced, not handed out
    options: dict[str, Any] = {"pool_pre_ping": True}
    if made.get_backend_name() == "postgresql" and "connect_timeout" not in made.query:
        options["connect_args"] = {"connect_timeout": 2}
    return sa.create_engine(made, **options)


def _limit(connection: Connection, seconds: float) -> None:
    """End a statement that runs longer, in the database itself."""
    backend = connection.engine.dialect.name
    milliseconds = max(1, math.ceil(seconds * 1000))
    if backend == "postgresql":
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {milliseconds}")
    elif backend == "mysql":
        connection.exec_driver_sql(f"SET SESSION max_execution_time = {milliseconds}")
    elif backend == "sqlite":
        end = time.monotonic() + seconds
        driver: Any = connection.connection.driver_connection
        driver.set_progress_handler(lambda: time.monotonic() > end, _SQLITE_STEPS)
        driver.execute(f"PRAGMA busy_timeout = {milliseconds}")


def _plain(value: Any, kind: Kind) -> Any:
    """A cell as the field's type; SQLite has no truth values, and exact decimals are numbers too."""
    if kind == "flag" and value in (0, 1):
        return bool(value)
    return float(value) if isinstance(value, Decimal) else value
