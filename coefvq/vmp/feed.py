"""The change feed of the index: which videos read otherwise since a cursor.

The number of a video's newest change is the key of its entry. So the feed is as long as the index, whatever
happened, and a reader that was away gets each video once, as it is now. Numbers only grow and are drawn under the
writers' lock, which is held until the commit: when a reader sees a number, no lower one can still appear (docs/vmp.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from coefvq.errors import DataError
from coefvq.vmp.database import Connection, Database
from coefvq.vmp.keys import DEFAULT, within
from coefvq.vmp.records import IndexEntry
from coefvq.vmp.served import COLUMNS, entry_of

#: for the index's schema, step 4; ``purged`` is the highest change whose row compaction took away
TABLES = (
    "CREATE TABLE changes (number INTEGER PRIMARY KEY AUTOINCREMENT, video_id TEXT NOT NULL UNIQUE)",
    "INSERT INTO changes (video_id) SELECT video_id FROM entries ORDER BY video_id",
    "CREATE TABLE feed (purged INTEGER NOT NULL)",
)
#: step 6: a table of their own had two trees of pages more to write
INTO_VIDEOS = (
    """CREATE TABLE videos_6 (
        video_id TEXT PRIMARY KEY, seen_version INTEGER NOT NULL, views INTEGER, change INTEGER) WITHOUT ROWID""",
    """INSERT INTO videos_6 (video_id, seen_version, views, change)
        SELECT v.video_id, v.seen_version, v.views, c.number
        FROM videos v LEFT JOIN changes c ON c.video_id = v.video_id ORDER BY v.video_id""",
    "DROP TABLE videos",
    "ALTER TABLE videos_6 RENAME TO videos",
    "CREATE INDEX videos_by_change ON videos (change)",
    "DROP TABLE changes",
)
#: the higher one of both is the highest number that was given
LAST = "coalesce((SELECT max(change) FROM entries), 0), coalesce((SELECT max(purged) FROM feed), 0)"


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


def last(connection: Connection) -> int:
    """The highest number that was given, 0 before the first; those that follow are free within a writing transaction.

    An entry that leaves the index has to go by ``purge``, or its number would be given again.
    """
    return int(max(connection.execute(f"SELECT {LAST}").fetchone()))


def mark(connection: Connection, video_id: str) -> None:
    """Put a video of the index at the end of the feed; call within the transaction that changed it."""
    number = last(connection) + 1
    move = "UPDATE entries SET change = ? WHERE change = (SELECT change FROM videos WHERE video_id = ?)"
    if connection.execute(move, (number, video_id)).rowcount:
        connection.execute("UPDATE videos SET change = ? WHERE video_id = ?", (number, video_id))


def mark_epochs(connection: Connection, epochs: Iterable[int]) -> None:
    """Put all videos that these epochs decided at the end of the feed."""
    move = (
        "UPDATE entries SET change = ? + n.place FROM (SELECT change, row_number() OVER (ORDER BY change) AS place "
        "FROM entries WHERE epoch = ? AND state != 'deleted') AS n WHERE n.change = entries.change"
    )
    follow = "UPDATE videos SET change = e.change FROM entries e WHERE e.change > ? AND e.video_id = videos.video_id"
    for epoch in epochs:
        end = last(connection)
        connection.execute(move, (end, epoch))
        connection.execute(follow, (end,))


def purge(connection: Connection, video_ids: Iterable[str]) -> None:
    """Take videos out of ``videos`` that are in the index no longer, and remember up to where the feed had them."""
    highest = 0
    for video_id in video_ids:
        row = connection.execute("DELETE FROM videos WHERE video_id = ? RETURNING change", (video_id,)).fetchone()
        highest = max(highest, 0 if row is None or row[0] is None else row[0])
    if highest > purged(connection):
        connection.execute("DELETE FROM feed")
        connection.execute("INSERT INTO feed (purged) VALUES (?)", (highest,))


def newest(database: Database) -> int:
    """Number of the newest change, 0 before the first."""
    with database.reading() as connection:
        return last(connection)


def read(database: Database, since: int, limit: int, tenant: str = DEFAULT) -> Page:
    """Up to ``limit`` changes of a tenant above ``since``, oldest first; 0 reads all.

    Raises:
        DataError: the feed is younger than the cursor, or deletions after the cursor were compacted away.
    """
    with database.reading() as connection:
        gone, end = purged(connection), last(connection)
    again = "read the whole index again: coefvq vmp export FILE, and go on from the cursor it prints"
    if since > end:
        raise DataError(f"{database.place}: cursor {since} is ahead of the feed, which ends at {end}; {again}")
    if 0 < since < gone:
        raise DataError(
            f"{database.place}: deletions up to change {gone} were compacted away, cursor {since} is older; {again}"
        )
    # no bare column: a database would read all videos of the tenant and sort them, for each page
    mine, values = within(tenant, "(s.video_id || '')")
    rows = database.query(
        f"SELECT s.change, {COLUMNS} FROM served s WHERE s.change > ? AND {mine} "  # noqa: S608
        "ORDER BY s.change LIMIT ?",
        (since, *values, limit + 1),
    )
    changes = [Change(number, entry_of(database, cells)) for number, *cells in rows[:limit]]
    return Page(changes, changes[-1].number if changes else max(since, end), len(rows) > limit)


def purged(connection: Connection) -> int:
    """The highest change whose row compaction took away, 0 where it took none."""
    row = connection.execute("SELECT purged FROM feed").fetchone()
    return 0 if row is None else int(row[0])
