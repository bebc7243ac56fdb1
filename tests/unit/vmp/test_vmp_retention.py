"""Compaction keeps every answer; a forgotten video is in no file."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from filelock import FileLock

from coefvq.errors import DataError
from coefvq.vmp import audit_archive, loop, retention, served
from coefvq.vmp.database import Database
from coefvq.vmp.index import IndexStore, open_index
from coefvq.vmp.log import EventLog, open_log
from coefvq.vmp.overrides import override
from coefvq.vmp.records import FULL, Event, SinkRow
from coefvq.vmp.retention import Compaction, compact, forget
from coefvq.vmp.state import open_state
from tests.vmp_world import NOW, Pair, fixed, promote

FOREVER, AT_ONCE = timedelta(days=36500), timedelta(0)
LATER = datetime(2100, 1, 1, tzinfo=NOW.tzinfo)
TITLE = "the cat who knew too much"


@pytest.fixture
def state(tmp_path: Path, index_place: Path | str) -> Iterator[tuple[Path, EventLog, IndexStore]]:
    if isinstance(index_place, str):
        (tmp_path / "state.yaml").write_text(f"index: {index_place}")
    with open_state(tmp_path) as (log, index):
        promote(index, 1, "1-ab")
        yield tmp_path, log, index


def drain(log: EventLog, index: IndexStore, consumer: str = "vmp") -> None:
    loop.run(log, fixed(Pair()), index, stop=threading.Event(), on_batch=lambda report: None, batch_size=64,
             once=True, consumer=consumer, clock=lambda: NOW)  # fmt: skip


def video(number: int, **other: Any) -> Event:
    return Event(f"v{number}", uri=f"/{number}.mp4", sha256=f"{number}", **other)


def answers(index: IndexStore) -> dict[str, Any]:
    """What readers and later events meet, without audit rows."""
    entries = list(served.scan(index.database))
    return {"entries": entries, "known": index.known([entry.video_id for entry in entries]),
            "letters": index.dead_letters(), "consumers": index.consumers()}  # fmt: skip


def shrink(
    state: tuple[Path, EventLog, IndexStore], audit: timedelta = AT_ONCE, dead: timedelta = FOREVER
) -> Compaction:
    folder, log, index = state
    return compact(folder, log, index, LATER, audit, dead)


def history(log: EventLog, index: IndexStore, videos: int, rounds: int) -> None:
    for number in range(rounds):
        log.publish([video(one, title=f"title {number // 3}", views=number) for one in range(videos)])
    log.publish([Event("v0", "delete"), video(1, title="broken")])
    drain(log, index)


def test_compaction_changes_no_answer_and_goes_on(state: tuple[Path, EventLog, IndexStore]) -> None:
    _, log, index = state
    history(log, index, videos=5, rounds=30)
    before, newest, last = answers(index), log.newest(f"v{n}" for n in range(5)), log.last_offset()
    made = shrink(state)
    assert (made.events, made.audit_rows) == (last - 10, last)  # newest content and most views of each
    assert (answers(index), log.newest(f"v{n}" for n in range(5)), log.last_offset()) == (before, newest, last)
    assert index.database.query("SELECT count(*) FROM effects") == [(0,)]
    assert shrink(state).events == 0
    # what is published once more is no news, what changed is, and it is the next version
    assert log.publish([video(2, title="title 9", views=29)]) == []
    assert [event.source_version for event in log.publish([video(2, title="new")])] == [11]
    assert [event.kind for event in log.publish([video(3, title="title 9", views=30)])] == ["views"]
    drain(log, index)
    override(log, index, "v2", "removed", "ana", "why", NOW)
    # and an index that is built anew from the compacted log gives the same
    drain(log, index, "again")
    entry = index.get("v2")
    assert entry is not None
    assert (entry.source_version, entry.state) == (11, "removed")


def test_a_rebuilt_index_reads_a_compacted_log(tmp_path: Path) -> None:
    with open_state(tmp_path) as (log, index):
        promote(index, 1, "1-ab")
        history(log, index, 5, 9)
        before = list(served.scan(index.database))
        compact(tmp_path, log, index, LATER, AT_ONCE, FOREVER)
    for path in tmp_path.glob("index.sqlite*"):
        path.unlink()
    with open_state(tmp_path) as (log, index):
        promote(index, 1, "1-ab")
        drain(log, index)
        assert list(served.scan(index.database)) == before


def test_what_the_slowest_consumer_has_to_read_stays(state: tuple[Path, EventLog, IndexStore]) -> None:
    folder, log, index = state
    history(log, index, 3, 4)
    index.apply([], "slow", 7)
    shrink(state)
    assert [event.offset for event in log.poll(7, 99)] == list(range(8, log.last_offset() + 1))
    seen = {event.video_id: event.source_version for event in log.poll(0, 99) if event.offset <= 7}
    assert seen == {"v0": 1, "v1": 1, "v2": 1}
    with open_state(folder):  # the slow consumer's place is where no event is any more
        pass


def test_the_file_is_as_large_as_its_live_rows(tmp_path: Path) -> None:
    check_size(tmp_path, videos=30, events=1_500)


@pytest.mark.long
def test_a_million_events_over_a_thousand_videos(tmp_path: Path) -> None:
    check_size(tmp_path, videos=1000, events=1_000_000)


def check_size(folder: Path, videos: int, events: int) -> None:
    """The files of a compacted state against those of a state that never held anything but the newest events."""
    with open_state(folder / "old") as (log, index):
        for database in (log.database, index.database):
            database.connection.execute("PRAGMA synchronous = OFF")  # size is tested here, not power cuts
        promote(index, 1, "1-ab")
        for number in range(events // videos):
            log.publish([video(one, title=f"title {number // 2}", views=number) for one in range(videos)])
            if number % 50 == 0:
                drain(log, index)
        drain(log, index)
        before = answers(index)
        made = compact(folder / "old", log, index, LATER, AT_ONCE, FOREVER)
        assert made.audit_rows == events
        after = answers(index)
        assert after == before
        newest = [log.newest([f"v{one}"])[f"v{one}"] for one in range(videos)]
    with open_state(folder / "new") as (log, index):
        promote(index, 1, "1-ab")
        log.publish(newest)
        drain(log, index)
        index.database.connection.execute("DELETE FROM effects")
        log.database.rewrite()
        index.database.rewrite()
    sizes = [sum((folder / name / file).stat().st_size for file in ("log.sqlite", "index.sqlite"))
             for name in ("old", "new")]  # fmt: skip
    print(
        f"{events} events over {videos} videos: {made.bytes_before} bytes, compacted {sizes[0]}, live rows {sizes[1]}"
    )
    assert sizes[0] <= 2 * sizes[1]


def files_with(folder: Path, text: str) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes())


def test_a_forgotten_video_is_in_no_file(tmp_path: Path) -> None:
    folder = tmp_path / "vmp"
    with open_state(folder) as (log, index):
        epoch = promote(index, 1, "1-ab")
        for number in range(4):
            log.publish([video(1, title=f"{TITLE} {number}", stickers=(TITLE,)), video(2, title=f"other {number}")])
        drain(log, index)
        override(log, index, "v1", "live", "ana", TITLE, NOW)
        error = f"icd: /{TITLE}.mp4: undecodable"
        index.revise([SinkRow(9, "v1", 4, epoch, 0, "", "ignored", None, "r", "{}", NOW.isoformat(), "c", uri=TITLE,
                              error=error)], "x")  # fmt: skip
        compact(folder, log, index, LATER, AT_ONCE, FOREVER)
        index.revise([SinkRow(9, "v1", 4, epoch + 1, FULL, "", "live", "live", TITLE, json.dumps({"title": TITLE}),
                              NOW.isoformat(), "c")], "y")  # fmt: skip
        # the control: before, it is everywhere
        pages = files_with(folder, TITLE)
        assert {name.partition(".")[0].partition("-")[0] for name in pages} == {"index", "log", "effects"}
        archived = pd.concat(map(pd.read_parquet, (folder / "audit").glob("*.parquet")))
        assert archived["error"].tolist().count(error) == 1
        other = index.get("v2")
        made = forget(folder, log, index, ["v1"], NOW)
        assert (made.videos, made.events) == (1, 1)
        assert files_with(folder, TITLE) == []
        archived = pd.concat(map(pd.read_parquet, (folder / "audit").glob("*.parquet")))
        assert set(archived["video_id"]) == {"v2"}
        assert index.get("v2") == other
        entry = index.get("v1")
        assert entry is not None
        assert (entry.state, entry.value) == ("deleted", {})
        assert forget(folder, log, index, ["v1"], NOW) == retention.Forgotten(1, 0, 0)
    with open_state(folder) as (log, index):  # its places in the log are known to be empty
        # an event that a worker still holds brings nothing back, nor why it failed
        late = SinkRow(1, "v1", 3, epoch, FULL, "", "live", "live", "r", json.dumps({"title": TITLE}),
                       NOW.isoformat(), "c", uri=TITLE)  # fmt: skip
        index.revise([late, late._replace(rank=0, state=None, error=TITLE)], "z")
        assert files_with(folder, TITLE) == []
        drain(log, index)
        assert index.states() == {"deleted": 1, "live": 1}
        assert [event.source_version for event in log.publish([video(1, title="mine again")])] == [6]
        with pytest.raises(DataError, match="video 'v9': neither in the log nor in the index"):
            forget(folder, log, index, ["v1", "v9"], NOW)


def test_forget_on_any_store(state: tuple[Path, EventLog, IndexStore]) -> None:
    folder, log, index = state
    history(log, index, 3, 4)
    forget(folder, log, index, ["v1", "v0"], NOW)
    assert index.states() == {"deleted": 2, "live": 1}
    assert index.dead_letters() == []
    drain(log, index)
    assert index.states() == {"deleted": 2, "live": 1}
    made = shrink(state, dead=AT_ONCE)
    assert made.tombstones == 2
    assert index.states() == {"live": 1}
    assert index.known(["v0", "v1"]) == {}
    assert {event.video_id for event in log.poll(0, 99)} == {"v2"}


def test_a_deletion_that_a_consumer_has_still_to_read_stays(state: tuple[Path, EventLog, IndexStore]) -> None:
    _, log, index = state
    history(log, index, 3, 4)
    index.apply([], "slow", 2)
    assert shrink(state, dead=AT_ONCE).tombstones == 0
    assert index.states()["deleted"] == 1


class Dying:
    """A step that a kill -9 would fall into: everything after so many transactions is not done."""

    def __init__(self, lives: int) -> None:
        self.lives = lives

    def __call__(self) -> None:
        self.lives -= 1
        if self.lives < 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("work", ["compact", "forget"])
def test_a_kill_between_any_two_steps_loses_nothing(tmp_path: Path, work: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_archive, "_ROWS_PER_FILE", 7)

    def made(folder: Path) -> None:
        with open_state(folder) as (log, index):
            promote(index, 1, "1-ab")
            history(log, index, 2, 5)

    def do(folder: Path) -> None:
        with open_state(folder) as (log, index):
            if work == "compact":
                compact(folder, log, index, LATER, AT_ONCE, AT_ONCE)
            else:
                forget(folder, log, index, ["v0", "v1"], NOW)

    def outcome(folder: Path) -> tuple[Any, ...]:
        with open_state(folder) as (log, index):
            table = [pd.read_parquet(path) for path in (folder / "audit").glob("*.parquet")]
            archived = sorted(number for part in table for number in part["number"])
            return answers(index), log.poll(0, 999), archived, index.database.query("SELECT number FROM effects")

    made(tmp_path / "whole")
    do(tmp_path / "whole")
    expected, deaths = outcome(tmp_path / "whole"), 0
    for lives in range(99):
        folder, dying = tmp_path / f"{lives}", Dying(lives)
        made(folder)

        @contextmanager
        def transaction(self: Database, whole: Callable[..., Any] = Database.transaction, dying: Dying = dying) -> Any:
            dying()
            with whole(self) as connection:
                yield connection
            dying()

        with monkeypatch.context() as patch:
            patch.setattr(Database, "transaction", transaction)
            try:
                do(folder)
            except KeyboardInterrupt:
                deaths += 1
                patch.undo()
                do(folder)
            else:
                break
        assert outcome(folder) == expected
    assert deaths >= 5


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    with open_log(tmp_path / "log.sqlite") as log, open_index(tmp_path / "index.sqlite") as index:
        with FileLock(tmp_path / ".retention.lock"), pytest.raises(DataError, match="is at work; wait for it"):
            compact(tmp_path, log, index, NOW, FOREVER, FOREVER)
        with pytest.raises(DataError, match="neither in the log"):
            forget(tmp_path, log, index, ["x"], NOW)
        assert compact(tmp_path, log, index, NOW, FOREVER, FOREVER).events == 0


def test_a_reader_that_holds_old_pages_is_named(tmp_path: Path) -> None:
    with open_state(tmp_path) as (log, index):
        promote(index, 1, "1-ab")
        history(log, index, 3, 3)
        with open_index(tmp_path / "index.sqlite") as reader:
            index.database.connection.execute("PRAGMA busy_timeout = 50")
            reader.database.connection.execute("BEGIN")
            reader.states()
            with pytest.raises(DataError, match=r"index\.sqlite: another process is reading it.*run it again"):
                forget(tmp_path, log, index, ["v1"], NOW)
            reader.database.connection.execute("COMMIT")
        forget(tmp_path, log, index, ["v1"], NOW)
