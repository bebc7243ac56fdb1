"""The change feed of the index: which videos read otherwise since a cursor.

Each video has one row, with the number of its newest change. So the feed is as long as the index, whatever happened,
and a reader that was away gets each video once, as it is now. Numbers only grow and are drawn under the writers' lock,
which is held until the commit: when a reader sees a number, no lower one can still appear (docs/vmp.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from coefvq.errors import DataError
from coefvq.vmp.database import Connection, Database
from coefvq.vmp.inserts import Insert
from coefvq.vmp.keys import DEFAULT, within
from coefvq.vmp.records import IndexEntry
from coefvq.vmp.served import COLUMNS, entry_of

#: for the index's schema; ``purged`` is the highest change whose row compaction took away
TABLES = (
    "CREATE TABLE changes (number INTEGER PRIMARY KEY AUTOINCREMENT, video_id TEXT NOT NULL UNIQUE)",
    "INSERT INTO changes (video_id) SELECT video_id FROM entries ORDER BY video_id",
    "CREATE TABLE feed (purged INTEGER NOT NULL)",
)
#: a video that is there already gets the number that a new row would have
_MARK = Insert("changes", ("video_id",), conflict="ON CONFLICT (video_id) DO UPDATE SET number = excluded.number")


@dataclass(frozen=True)
class Change:
    """A video whose entry is another since; ``number`` is the cursor after it."""

    number: int
    entry: IndexEntry


@dataclass(frozen=True)
class Page:
    """Changes in the order of their numbers; go on from ``cursor``, at once if there are ``more``."""

    changes: list[Change]
    cursor: int
    more: bool


def mark(connection: Connection, video_ids: Iterable[str]) -> None:
    """Put distinct videos at the end of the feed; call within the transaction that changed them."""
    _MARK.run(connection, [(video_id,) for video_id in video_ids])


def mark_epochs(connection: Connection, epochs: Iterable[int]) -> None:
    """Put all videos that these epochs decided at the end of the feed."""
    for epoch in epochs:
        chosen = "SELECT video_id FROM entries WHERE epoch = ? AND state != 'deleted'"
        connection.execute(f"DELETE FROM changes WHERE video_id IN ({chosen})", (epoch,))  # noqa: S608
        connection.execute(f"INSERT INTO changes (video_id) {chosen} ORDER BY video_id", (epoch,))


def purge(connection: Connection, video_ids: Iterable[str]) -> None:
    """Take videos out of the feed that are in the index no longer, and remember up to where that was."""
    highest = 0
    for video_id in video_ids:
        row = connection.execute("DELETE FROM changes WHERE video_id = ? RETURNING number", (video_id,)).fetchone()
        highest = max(highest, 0 if row is None else row[0])
    if highest > purged(connection):
        connection.execute("DELETE FROM feed")
        connection.execute("INSERT INTO feed (purged) VALUES (?)", (highest,))


def newest(database: Database) -> int:
    """Number of the newest change, 0 before the first."""
    with database.reading() as connection:
        return max(
            int(connection.execute("SELECT coalesce(max(number), 0) FROM changes").fetchone()[0]), purged(connection)
        )


def read(database: Database, since: int, limit: int, tenant: str = DEFAULT) -> Page:
    """Up to ``limit`` changes of a tenant above ``since``, oldest first; 0 reads all.

    Raises:
        DataError: the feed is younger than the cursor, or deletions after the cursor were compacted away.
    """
    with database.reading() as connection:
        gone = purged(connection)
    last = newest(database)
    again = "read the whole index again: coefvq vmp export FILE, and go on from the cursor it prints"
    if since > last:
        raise DataError(f"{database.place}: cursor {since} is ahead of the feed, which ends at {last}; {again}")
    if 0 < since < gone:
        raise DataError(
            f"{database.place}: deletions up to change {gone} were compacted away, cursor {since} is older; {again}"
        )
    mine, values = within(tenant, "c.video_id")
    rows = database.query(
        f"SELECT c.number, {COLUMNS} FROM changes c JOIN served s ON s.video_id = c.video_id "  # noqa: S608
        f"WHERE c.number > ? AND {mine} ORDER BY c.number LIMIT ?",
        (since, *values, limit + 1),
    )
    changes = [Change(number, entry_of(database, cells)) for number, *cells in rows[:limit]]
    return Page(changes, changes[-1].number if changes else max(since, last), len(rows) > limit)


def purged(connection: Connection) -> int:
    """The highest change whose row compaction took away, 0 where it took none."""
    row = connection.execute("SELECT purged FROM feed").fetchone()
    return 0 if row is None else int(row[0])
