"""A database with explicit writing transactions and one-line errors, and SQLite opened for durability.

The stores write one SQL for SQLite and PostgreSQL (``postgres.py``): ``?``, ``?1`` or ``:name`` for parameters, numbers
for truth values, ``ON CONFLICT`` for upserts. A writing transaction holds the one lock of all writers from its start to
its end, so what it reads cannot change before it writes, and numbers drawn within are in the order of commits.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Any, Protocol

from coefvq.errors import DataError
from coefvq.files import private_file, storage_errors

#: statements of each schema version, oldest first; a database of an older version runs those it lacks
Schema = Sequence[Sequence[str]]
Parameters = Sequence[Any] | Mapping[str, Any]
BUSY_SECONDS = 20.0
#: the smallest page of an SQLite file
_PAGE = 512


class Result(Protocol):
    """What a statement gives back."""

    @property
    def rowcount(self) -> int:
        """Rows that a writing statement changed."""

    def __iter__(self) -> Iterator[Any]:
        """The rows one by one."""

    def fetchone(self) -> Any:
        """The next row, None at the end."""

    def fetchall(self) -> list[Any]:
        """The rest of the rows."""


class Connection(Protocol):
    """What the stores need of a connection; ``sqlite3.Connection`` is one."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""

    def execute(self, sql: str, parameters: Parameters = ..., /) -> Result:
        """Run one statement."""

    def executemany(self, sql: str, parameters: Iterable[Parameters], /) -> Result:
        """Run one statement per set of parameters."""


@dataclass(frozen=True)
class Database:
    """An open database; every error of its driver leaves as a DataError that names the place.

    ``name`` is what messages call it, ``discard`` how a person throws its contents away. ``begin`` are the statements
    that begin a writing transaction and take the writers' lock. ``rewrite`` stores what is there anew: the
    files shrink, and what was deleted is in none of them.
    """

    place: str
    name: str
    discard: str
    connection: Connection
    begin: tuple[str, ...]
    named_errors: Callable[[], AbstractContextManager[None]]
    rewrite: Callable[[], None]

    def query(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """All rows of one reading statement."""
        with self.named_errors():
            return self.connection.execute(sql, parameters).fetchall()

    def whole(self, value: Any, name: str) -> int:
        """A cell as a whole number; SQLite's columns take any value.

        Raises:
            DataError: it is none.
        """
        if not isinstance(value, int):
            raise DataError(f"{self.place}: {name} is {value!r:.60}: expected a whole number; restore it from a copy")
        return value

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Several reading statements, with one-line errors."""
        with self.named_errors():
            yield self.connection

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Hold the writers' lock; all statements of the block take effect together or not at all."""
        with self.named_errors():
            try:
                for statement in self.begin:
                    self.connection.execute(statement)
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise


@contextmanager
def open_database(path: Path, schema: Schema, create: bool = True) -> Iterator[Database]:
    """Open the SQLite file ``path``; make its tables if it is new and bring an older schema version up to date.

    A new file is its owner's only: titles and paths of videos are private.

    Raises:
        DataError: the file is missing and ``create`` is off, is cut off, is not SQLite, is another application's, or
            has a newer schema version.
    """
    if not path.is_file():
        if not create:
            raise DataError(f"{path}: no such state; run `coefvq vmp publish` first or pass --state DIR")
        _make(path, schema)
    _refuse_cut(path)
    with _NamedErrors(path):
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    database = _sqlite(path, connection)
    try:
        _refuse_foreign(database)
        with _NamedErrors(path):
            _make_durable(connection)
        _ensure_schema(database, schema)
        yield database
    finally:
        connection.close()


def _sqlite(path: Path, connection: sqlite3.Connection) -> Database:
    errors = _NamedErrors(path)
    # IMMEDIATE: what the block reads cannot change before it writes
    return Database(str(path), path.name, f"move {path.name}* away", connection, ("BEGIN IMMEDIATE",),
                    lambda: errors, partial(_rewrite, path, connection))  # fmt: skip


def _make_durable(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    # FULL: with the default of some builds a power cut may lose committed batches
    connection.execute("PRAGMA synchronous = FULL")


def _make(path: Path, schema: Schema) -> None:
    """A new database under its name with its tables in it, so that an empty file is always a damaged one."""
    # a name of its own: of two that make the same state at once, the first one is kept
    new = path.with_name(f".{path.name}.{token_hex(8)}.new")
    try:
        private_file(new)
    except OSError as error:
        what = "cannot make the folder" if not path.parent.is_dir() else f"cannot open {path.name}"
        raise DataError(f"{path.parent}: {what} ({error.strerror}); pass another --state DIR") from error
    try:
        with _NamedErrors(path), closing(sqlite3.connect(new, isolation_level=None)) as connection:
            _make_durable(connection)
            _ensure_schema(_sqlite(path, connection), schema)
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: no file; pass another --state DIR")
        with storage_errors(path.parent, "pass another --state DIR"), suppress(FileExistsError):
            _link(new, path)
    finally:
        for name in (new, *(new.with_name(new.name + end) for end in ("-wal", "-shm"))):
            name.unlink(missing_ok=True)


def _link(new: Path, path: Path) -> None:
    try:
        os.link(new, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if not path.exists():
            new.rename(path)


def _refuse_cut(path: Path) -> None:
    """SQLite takes a file without a whole page for a new database; what was in it would be lost without a word."""
    size, wal = path.stat().st_size, path.with_name(f"{path.name}-wal")
    # a first version made the file before its tables: those may be in the -wal file still
    if size < _PAGE and not (wal.is_file() and wal.stat().st_size):
        raise DataError(
            f"{path}: {size} bytes are no database; restore it from a copy, or move {path.name}* away and the next "
            "`coefvq vmp run` makes a new one"
        )


def check_version(database: Database, found: int, schema: Schema) -> None:
    """Refuse a schema version that this program does not write.

    Raises:
        DataError: it is another one.
    """
    if found != len(schema):
        raise DataError(
            f"{database.place}: schema version {found}, expected {len(schema)}; use the coefvq version that "
            "wrote it, or pass a new --state DIR and publish again"
        )


def _refuse_foreign(database: Database) -> None:
    """Refuse tables that are not ours before anything is written."""
    # one statement, so that another process cannot make the tables between two looks
    sql = "SELECT user_version, (SELECT count(*) FROM sqlite_master) FROM pragma_user_version"
    version, tables = database.query(sql)[0]
    if version == 0 and tables:
        raise DataError(f"{database.place}: a database of another application; pass another --state DIR")


def _ensure_schema(database: Database, schema: Schema) -> None:
    if _schema_version(database) < len(schema):
        with database.transaction() as connection:
            # read again: another process may have made the tables while this one waited for the lock
            for statements in schema[_schema_version(database) :]:
                for statement in statements:
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {len(schema)}")
    check_version(database, _schema_version(database), schema)


def _schema_version(database: Database) -> int:
    return int(database.query("PRAGMA user_version")[0][0])


def _rewrite(path: Path, connection: sqlite3.Connection) -> None:
    with _NamedErrors(path):
        connection.execute("VACUUM")
        busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    if busy:
        raise DataError(f"{path}: another process is reading it, so old pages stay in {path.name}-wal; run it again")


@dataclass(frozen=True)
class _NamedErrors:
    """SQLite's errors in one line; every statement is run in it, and a generator would take as long as a short one."""

    path: Path

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise DataError(
                f"{self.path}: {error}; expected a writable SQLite file of `coefvq vmp`: free the lock or disk, or "
                "pass another --state DIR"
            ) from error
