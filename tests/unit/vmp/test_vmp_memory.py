"""What was read before the writers' lock counts under it only while nobody has written since."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from coefvq.vmp import feed
from coefvq.vmp.index import IndexStore, open_index
from coefvq.vmp.records import Event, SinkRow
from tests.vmp_world import NOW

READ = "SELECT v.video_id, v.seen_version, v.views, v.change, e.state"


def row(version: int, views: int = 5, epoch: int = 1) -> SinkRow:
    event = Event("a", views=views, source_version=version, offset=version)
    return SinkRow(version, "a", version, epoch, 2, "icd=1-ab", "live", "live", "default", "{}", NOW.isoformat(), event,
                   views)  # fmt: skip


@pytest.fixture
def index(tmp_path: Path) -> Iterator[IndexStore]:
    with open_index(tmp_path / "index.sqlite") as opened:
        yield opened


def reads(index: IndexStore, act: Callable[[], object]) -> int:
    """How often the videos are read under the lock meanwhile."""
    connection, seen = index.database.connection, []
    assert isinstance(connection, sqlite3.Connection)
    connection.set_trace_callback(lambda sql: seen.append(sql.startswith(READ)))
    act()
    connection.set_trace_callback(None)
    return sum(seen)


def version(index: IndexStore) -> int | None:
    entry = index.get("a")
    return entry and entry.source_version


def test_a_batch_reads_its_videos_once(index: IndexStore) -> None:
    for number in (1, 2):
        index.known(["a", "b"])
        assert reads(index, lambda at=number: index.apply([row(at)], "vmp", at)) == 0  # type: ignore[misc]
        assert version(index) == number


def test_videos_that_were_not_looked_at_are_read_under_the_lock(index: IndexStore) -> None:
    index.known(["b"])
    assert reads(index, lambda: index.apply([row(1)], "vmp", 1)) == 1


def test_what_another_worker_wrote_in_between_is_seen(index: IndexStore, tmp_path: Path) -> None:
    index.known(["a"])
    with open_index(tmp_path / "index.sqlite") as other:
        other.apply([row(2)], "other", 2)
    report = index.apply([row(1)], "vmp", 1)
    assert (report.stale, version(index)) == (1, 2)


def test_what_this_worker_wrote_in_between_is_seen(index: IndexStore) -> None:
    index.known(["a"])
    index.revise([row(2)], "campaign")
    report = index.apply([row(1)], "vmp", 1)
    assert (report.stale, version(index)) == (1, 2)


def test_a_change_of_the_feed_alone_is_seen_too(index: IndexStore) -> None:
    index.apply([row(1)], "vmp", 1)
    index.known(["a"])
    with index.database.transaction() as connection:
        feed.mark(connection, "a")
    assert reads(index, lambda: index.apply([row(2)], "vmp", 2)) == 1


def test_what_a_transaction_read_before_it_was_taken_back_does_not_count(index: IndexStore) -> None:
    with suppress(ZeroDivisionError), index.database.transaction() as connection:
        connection.execute("INSERT INTO videos (video_id, seen_version) VALUES ('a', 9)")
        assert index.known(["a"])["a"].seen_version == 9
        raise ZeroDivisionError
    index.apply([row(1)], "vmp", 1)
    assert version(index) == 1


def test_the_same_video_twice_in_a_batch_meets_its_own_first_row(index: IndexStore) -> None:
    index.known(["a"])
    report = index.apply([row(2), row(1)._replace(offset=3)], "vmp", 3)
    assert (report.stale, version(index)) == (1, 2)


def test_audit_rows_have_the_databases_time(index_place: Path | str) -> None:
    with open_index(index_place) as opened:
        opened.apply([row(1)], "vmp", 1)
        ((at,),) = opened.database.query("SELECT applied_at FROM effects")
        opened.database.query("INSERT INTO dead_letters (video_id, offset, source_version, uri, reason) "
                              "VALUES ('b', 1, 1, '', '') RETURNING failed_at")  # fmt: skip
        ((default,),) = opened.database.query("SELECT failed_at FROM dead_letters")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", at)
    assert abs(datetime.fromisoformat(at) - datetime.fromisoformat(default)) < timedelta(minutes=1)
    assert datetime.fromisoformat(at).tzinfo == UTC
