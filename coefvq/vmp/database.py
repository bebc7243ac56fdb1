"""SQLite opened for durability: WAL, an fsync at each commit, explicit transactions, one-line errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coefvq.errors import DataError
from coefvq.files import private_file

#: statements of each schema version, oldest first; a file of an older version runs those it lacks
Schema = Sequence[Sequence[str]]
_BUSY_SECONDS = 20.0


@dataclass(frozen=True)
class Database:
    """An open database file; every sqlite3 error leaves as a DataError that names the file."""

    path: Path
    connection: sqlite3.Connection

    def query(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of one reading statement."""
        with _named_errors(self.path):
            return self.connection.execute(sql, parameters).fetchall()

    def whole(self, value: Any, name: str) -> int:
        """A cell as a whole number; SQLite's columns take any value.

        Raises:
            DataError: it is none.
        """
        if not isinstance(value, int):
            raise DataError(f"{self.path}: {name} is {value!r:.60}: expected a whole number; restore it from a copy")
        return value

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Several reading statements, with one-line errors."""
        with _named_errors(self.path):
            yield self.connection

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the write lock; all statements of the block take effect together or not at all."""
        with _named_errors(self.path):
            # IMMEDIATE: what the block reads cannot change before it writes
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise


@contextmanager
def open_database(path: Path, schema: Schema, create: bool = True) -> Iterator[Database]:
    """Open ``path``; make its tables if it is new and bring an older schema version up to date.

    A new file is its owner's only: titles and paths of videos are private.

    Raises:
        DataError: the file is missing and ``create`` is off, is not SQLite, is another application's, or has a newer
            schema version.
    """
    if not create and not path.is_file():
        raise DataError(f"{path}: no such state; run `coefvq vmp publish` first or pass --state DIR")
    try:
        private_file(path)
    except OSError as error:
        what = "cannot make the folder" if not path.parent.is_dir() else f"cannot open {path.name}"
        raise DataError(f"{path.parent}: {what} ({error.strerror}); pass another --state DIR") from error
    with _named_errors(path):
        connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    database = Database(path, connection)
    try:
        _refuse_foreign(database)
        with _named_errors(path):
            connection.execute("PRAGMA journal_mode = WAL")
            # FULL: with the default of some builds a power cut may lose committed batches
            connection.execute("PRAGMA synchronous = FULL")
        _ensure_schema(database, schema)
        yield database
    finally:
        connection.close()


def _refuse_foreign(database: Database) -> None:
    """Refuse tables that are not ours before anything is written."""
    # one statement, so that another process cannot make the tables between two looks
    sql = "SELECT user_version, (SELECT count(*) FROM sqlite_master) FROM pragma_user_version"
    version, tables = database.query(sql)[0]
    if version == 0 and tables:
        raise DataError(f"{database.path}: a database of another application; pass another --state DIR")


def _ensure_schema(database: Database, schema: Schema) -> None:
    if _schema_version(database) < len(schema):
        with database.transaction() as connection:
            # read again: another process may have made the tables while this one waited for the lock
            for statements in schema[_schema_version(database) :]:
                for statement in statements:
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {len(schema)}")
    found = _schema_version(database)
    if found != len(schema):
        raise DataError(
            f"{database.path}: schema version {found}, expected {len(schema)}; use the coefvq version that "
            "wrote it, or pass a new --state DIR and publish again"
        )


def _schema_version(database: Database) -> int:
    return int(database.query("PRAGMA user_version")[0][0])


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise DataError(
            f"{path}: {error}; expected a writable SQLite file of `coefvq vmp`: free the lock or disk, or pass "
            "another --state DIR"
        ) from error
