"""What a state keeps: compaction of log, audit rows and old tombstones, and videos that have to be forgotten.

Every step is a transaction of its own and may be repeated, so a kill between two loses nothing and the next run ends
the work. The order matters where both files are concerned: a tombstone leaves the index before its deletion leaves the
log, because the log numbers the versions; a forgotten video leaves the log first, because the index is built from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from filelock import FileLock, Timeout

from coefvq.errors import DataError
from coefvq.vmp import audit_archive, feed, inserts, schema
from coefvq.vmp.database import Connection
from coefvq.vmp.index import IndexStore
from coefvq.vmp.keys import shown
from coefvq.vmp.log import EventLog
from coefvq.vmp.records import FULL, Event
from coefvq.vmp.stores import contents
from coefvq.vmp.stores.tables import have_tables

#: tables with rows of a video beside ``entries`` and ``videos``
_OF_A_VIDEO = ("overrides", "due", "dead_letters", "pending", "recheck")
_OF_KEY = "change = (SELECT change FROM videos WHERE video_id = ?)"
_EVENTS_PER_STEP = 100_000


@dataclass(frozen=True)
class Compaction:
    """What left the state, and the bytes of its files before and after."""

    events: int
    audit_rows: int
    tombstones: int
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class Forgotten:
    """How many events and audit rows of the forgotten videos were removed."""

    videos: int
    events: int
    audit_rows: int


def compact(
    folder: Path, log: EventLog, index: IndexStore, now: datetime, audit_age: timedelta, tombstone_age: timedelta
) -> Compaction:
    """Keep per video the newest content and the highest view count, and all that a consumer has still to read.

    Args:
        folder: of the state.
        log: its log.
        index: its index.
        now: from which ages are counted.
        audit_age: audit rows older than that go to Parquet.
        tombstone_age: deleted videos older than that are dropped; as long as an old event may come again.

    Raises:
        DataError: another compaction is under way.
    """
    with _alone(folder):
        before = _size(folder)
        slowest = min(index.consumers().values(), default=0)
        tombstones = _drop_tombstones(log, index, slowest, (now - tombstone_age).isoformat())
        events = _cut_events(log, slowest)
        cutoff = (now - audit_age).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        audit_rows = audit_archive.archive(index.database, folder / audit_archive.FOLDER, cutoff)
        for database in (log.database, index.database):
            database.rewrite()
        return Compaction(events, audit_rows, tombstones, before, _size(folder))


def forget(folder: Path, log: EventLog, index: IndexStore, video_ids: Sequence[str], now: datetime) -> Forgotten:
    """Leave nothing of the videos with these keys in the state but the keys, as deleted, which keeps old events away.

    A second call ends what a kill interrupted.

    Raises:
        DataError: a video is in neither log nor index, or was published again meanwhile; another compaction is under
            way; or a reader holds old pages.
    """
    chosen = list(dict.fromkeys(video_ids))
    known = index.known(chosen)
    newest = log.newest(chosen)
    for video_id in chosen:
        if video_id not in known and video_id not in newest:
            raise DataError(f"video '{shown(video_id)}': neither in the log nor in the index; check the id")
    with _alone(folder):
        archive = folder / audit_archive.FOLDER
        audit_archive.finish(index.database, archive)
        # the log's own events alone: a stream's are not ours to delete
        events, versions = _forget_events(EventLog(log.database), chosen)
        of_a_stream = have_tables(index.database)
        rows = 0
        with index.database.transaction() as connection:
            for condition, ids in inserts.chosen("video_id", chosen):
                rows += connection.execute(f"DELETE FROM effects WHERE {condition}", ids).rowcount  # noqa: S608
            for video_id in chosen:
                _forget_entry(connection, video_id, versions.get(video_id, 0), now)
                if of_a_stream:
                    contents.forget(connection, video_id)
        rows += audit_archive.forget(archive, chosen)
        for database in (log.database, index.database):
            database.rewrite()
    return Forgotten(len(chosen), events, rows)


def _cut_events(log: EventLog, upto: int) -> int:
    """Delete events up to an offset that no reader needs; several transactions, so that publishers need not wait."""
    with log.database.transaction() as connection:
        connection.execute("DELETE FROM cut WHERE last <= ?", (upto,))
        connection.execute("INSERT INTO cut (first, last) SELECT 1, ? WHERE ? > 0", (upto, upto))
    kept = {
        offset
        for sql in (
            "SELECT max(offset) FROM events WHERE kind != 'views' AND offset <= ? GROUP BY video_id",
            # SQLite gives the offset of the row that holds the maximum
            "SELECT offset FROM (SELECT offset, max(views) FROM events WHERE views IS NOT NULL AND offset <= ? "
            "GROUP BY video_id)",
        )
        for (offset,) in log.database.query(sql, (upto,))
    }
    gone = 0
    for first in range(0, upto, _EVENTS_PER_STEP):
        span = (first, min(first + _EVENTS_PER_STEP, upto))
        rows = log.database.query("SELECT offset FROM events WHERE offset > ? AND offset <= ?", span)
        old = [row for row in rows if row[0] not in kept]
        with log.database.transaction() as connection:
            connection.executemany("DELETE FROM events WHERE offset = ?", old)
        gone += len(old)
    return gone


def _drop_tombstones(log: EventLog, index: IndexStore, upto: int, before: str) -> int:
    old = index.database.query(
        "SELECT video_id, source_version FROM entries WHERE state = 'deleted' AND decided_at < ?", (before,)
    )
    newest = log.newest(video_id for video_id, _ in old)
    # a consumer that has the deletion still to read would write the tombstone again
    gone = [
        (video_id, version)
        for video_id, version in old
        if (event := newest.get(video_id)) is None
        or (event.kind == "delete" and event.source_version == version and event.offset <= upto)
    ]
    with index.database.transaction() as connection:
        dropped = [video_id for video_id, version in gone if _drop_entry(connection, video_id, version)]
        feed.purge(connection, dropped)
    _cut_deletions(log, index, upto)
    return len(dropped)


def _drop_entry(connection: Connection, video_id: str, source_version: int) -> bool:
    sql = f"DELETE FROM entries WHERE {_OF_KEY} AND state = 'deleted' AND source_version = ?"  # noqa: S608
    if connection.execute(sql, (video_id, source_version)).rowcount == 0:
        return False
    for table in _OF_A_VIDEO:
        connection.execute(f"DELETE FROM {table} WHERE video_id = ?", (video_id,))  # noqa: S608
    return True


def _cut_deletions(log: EventLog, index: IndexStore, upto: int) -> None:
    """Let the log forget videos that are deleted, read by all, and in the index no longer."""
    rows = log.database.query("SELECT DISTINCT video_id FROM events WHERE kind = 'delete' AND offset <= ?", (upto,))
    deleted = [video_id for (video_id,) in rows]
    known = index.known(deleted)
    with log.database.transaction() as connection:
        for video_id, event in log.newest(deleted).items():
            if video_id not in known and event.kind == "delete" and event.offset <= upto:
                _remove_events(connection, video_id, before=event.offset + 1)


def _forget_events(log: EventLog, video_ids: Sequence[str]) -> tuple[int, dict[str, int]]:
    """Publish the deletion of each video and remove all events before it; how many, and the deletions' versions."""
    newest = log.newest(video_ids)
    log.publish(Event(video_id, "delete") for video_id in video_ids if video_id in newest)
    gone, versions = 0, {}
    with log.database.transaction() as connection:
        for video_id in newest:
            offset, versions[video_id] = connection.execute(
                "SELECT offset, source_version FROM events WHERE video_id = ? AND kind = 'delete' "
                "ORDER BY offset DESC LIMIT 1",
                (video_id,),
            ).fetchone()
            gone += _remove_events(connection, video_id, before=offset)
            connection.execute(
                "UPDATE events SET uri = '', title = '', stickers = '[]', views = NULL, sha256 = NULL, "
                "published_at = NULL, creator_id = NULL, duration_s = NULL WHERE offset = ?",
                (offset,),
            )
    return gone, versions


def _remove_events(connection: Connection, video_id: str, before: int) -> int:
    connection.execute(
        "INSERT INTO cut (first, last) SELECT offset, offset FROM events WHERE video_id = ? AND offset < ?",
        (video_id, before),
    )
    return connection.execute("DELETE FROM events WHERE video_id = ? AND offset < ?", (video_id, before)).rowcount


def _forget_entry(connection: Connection, video_id: str, version: int, now: datetime) -> None:
    """A bare tombstone in the place of all rows of a video."""
    seen = connection.execute("SELECT seen_version FROM videos WHERE video_id = ?", (video_id,)).fetchone()
    if version and seen is not None and seen[0] > version:
        again = "published again meanwhile; if that shall go too, run `vmp forget` again"
        raise DataError(f"video '{shown(video_id)}': {again}")
    change = feed.last(connection) + 1  # while the number that the video has is there
    connection.execute(f"DELETE FROM entries WHERE {_OF_KEY}", (video_id,))  # noqa: S608
    for table in ("videos", "audit_labels", *_OF_A_VIDEO):
        connection.execute(f"DELETE FROM {table} WHERE video_id = ?", (video_id,))  # noqa: S608
    epoch = connection.execute("SELECT coalesce(max(epoch), 0) FROM deployments").fetchone()[0]
    version = version or (0 if seen is None else seen[0])
    schema.SEE_VIDEO.run(connection, [(video_id, version, None, change)])
    verdict = ("deleted", "deleted", epoch, FULL, "", now.isoformat(), False)
    schema.WRITE_ENTRY.run(connection, [(change, video_id, version, None, "{}")], verdict)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    try:
        with FileLock(folder / ".retention.lock", timeout=0):
            yield
    except Timeout as error:
        raise DataError(f"{folder}: another `vmp compact` or `vmp forget` is at work; wait for it") from error


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
