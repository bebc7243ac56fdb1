"""Log and index belong together: a log that is lost, replaced or older than its index is refused."""

from __future__ import annotations

import shutil
import sqlite3
import stat
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from coefvq.errors import DataError
from coefvq.records import ScoredVideo, VideoInput
from coefvq.vmp import database, loop
from coefvq.vmp.log import EventLog
from coefvq.vmp.records import Decision, Event
from coefvq.vmp.state import open_state
from tests.old_vmp_state import as_version
from tests.vmp_world import fixed

EVENTS = [Event(name, uri=f"/clips/{name}.mp4", sha256=name * 8) for name in "abcdef"]


def accept(videos: Sequence[VideoInput]) -> list[ScoredVideo]:
    return [ScoredVideo(video.video_id, "icd", 0.1, None, False, "base", "1-ab") for video in videos]


def publish(state: Path, *events: Event) -> None:
    with open_state(state) as (log, _):
        log.publish(events)


def drain(state: Path, consumer: str = "vmp") -> set[str]:
    """Run the loop over what is new; returns the videos of the index."""
    with open_state(state) as (log, index):
        loop.run(log, fixed(accept, decide=lambda candidate, now: Decision("live", "default")), index,
                 stop=threading.Event(), on_batch=lambda report: None, batch_size=2, once=True,
                 consumer=consumer)  # fmt: skip
        return {name for (name,) in index.database.query("SELECT video_id FROM entries")}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state of four videos, all of them read."""
    publish(tmp_path / "vmp", *EVENTS[:4])
    assert drain(tmp_path / "vmp") == set("abcd")
    return tmp_path / "vmp"


def lose_log(state: Path) -> None:
    remove(state, "log")


def remove(state: Path, name: str) -> None:
    for path in state.glob(f"{name}.sqlite*"):
        path.unlink()


def log_of_another_state(state: Path) -> None:
    publish(state.parent / "other", *EVENTS)
    remove(state, "log")
    shutil.copy(state.parent / "other" / "log.sqlite", state)


def drop_events(state: Path, count: int) -> None:
    """What a restored backup looks like: the same log with fewer events."""
    with closing(sqlite3.connect(state / "log.sqlite")) as connection, connection:
        connection.execute("DELETE FROM events WHERE offset > (SELECT max(offset) FROM events) - ?", (count,))
        connection.execute("UPDATE sqlite_sequence SET seq = (SELECT coalesce(max(offset), 0) FROM events)")


def older_log(state: Path) -> None:
    drop_events(state, 1)


def older_log_with_new_events(state: Path) -> None:
    drop_events(state, 1)
    with closing(sqlite3.connect(state / "log.sqlite", isolation_level=None)) as connection:
        from coefvq.vmp.log_rows import append_changed

        # the same video and source version, other content
        append_changed(connection, [replace(EVENTS[3], title="other")])


@pytest.mark.parametrize("damage", [lose_log, log_of_another_state, older_log, older_log_with_new_events])
def test_a_log_that_is_not_the_index_s_own_is_refused_with_the_remedy(
    state: Path, damage: Callable[[Path], None]
) -> None:
    damage(state)
    for _ in range(2):  # a refusal leaves nothing behind that would pass the next time
        with pytest.raises(DataError, match=r"log\.sqlite.*events would be lost\. Restore .* or move index") as caught:
            publish(state, EVENTS[4])
        assert "\n" not in str(caught.value)
        with pytest.raises(DataError, match="events would be lost"):
            drain(state)


@pytest.mark.parametrize("name", ["log", "index"])
@pytest.mark.parametrize("left", [0, 1, 511])
def test_a_file_that_was_cut_off_is_no_new_state(state: Path, name: str, left: int) -> None:
    whole = (state / f"{name}.sqlite").read_bytes()
    remove(state, name)
    (state / f"{name}.sqlite").write_bytes(whole[:left])
    for create in (True, False):
        message = rf"{name}\.sqlite: {left} bytes are no database; restore it from a copy"
        with pytest.raises(DataError, match=message), open_state(state, create):
            pass
    assert not list(state.glob(".*.new*"))


def test_a_database_appears_with_its_tables_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(database, "_link", killed)
        with pytest.raises(KeyboardInterrupt), open_state(tmp_path / "vmp"):
            pass
    assert not list((tmp_path / "vmp").iterdir())
    with open_state(tmp_path / "vmp") as (log, _):
        assert log.last_offset() == 0


def test_the_remedy_works(state: Path) -> None:
    older_log(state)
    remove(state, "index")
    publish(state, EVENTS[4])
    assert drain(state) == set("abce")


def test_an_index_that_is_lost_or_older_is_caught_up(state: Path, tmp_path: Path) -> None:
    shutil.copytree(state, tmp_path / "backup")
    publish(state, EVENTS[4], EVENTS[5])
    assert drain(state) == set("abcdef")
    remove(state, "index")
    shutil.copy(tmp_path / "backup" / "index.sqlite", state)
    assert drain(state) == set("abcdef")
    remove(state, "index")
    assert drain(state) == set("abcdef")


def test_every_consumer_counts(state: Path) -> None:
    publish(state, EVENTS[4])
    assert drain(state, "second") == set("abcde")
    older_log(state)
    with pytest.raises(DataError, match=r"ends at offset 4, but index\.sqlite has read up to 5 \(second\)"):
        drain(state)


def test_a_log_copied_without_its_wal_is_refused(tmp_path: Path) -> None:
    with open_state(tmp_path / "vmp") as (log, index):
        log.publish(EVENTS[:1])
        log.database.query("PRAGMA wal_checkpoint(TRUNCATE)")
        log.publish(EVENTS[1:3])
        index.apply([], "vmp", 3)
        copy = tmp_path / "copy"
        copy.mkdir()
        shutil.copy(tmp_path / "vmp" / "log.sqlite", copy)
        for path in (tmp_path / "vmp").glob("index.sqlite*"):
            shutil.copy(path, copy)
    with pytest.raises(DataError, match=r"ends at offset 1, .* without its -wal file"):
        drain(copy)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_state_of_the_first_schema_is_adopted_wherever_a_crash_falls(
    state: Path, stage: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_version(state, 1)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    place = ["coefvq.vmp.state.open_index", "coefvq.vmp.state._bind", "coefvq.vmp.state._digest"][stage]
    with monkeypatch.context() as patch:
        patch.setattr(place, die)
        with pytest.raises(KeyboardInterrupt):
            drain(state)
    publish(state, EVENTS[4])
    assert drain(state) == set("abcde")
    older_log(state)
    with pytest.raises(DataError, match="events would be lost"):
        drain(state)


@pytest.mark.parametrize("damage", [lose_log, log_of_another_state, older_log])
def test_a_first_schema_state_with_a_wrong_log_is_not_adopted(state: Path, damage: Callable[[Path], None]) -> None:
    if damage is log_of_another_state:
        # long enough, but with another video at the place
        publish(state.parent / "other", *reversed(EVENTS))
        as_version(state, 1)
        remove(state, "log")
        shutil.copy(state.parent / "other" / "log.sqlite", state)
    else:
        as_version(state, 1)
        damage(state)
    with pytest.raises(DataError, match="events would be lost"):
        drain(state)


@pytest.mark.parametrize("first_schema", [False, True])
def test_processes_that_open_a_state_at_once_agree(tmp_path: Path, first_schema: bool) -> None:
    folder = tmp_path / "vmp"
    if first_schema:
        publish(folder, *EVENTS[:4])
        drain(folder)
        as_version(folder, 1)
    together = threading.Barrier(4)

    def open_it(_: int) -> tuple[str, str | None]:
        together.wait()
        with open_state(folder) as (log, index):
            return log.state_id(), index.state_id()

    with ThreadPoolExecutor(4) as pool:
        ids = set(pool.map(open_it, range(4)))
    assert len(ids) == 1
    assert len(set(ids.pop())) == 1


def test_only_the_owner_reads_a_new_state(tmp_path: Path) -> None:
    with open_state(tmp_path / "vmp") as (log, _):
        assert isinstance(log, EventLog)
        log.publish(EVENTS)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "vmp").iterdir()}
    assert stat.S_IMODE((tmp_path / "vmp").stat().st_mode) == 0o700
    assert len(modes) == 6  # both databases with -wal and -shm
    assert set(modes.values()) == {0o600}
