"""What the index holds of the videos of a batch, as it stands under the writers' lock, and the guard of its entries.

The lock is held until the commit, so nothing changes between this look and the writes that follow from it. What was
read before the lock counts only where SQLite says that nobody has written since (``Memory``).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from itertools import compress
from typing import Any, NamedTuple

from coefvq.vmp import feed
from coefvq.vmp.database import Connection
from coefvq.vmp.inserts import chosen
from coefvq.vmp.records import SinkRow

#: source version, epoch, views (-1: unknown), rank, time of the decision: of two verdicts the higher one stays
Version = tuple[int, int, int, int, str]
#: SQLite's number of commits by others, and how many rows this connection has changed
Mark = tuple[int, int]
#: tables with a row of few videos, which a newer verdict may end
NOTES = ("overrides", "dead_letters", "pending", "recheck", "due")
_LOOK = (
    f"SELECT {feed.LAST}, (SELECT coalesce(max(epoch), 0) FROM deployments WHERE fence = 1), CURRENT_TIMESTAMP, "  # noqa: S608
    "(SELECT offset FROM offsets WHERE consumer = ?), "
    + ", ".join(f"EXISTS (SELECT 1 FROM {table})" for table in NOTES)  # noqa: S608
)
_READ = (
    "SELECT v.video_id, v.seen_version, v.views, v.change, e.state, e.source_version, e.epoch, e.views, e.rank, "
    "e.decided_at FROM videos v LEFT JOIN entries e ON e.change = v.change WHERE v."
)


class Stored(NamedTuple):
    """One video: the newest source version and the most views that were seen, its entry's key, state and version."""

    seen: int
    views: int | None
    change: int | None = None
    state: str | None = None
    version: Version | None = None


NOTHING = Stored(-1, None)


def stored_of(seen: int, most: int | None, change: int | None, state: str | None, *version: Any) -> Stored:
    """One video from its cells: source version, epoch, views, rank and time of its entry."""
    if state is None:
        return Stored(seen, most, change)
    source, epoch, views, rank, at = version
    return Stored(seen, most, change, state, (source, epoch, -1 if views is None else views, rank, at or ""))


def read(connection: Connection, video_ids: Sequence[str]) -> dict[str, Stored]:
    """Each of the videos that was seen before."""
    return {
        cells[0]: stored_of(*cells[1:])
        for condition, values in chosen("video_id", video_ids)
        for cells in connection.execute(_READ + condition, values)
    }


def mark_of(connection: Connection) -> Mark | None:
    """A mark that changes with every write, of this connection or another one; None where there is no such thing."""
    if not isinstance(connection, sqlite3.Connection):
        return None
    return connection.execute("PRAGMA data_version").fetchone()[0], connection.total_changes


@dataclass
class Memory:
    """What was read of videos before the lock was taken, to be used under it if nothing was written in between."""

    _mark: Mark | None = None
    _found: Mapping[str, Stored] = field(default_factory=dict)

    def keep(self, mark: Mark | None, found: Mapping[str, Stored]) -> None:
        """Keep what was ``found``, ``NOTHING`` where a video is new; ``mark`` was taken before it was read."""
        self._mark, self._found = mark, found

    def read(self, connection: Connection, video_ids: Sequence[str]) -> Mapping[str, Stored]:
        """As ``read`` under the lock."""
        if self._mark is not None and self._found.keys() >= set(video_ids) and mark_of(connection) == self._mark:
            return self._found
        return read(connection, video_ids)


class Look(NamedTuple):
    """The number of the feed's newest change, the fence, and the tables of notes in which any video has one.

    ``at`` is the database's time as its tables have it: asked once, since a DEFAULT would ask again for each row.
    ``committed`` is a consumer's offset, None before its first batch.
    """

    change: int
    filled: frozenset[str]
    fence: int
    at: str
    committed: Any


def look(connection: Connection, consumer: str = "") -> Look:
    """The index at a glance: one statement, for each one is a round trip to a server."""
    newest, purged, fence, at, committed, *flags = connection.execute(_LOOK, (consumer,)).fetchone()
    return Look(max(newest, purged), frozenset(compress(NOTES, flags)), fence, _time_text(at), committed)


def _time_text(at: Any) -> str:
    # SQLite gives a text in UTC, PostgreSQL a time
    return f"{at.replace(' ', 'T')}Z" if isinstance(at, str) else f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def notes(connection: Connection, video_ids: Sequence[str], filled: Collection[str]) -> Mapping[str, Collection[str]]:
    """Per table of notes, of which ``filled`` have any, the videos that have one."""
    found: dict[str, Collection[str]] = dict.fromkeys(NOTES, ())
    for table in filled:
        sql = f"SELECT video_id FROM {table} WHERE "  # noqa: S608
        found[table] = {
            video_id
            for condition, values in chosen("video_id", video_ids)
            for (video_id,) in connection.execute(sql + condition, values)
        }
    return found


def version_of(row: SinkRow) -> Version:
    """The version of a row's verdict."""
    return row.source_version, row.epoch, -1 if row.views is None else row.views, row.rank, row.decided_at


def supersedes(row: SinkRow, stored: Stored) -> bool:
    """The guard: whether a row's verdict takes the place of the entry that is there."""
    if row.state is None or row.source_version < stored.seen:
        return False
    entry = stored.version
    if entry is None:
        return True
    # a base verdict waits beside an earlier verdict on the same content, not in its place
    waits_beside = row.rank < 0 <= entry[3] and row.source_version == entry[0]
    return version_of(row) > entry and not waits_beside


def most_views(row: SinkRow, stored: Stored) -> int | None:
    """The highest count that is known once the row is stored."""
    if stored.views is None or row.views is None:
        return row.views if stored.views is None else stored.views
    return max(row.views, stored.views)


def compared(row: SinkRow, stored: Stored) -> tuple[int | None, bool, bool]:
    """``most_views``, ``supersedes`` and ``is_due`` of a row."""
    if stored is NOTHING:  # most videos of a stream are new
        return row.views, row.state is not None, False
    most, new = most_views(row, stored), supersedes(row, stored)
    return most, new, is_due(row, stored, new, most)


def is_due(row: SinkRow, stored: Stored, written: bool, most: int | None) -> bool:
    """Whether the verdict that stays was made at fewer views than are known: it has to be made again.

    ``written``: the row's verdict is the one that stays; ``most``: the highest count that is known with it.
    """
    if most is None or not (written or stored.version):
        return False
    state, views = (row.state, row.views) if written or stored.version is None else (stored.state, stored.version[2])
    return state != "deleted" and most > (-1 if views is None else views)
