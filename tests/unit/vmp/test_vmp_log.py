"""The event log: versions, idempotent publishing, order, refusals."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from coefvq.errors import DataError
from coefvq.vmp.database import open_database
from coefvq.vmp.log import open_log
from coefvq.vmp.records import Event

A = Event("a", uri="/clips/a.mp4", title="first", stickers=("50 %", "sale"), views=3, sha256="aa")
B = Event("b", uri="/clips/b.mp4", published_at="2026-01-31T08:00:00+00:00")


def test_events_come_back_as_published_in_order(tmp_path: Path) -> None:
    with open_log(tmp_path / "log.sqlite") as log:
        published = log.publish([A, B])
        assert published == [
            replace(A, offset=1, source_version=1),
            replace(B, offset=2, source_version=1),
        ]
    with open_log(tmp_path / "log.sqlite") as log:
        assert log.poll(0, 10) == published
        assert log.poll(0, 1) == published[:1]
        assert log.poll(1, 10) == published[1:]
        assert log.last_offset() == 2


def test_publishing_the_same_twice_makes_one_event(tmp_path: Path) -> None:
    with open_log(tmp_path / "log.sqlite") as log:
        log.publish([A, A])
        assert log.publish([A]) == []
        assert log.last_offset() == 1


@pytest.mark.parametrize(
    "change",
    [
        {"title": "second"},
        {"sha256": "bb"},
        {"stickers": ("50 %",)},
        {"uri": "/moved/a.mp4"},
        {"published_at": "2026-01-31T08:00:00+00:00"},
    ],
)
def test_any_changed_field_raises_the_source_version(tmp_path: Path, change: dict[str, object]) -> None:
    with open_log(tmp_path / "log.sqlite") as log:
        log.publish([A])
        (event,) = log.publish([replace(A, **change)])
        assert (event.offset, event.source_version) == (2, 2)
        assert log.publish([A])[0].source_version == 3  # changed back is a change too


def test_more_views_are_an_event_but_no_version_and_fewer_are_nothing(tmp_path: Path) -> None:
    with open_log(tmp_path / "log.sqlite") as log:
        log.publish([A])
        (event,) = log.publish([replace(A, views=4)])
        assert event == replace(A, kind="views", views=4, offset=2, source_version=1)
        assert log.publish([replace(A, views=3), replace(A, views=4), replace(A, views=None)]) == []
        assert log.publish([replace(A, title="second", views=1)])[0].source_version == 2
        # of the newest content, with the most views that anybody saw
        assert log.newest(["a", "ghost"]) == {"a": replace(A, title="second", views=4, offset=3, source_version=2)}
        assert log.version("a", 1) == replace(A, offset=1, source_version=1)


def test_deletion_and_return(tmp_path: Path) -> None:
    with open_log(tmp_path / "log.sqlite") as log:
        log.publish([A])
        assert log.publish([Event("a", "delete")])[0].source_version == 2
        assert log.publish([Event("a", "delete", title="other")]) == []
        assert log.publish([A])[0].source_version == 3


def test_refused_publication_appends_nothing(tmp_path: Path) -> None:
    with open_log(tmp_path / "log.sqlite") as log:
        with pytest.raises(DataError, match="'ghost': never published"):
            log.publish([A, Event("ghost", "delete")])
        assert log.last_offset() == 0


def test_republish_only_what_is_still_newest(tmp_path: Path) -> None:
    with open_log(tmp_path / "log.sqlite") as log:
        log.publish([A, B, replace(B, title="newer")])
        again = log.republish({"a": 1, "b": 1, "ghost": 1})
        assert [(e.video_id, e.source_version, e.title) for e in again] == [("a", 2, "first")]
        assert log.republish({"a": 1}) == []
        assert log.publish([A]) == []  # same content as what was republished


def test_commits_reach_the_disk(tmp_path: Path) -> None:
    with open_log(tmp_path / "log.sqlite") as log:
        assert log.database.query("PRAGMA journal_mode") == [("wal",)]
        assert log.database.query("PRAGMA synchronous") == [(2,)]  # FULL


def test_reading_a_missing_state_makes_no_file(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match=r"no such state; run `coefvq vmp publish`"),
        open_log(tmp_path / "log.sqlite", create=False),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_other_file_and_other_schema_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    path.write_text("no database at all, but long enough to be one" * 50)
    with pytest.raises(DataError, match=r"log\.sqlite: file is not a database"), open_log(path):
        pass
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(DataError, match="schema version 7, expected 5"), open_log(path):
        pass


def test_a_database_of_another_application_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"log\.sqlite: a database of another application"), open_log(path):
        pass
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DataError, match=r"cannot make the folder .* pass another --state"),
        open_log(tmp_path / "file" / "log.sqlite"),
    ):
        pass


def test_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    with open_database(tmp_path / "x.sqlite", [["CREATE TABLE t (n INTEGER NOT NULL)"]]) as database:

        def insert(*numbers: int | None) -> None:
            with database.transaction() as connection:
                for number in numbers:
                    connection.execute("INSERT INTO t VALUES (?)", (number,))

        with pytest.raises(DataError, match="NOT NULL"):
            insert(1, None)
        assert database.query("SELECT count(*) FROM t") == [(0,)]
        insert(2)
        assert database.query("SELECT n FROM t") == [(2,)]


def test_a_log_that_has_lost_its_id_says_so(tmp_path: Path) -> None:
    with open_log(tmp_path / "log.sqlite") as log:
        log.publish([A])
        with log.database.transaction() as connection:
            connection.execute("DELETE FROM state")
        with pytest.raises(DataError, match=r"lost its id.*restore it from a copy"):
            log.state_id()
