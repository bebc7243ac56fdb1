"""What goes wrong around a stream: late and odd events, a clock set back, a full disk, a store that is away."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from coefvq.errors import DataError
from coefvq.records import ScoredVideo, VideoInput
from coefvq.vmp import loop
from coefvq.vmp.deployment import judge
from coefvq.vmp.index import IndexStore
from coefvq.vmp.log import EventLog
from coefvq.vmp.records import Event, SinkRow
from coefvq.vmp.retriever import Scorer
from coefvq.vmp.state import open_state
from tests.vmp_world import NOW, Pair, fixed


def run(log: EventLog, index: IndexStore, scorer: Scorer | None = None, now: datetime = NOW) -> None:
    loop.run(log, fixed(scorer or Pair()), index, stop=threading.Event(), on_batch=lambda report: None, batch_size=5,
             once=True, clock=lambda: now)  # fmt: skip


@pytest.fixture
def state(tmp_path: Path) -> Iterator[tuple[EventLog, IndexStore]]:
    with open_state(tmp_path / "vmp") as (log, index):
        for database in (log.database, index.database):
            database.connection.execute("PRAGMA synchronous = OFF")  # order is tested here, not power cuts
        yield log, index


def test_an_update_of_a_deleted_video_publishes_it_again(state: tuple[EventLog, IndexStore]) -> None:
    log, index = state
    log.publish([Event("v", title="one")])
    log.publish([Event("v", "delete")])
    run(log, index)
    entry = index.get("v")
    assert entry is not None
    assert entry.state == "deleted"
    log.publish([Event("v", title="two")])
    run(log, index)
    entry = index.get("v")
    assert entry is not None
    assert (entry.state, entry.source_version, entry.value["title"]) == ("live", 3, "two")


def test_versions_out_of_order_end_in_the_newest(state: tuple[EventLog, IndexStore]) -> None:
    """A source may deliver anything twice and late: what is older than what was seen changes nothing."""
    _, index = state
    events = [Event("v", title=f"{version}", source_version=version) for version in range(1, 7)]
    events[2] = Event("v", "delete", source_version=3)

    class Shuffled:
        def __init__(self, seed: int) -> None:
            drawn = random.Random(seed).choices(events[:5], k=6) + events[5:] + events[:5]
            self.events = [Event(**{**vars(event), "offset": place}) for place, event in enumerate(drawn, start=1)]

        def poll(self, after: int, max_n: int) -> list[Event]:
            return [event for event in self.events if event.offset > after][:max_n]

    for seed in range(5):
        with index.database.transaction() as connection:
            for table in ("entries", "videos", "offsets", "effects"):
                connection.execute(f"DELETE FROM {table}")  # noqa: S608
        loop.run(Shuffled(seed), fixed(Pair()), index, stop=threading.Event(), on_batch=lambda report: None,
                 batch_size=4, once=True, clock=lambda: NOW)  # fmt: skip
        entry = index.get("v")
        assert entry is not None
        assert (entry.source_version, entry.value["title"]) == (6, "6")


def test_a_clock_that_is_set_back_an_hour_holds_nothing_up(state: tuple[EventLog, IndexStore]) -> None:
    log, index = state
    log.publish([Event("v", title="one"), Event("w")])
    run(log, index)
    log.publish([Event("v", title="two"), Event("w", "delete")])
    run(log, index, now=NOW - timedelta(hours=1))
    assert {name: entry.state for name in "vw" if (entry := index.get(name)) is not None} == {
        "v": "live", "w": "deleted",
    }  # fmt: skip
    entry = index.get("v")
    assert entry is not None
    assert (entry.source_version, entry.decided_at) == (2, (NOW - timedelta(hours=1)).isoformat())


@pytest.mark.parametrize("file", ["log", "index"])
def test_a_full_disk_is_one_line_and_loses_nothing(state: tuple[EventLog, IndexStore], file: str) -> None:
    """A limit of pages stands in for the disk: the same write fails half-way through a transaction."""
    log, index = state
    names = [f"v{number}" for number in range(20)]
    events = [Event(name, uri=f"/{name}", title="x" * 5000) for name in names]
    database = log.database if file == "log" else index.database
    if file == "index":
        log.publish(events)
    pages = database.query("PRAGMA page_count")[0][0]
    database.query(f"PRAGMA max_page_count = {pages + 9}")
    with pytest.raises(
        DataError, match=rf"{file}\.sqlite: database or disk is full; .* free the lock or disk"
    ) as caught:
        log.publish(events) if file == "log" else run(log, index)
    assert "\n" not in str(caught.value)
    done = index.committed(loop.CONSUMER)
    assert done < 20
    assert index.database.query("SELECT count(*) FROM entries") == [(done,)]  # whole batches, with their offset
    assert log.last_offset() == (0 if file == "log" else 20)
    database.query("PRAGMA max_page_count = 1000000")
    log.publish(events)
    run(log, index)
    assert index.states() == {"live": 20}
    assert index.database.query("SELECT count(*), count(DISTINCT offset) FROM effects") == [(20, 20)]


def test_a_store_that_is_away_for_a_while_loses_nothing(postgres_url: str, tmp_path: Path) -> None:
    """The server ends all connections and takes no new ones: the run ends with one line, a later one goes on."""
    import psycopg

    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS away WITH (FORCE)")
        admin.execute("CREATE DATABASE away")
        (tmp_path / "vmp").mkdir()
        (tmp_path / "vmp" / "state.yaml").write_text(f"index: {postgres_url.replace('/postgres?', '/away?')}\n")
        names, batches = [f"v{number:02d}" for number in range(20)], list[int]()

        def go_away(videos: Sequence[VideoInput]) -> list[ScoredVideo]:
            batches.append(len(videos))
            if len(batches) == 3:
                admin.execute("ALTER DATABASE away ALLOW_CONNECTIONS false")
                admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'away'")
            return Pair()(videos)

        with open_state(tmp_path / "vmp") as (log, index):
            log.publish([Event(name, uri=f"/{name}") for name in names])
            with pytest.raises(DataError, match=r"postgresql://\*\*\*@.*run the command again") as caught:
                run(log, index, go_away)
        assert "not-shown" not in str(caught.value)
        assert "\n" not in str(caught.value)
        with pytest.raises(DataError, match="not currently accepting connections"), open_state(tmp_path / "vmp"):
            pass
        admin.execute("ALTER DATABASE away ALLOW_CONNECTIONS true")
        with open_state(tmp_path / "vmp") as (log, index):
            assert index.committed(loop.CONSUMER) == 10  # the batch in hand is repeated
            run(log, index)
            assert index.states() == {"live": 20}
            assert index.database.query('SELECT count(*), count(DISTINCT "offset") FROM effects') == [(20, 20)]
        admin.execute("DROP DATABASE away WITH (FORCE)")


def test_a_damaged_entry_stops_who_reads_it_and_newer_content_replaces_it(
    state: tuple[EventLog, IndexStore],
) -> None:
    log, index = state
    log.publish([Event("v", title="one")])
    run(log, index)
    index.database.connection.execute("UPDATE entries SET value = '{'")
    with pytest.raises(DataError, match=r"entry v: not JSON .*restore the index from a copy"):
        judge(log.poll(0, 1), fixed(Pair()).deployment, index.known(["v"]), NOW)
    log.publish([Event("v", title="two")])
    run(log, index)
    entry = index.get("v")
    assert entry is not None
    assert entry.value["title"] == "two"


def test_rows_of_a_store_are_refused_below_what_was_seen(state: tuple[EventLog, IndexStore]) -> None:
    """A worker that is late by hours: its dead letter does not stand against the newer success."""
    log, index = state
    log.publish([Event("v", title="one")])
    log.publish([Event("v", title="two")])
    run(log, index)
    late = SinkRow(1, "v", 1, 1, 0, "", "ignored", None, "unscored", "{}", NOW.isoformat(), "x", error="icd: broken")
    index.revise([late], "late")
    assert (index.dead_letters(), index.states()) == ([], {"live": 1})
