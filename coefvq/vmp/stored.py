"""What the index holds of the videos of a batch, read once under the writers' lock, and the guard of its entries.

The lock is held until the commit, so nothing changes between this look and the writes that follow from it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import compress
from typing import NamedTuple

from coefvq.vmp import feed
from coefvq.vmp.database import Connection
from coefvq.vmp.inserts import chosen
from coefvq.vmp.records import SinkRow

#: source version, epoch, views (-1: unknown), rank, time of the decision: of two verdicts the higher one stays
Version = tuple[int, int, int, int, str]
#: tables with a row of few videos, which a newer verdict may end
NOTES = ("overrides", "dead_letters", "pending", "recheck", "due")
_LOOK = f"SELECT {feed.LAST}, " + ", ".join(f"EXISTS (SELECT 1 FROM {table})" for table in NOTES)  # noqa: S608
_READ = (
    "SELECT v.video_id, v.seen_version, v.views, e.state, e.source_version, e.epoch, e.views, e.rank, e.decided_at "
    "FROM videos v LEFT JOIN entries e USING (video_id) WHERE v."
)


class Stored(NamedTuple):
    """One video: the newest source version and the most views that were seen, its entry's state and version."""

    seen: int
    views: int | None
    state: str | None = None
    version: Version | None = None


NOTHING = Stored(-1, None)


def read(connection: Connection, video_ids: Sequence[str]) -> dict[str, Stored]:
    """Each of the videos that was seen before."""
    found = {}
    for condition, values in chosen("video_id", video_ids):
        for video_id, seen, most, state, *version in connection.execute(_READ + condition, values):
            source, epoch, views, rank, at = version
            entry = None if state is None else (source, epoch, -1 if views is None else views, rank, at or "")
            found[video_id] = Stored(seen, most, state, entry)
    return found


class Look(NamedTuple):
    """The number of the feed's newest change, and the tables of notes in which any video has one."""

    change: int
    filled: frozenset[str]


def look(connection: Connection) -> Look:
    """The index at a glance: one statement, for each one is a round trip to a server."""
    newest, purged, *flags = connection.execute(_LOOK).fetchone()
    return Look(max(newest, purged), frozenset(compress(NOTES, flags)))


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


def is_due(row: SinkRow, stored: Stored, written: bool, most: int | None) -> bool:
    """Whether the verdict that stays was made at fewer views than are known: it has to be made again.

    ``written``: the row's verdict is the one that stays; ``most``: the highest count that is known with it.
    """
    if most is None or not (written or stored.version):
        return False
    state, views = (row.state, row.views) if written or stored.version is None else (stored.state, stored.version[2])
    return state != "deleted" and most > (-1 if views is None else views)
