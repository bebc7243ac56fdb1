"""A state that an earlier version wrote goes on in place, wherever a crash falls into the change."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from coefvq.errors import DataError
from coefvq.vmp import feed, loop
from coefvq.vmp.epochs import issued
from coefvq.vmp.records import Event, SinkRow
from coefvq.vmp.retention import compact
from coefvq.vmp.state import open_state
from tests.old_vmp_state import as_version
from tests.vmp_world import NOW, POLICY, FixedDeployment, Pair, deployment, promote, work

EVENTS = [Event(name, uri=f"/{name}.mp4", sha256=name * 8, views=7) for name in "abcd"]


def run(folder: Path, pair: Pair, epoch: int) -> None:
    with open_state(folder) as (log, index):
        used = FixedDeployment(deployment(pair, epoch, bundle=pair.bundle))
        loop.run(log, used, index, stop=threading.Event(), on_batch=lambda report: None, batch_size=3, once=True,
                 clock=lambda: NOW, work=work(log, index))  # fmt: skip


def begin(folder: Path, epoch: int) -> None:
    """A state whose four videos were judged by pair 1, deployed at that epoch."""
    with open_state(folder) as (log, index):
        log.publish(EVENTS)
        assert promote(index, 1, "1-ab") == epoch
    run(folder, Pair(), epoch)


@pytest.fixture(params=[1, 2])
def state(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Four videos of pair 1, one removed, one deleted, a dead letter; then ``d`` again by pair 2."""
    folder, version = tmp_path / "vmp", request.param
    with open_state(folder) as (log, index):
        log.publish(EVENTS)
        first, second = promote(index, 1, "1-ab"), promote(index, 2, "2-cd")
    run(folder, Pair(base=lambda video: 0.9 if video.video_id == "b" else 0.1), first)
    with open_state(folder) as (log, index):
        log.publish([Event("c", "delete"), replace(EVENTS[3], title="new")])
    run(folder, Pair(bundle="2-cd"), second)
    with open_state(folder) as (log, index):
        log.publish([replace(EVENTS[0], title="broken")])
        (event,) = log.poll(6, 9)
        index.apply([SinkRow(event.offset, "a", 2, second, 0, "", "ignored", None, "unscored", "{}", NOW.isoformat(),
                             "x", error="icd: undecodable")], "vmp", event.offset)  # fmt: skip
    as_version(folder, version)
    return folder


def contents(folder: Path) -> dict[str, list[tuple[object, ...]]]:
    with open_state(folder) as (log, index):
        rows = {
            "entries": "SELECT video_id, state, epoch, rank, views, bundle_version FROM entries ORDER BY video_id",
            "videos": "SELECT video_id, seen_version, views FROM videos ORDER BY video_id",
            "letters": "SELECT video_id, source_version, epoch, held FROM dead_letters",
            "bundles": "SELECT epoch, bundles, withdrawn FROM deployments ORDER BY epoch",
        }
        found = {name: index.database.query(sql) for name, sql in rows.items()}
        return found | {"events": [(event.video_id, event.source_version) for event in log.poll(0, 99)]}


EXPECTED: dict[str, list[tuple[object, ...]]] = {
    "entries": [
        ("a", "live", 2, 2, 7, "icd=1-ab"),
        ("b", "removed", 2, 2, None, "icd=1-ab"),  # a tombstone held no views
        ("c", "deleted", 1, 2, None, ""),
        ("d", "live", 3, 2, 7, "icd=2-cd"),
    ],
    "videos": [("a", 2, 7), ("b", 1, None), ("c", 2, None), ("d", 2, 7)],
    "letters": [("a", 2, 0, 0)],
    "bundles": [(1, "", 0), (2, "icd=1-ab", 0), (3, "icd=2-cd", 0)],
    "events": [("a", 1), ("b", 1), ("c", 1), ("d", 1), ("c", 2), ("d", 2), ("a", 2)],
}


def test_an_old_state_keeps_all_it_held(state: Path) -> None:
    assert contents(state) == EXPECTED
    assert contents(state) == EXPECTED  # opened once more


def test_it_goes_on_with_epochs_above_its_own(state: Path) -> None:
    with open_state(state) as (log, index):
        head = promote(index, 3, "3-ef", "2-cd")
        assert head == 4
        entry = index.get("d")
        assert entry is not None
        assert entry.state == "withdrawn"  # although nobody knew of epochs when pair 2 decided
        log.publish([replace(EVENTS[1], views=9)])
        assert log.poll(7, 9)[0].kind == "views"
    run(state, Pair(bundle="3-ef"), head)
    with open_state(state) as (_, index):
        assert [item.bundles for item in issued(index.database)][-1] == "icd=3-ef"
        assert index.known(["b"])["b"].views == 9


#: changing statements of the newest steps
SIXTH, SEVENTH, EIGHTH = 9, 1, 10
CHANGING = ("CREATE", "ALTER", "INSERT", "UPDATE", "DROP", "DELETE")


@pytest.mark.parametrize("file", ["log.sqlite", "index.sqlite"])
def test_a_crash_at_any_statement_of_the_change_loses_nothing(
    state: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert crash_everywhere(state, file, monkeypatch) > 5
    assert contents(state) == EXPECTED


def crash_everywhere(state: Path, file: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Open a state again and again, each time dying one changing statement later; how often it died."""
    connect, deaths = sqlite3.connect, 0
    for lives in range(99):
        left = [lives]

        class Dying(sqlite3.Connection):
            def execute(self, sql: str, *rest: object, left: list[int] = left) -> sqlite3.Cursor:
                left[0] -= sql.split()[0] in CHANGING
                if left[0] < 0:
                    raise KeyboardInterrupt
                return super().execute(sql, *rest)  # type: ignore[arg-type]

        def opened(path: Path, kind: type = Dying, **options: object) -> sqlite3.Connection:
            factory = kind if path.name == file else sqlite3.Connection
            return connect(path, factory=factory, **options)  # type: ignore[call-overload, no-any-return]

        with monkeypatch.context() as patch:
            patch.setattr(sqlite3, "connect", opened)
            try:
                open_both(state)
                break
            except KeyboardInterrupt:
                deaths += 1
    return deaths


@pytest.mark.parametrize("rule", ["hold", "base_only"])
def test_what_waited_for_the_mllm_in_schema_3_waits_in_the_queue(
    tmp_path: Path, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "vmp"
    pair = Pair(POLICY.model_copy(update={"mllm_down": rule}), base=lambda video: 0.1 if video.video_id == "a" else 0.9)
    with open_state(folder) as (log, index):
        log.publish(EVENTS)
        epoch = promote(index, 1, "1-ab")
    pair.down = True
    run(folder, pair, epoch)
    as_version(folder, 3)
    assert crash_everywhere(folder, "index.sqlite", monkeypatch) > 15
    with open_state(folder) as (_, index):
        tasks = index.database.query("SELECT video_id, source_version, epoch, views, silent, scores FROM pending")
        assert sorted(tasks) == [(name, 1, epoch, 7, 1, "") for name in "bcd"]
        assert index.database.query("SELECT count(*) FROM dead_letters") == [(3 if rule == "hold" else 0,)]
    pair.down = False
    run(folder, pair, epoch)
    with open_state(folder) as (_, index):
        assert index.database.query("SELECT video_id, state, rank FROM entries ORDER BY video_id") == [
            ("a", "live", 2), ("b", "removed", 2), ("c", "removed", 2), ("d", "removed", 2),
        ]  # fmt: skip
        assert index.database.query("SELECT count(*) FROM pending") == [(0,)]
        assert index.dead_letters() == []


def test_a_queue_of_schema_4_is_the_default_tenant_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, pair = tmp_path / "vmp", Pair(base=lambda video: 0.9)
    with open_state(folder) as (log, index):
        log.publish(EVENTS)
        used = FixedDeployment(deployment(pair, promote(index, 1, "1-ab")))
        loop.run(log, used, index, stop=threading.Event(), on_batch=lambda report: None, batch_size=3, once=True,
                 clock=lambda: NOW)  # fmt: skip
    as_version(folder, 4)
    assert crash_everywhere(folder, "index.sqlite", monkeypatch) == 5 + SIXTH + SEVENTH + EIGHTH
    with open_state(folder) as (_, index):
        tasks = index.database.query("SELECT video_id, tenant, lane FROM pending ORDER BY video_id")
        assert tasks == [(name, "default", 1) for name in "abcd"]
        assert index.database.query("SELECT count(*) FROM tenants") == [(0,)]
    run(folder, pair, 1)
    assert pair.mllm_calls == list("abcd")


def test_a_feed_of_schema_5_goes_on_with_its_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, epoch = tmp_path / "vmp", 1
    begin(folder, epoch)
    with open_state(folder) as (log, index):
        log.publish([Event("d", "delete")])  # the highest number, of a row that compaction takes away
        log.publish([replace(EVENTS[0], title="new")])
    run(folder, Pair(), epoch)
    with open_state(folder) as (log, index):
        log.publish([Event("b", "delete")])
    run(folder, Pair(), epoch)
    with open_state(folder) as (log, index):
        done = compact(folder, log, index, NOW + timedelta(days=2), timedelta(days=9), timedelta(days=1))
        assert done.tombstones == 2
        before = [(change.number, change.entry) for change in feed.read(index.database, 0, 9).changes]
        end = feed.newest(index.database)
        assert [number for number, _ in before] == [3, 6]
        assert end == 7
    as_version(folder, 5)
    assert crash_everywhere(folder, "index.sqlite", monkeypatch) == SIXTH + SEVENTH + EIGHTH
    with open_state(folder) as (log, index):
        assert [(change.number, change.entry) for change in feed.read(index.database, 0, 9).changes] == before
        assert feed.newest(index.database) == end
        log.publish([Event("e", uri="/e.mp4")])
    run(folder, Pair(), epoch)
    with open_state(folder) as (_, index):
        (change,) = feed.read(index.database, end, 9).changes
        assert (change.number, change.entry.video_id) == (end + 1, "e")


def test_schema_7_writes_no_index_of_epochs_and_a_rollback_still_finds_its_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "vmp"
    with open_state(folder) as (log, index):
        log.publish(EVENTS)
        first, second = promote(index, 1, "1-ab"), promote(index, 2, "2-cd")
    run(folder, Pair(), second)
    as_version(folder, 6)
    assert crash_everywhere(folder, "index.sqlite", monkeypatch) == SEVENTH + EIGHTH
    with open_state(folder) as (_, index):
        names = index.database.query("SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'entries'")
        assert [name for (name,) in names if not name.startswith("sqlite_")] == []
        end = feed.newest(index.database)
        with index.database.transaction() as connection:
            feed.mark_epochs(connection, [first, second])
        changes = feed.read(index.database, end, 9).changes
        assert [change.entry.video_id for change in changes] == list("abcd")


def test_schema_8_keeps_entries_at_the_numbers_of_their_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, epoch = tmp_path / "vmp", 1
    begin(folder, epoch)
    with open_state(folder) as (log, index):
        log.publish([replace(EVENTS[1], title="new")])
    run(folder, Pair(), epoch)
    with open_state(folder) as (_, index):
        before = [(change.number, change.entry) for change in feed.read(index.database, 0, 9).changes]
        assert [(number, entry.video_id) for number, entry in before] == [(1, "a"), (3, "c"), (4, "d"), (5, "b")]
    as_version(folder, 7)
    assert crash_everywhere(folder, "index.sqlite", monkeypatch) == EIGHTH
    with open_state(folder) as (_, index):
        assert [(change.number, change.entry) for change in feed.read(index.database, 0, 9).changes] == before
        assert index.database.query("SELECT change, video_id FROM entries ORDER BY change") == [
            (number, entry.video_id) for number, entry in before
        ]


@pytest.mark.parametrize("damage", ["UPDATE videos SET change = NULL", "DELETE FROM videos"])
def test_an_entry_without_a_number_is_not_lost_in_schema_8(state: Path, damage: str) -> None:
    with open_state(state):
        pass
    as_version(state, 7)
    with closing(sqlite3.connect(state / "index.sqlite")) as connection, connection:
        connection.execute(f"{damage} WHERE video_id = 'b'")
    with pytest.raises(DataError, match="entries = 0"), open_state(state):
        pass
    with closing(sqlite3.connect(state / "index.sqlite")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (7,)
        assert connection.execute("SELECT count(*) FROM entries").fetchone() == (4,)


def open_both(folder: Path) -> None:
    with open_state(folder):
        pass


def test_a_state_of_a_later_version_is_refused(state: Path) -> None:
    with closing(sqlite3.connect(state / "index.sqlite")) as connection, connection:
        connection.execute("PRAGMA user_version = 9")
    with pytest.raises(DataError, match="schema version 9, expected 8"):
        contents(state)
