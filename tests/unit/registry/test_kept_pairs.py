"""When a database is as it was, by a look at its file."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from coefvq.registry.kept_pairs import database_state
from coefvq.registry.store import Store, locate


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = locate(None, None, tmp_path)
    with _opened(found) as connection:
        connection.execute("CREATE TABLE aliases (name TEXT, version INTEGER)")
        connection.execute("INSERT INTO aliases VALUES ('champion', 1)")
    return found


@contextmanager
def _opened(store: Store) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(str(store.database))) as connection, connection:
        yield connection


def test_a_look_changes_nothing_and_a_transaction_does(store: Store) -> None:
    assert store.database is not None
    before, facts = database_state(store), store.database.stat()
    with _opened(store) as connection:
        connection.execute("SELECT * FROM aliases").fetchall()
    assert before is not None
    assert database_state(store) == before
    with _opened(store) as connection:
        connection.execute("UPDATE aliases SET version = 2")
    # within one tick of the clock the time of the file stays, and so may its size
    os.utime(store.database, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert (store.database.stat().st_size, store.database.stat().st_mtime_ns) == (facts.st_size, facts.st_mtime_ns)
    assert database_state(store) not in (None, before)


def test_a_transaction_that_goes_on_and_one_that_was_killed_tell_nothing(store: Store) -> None:
    with _opened(store) as connection:
        connection.execute("UPDATE aliases SET version = 2")
        assert database_state(store) is None
    assert database_state(store) is not None


def test_what_cannot_be_seen_in_the_file_is_not_taken_as_seen(store: Store, tmp_path: Path) -> None:
    assert database_state(locate("http://127.0.0.1:5000", None, tmp_path)) is None
    with _opened(store) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    assert database_state(store) is None
    (tmp_path / "mlflow.db").unlink()
    assert database_state(store) is None


def test_a_copy_and_a_moved_database_are_others(store: Store, tmp_path: Path) -> None:
    assert store.database is not None
    (tmp_path / "copy").mkdir()
    (tmp_path / "moved").mkdir()
    shutil.copy2(store.database, tmp_path / "copy")
    before = database_state(store)
    store.database.rename(tmp_path / "moved" / "mlflow.db")
    found = {database_state(locate(None, None, tmp_path / name)) for name in ("copy", "moved")}
    assert len(found | {before, None}) == 4
