"""Source: an append-only log of events in SQLite, the embedded stand-in for a Kafka topic.

Offsets only grow and are never reused. The log does not know its consumers: how far one has read is
stored by the Sink, in the same transaction as what it read (coefvq/vmp/index.py). ``open_state``
(coefvq/vmp/state.py) opens both together and checks that they belong together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from coefvq.errors import DataError
from coefvq.vmp.database import Database, open_database
from coefvq.vmp.keys import DEFAULT, split, within
from coefvq.vmp.log_rows import COLUMNS, append_changed, event_of, insert, most_views_of, newest_of
from coefvq.vmp.records import Event

_FIRST = "video_id, kind, uri, title, stickers, views, sha256, published_at, source_version"
_SCHEMA = (
    (
        """CREATE TABLE events (
            offset INTEGER PRIMARY KEY AUTOINCREMENT,
            video_id TEXT NOT NULL, kind TEXT NOT NULL CHECK (kind IN ('upsert', 'delete')),
            uri TEXT NOT NULL, title TEXT NOT NULL, stickers TEXT NOT NULL, views INTEGER, sha256 TEXT,
            published_at TEXT, source_version INTEGER NOT NULL, digest TEXT NOT NULL,
            UNIQUE (video_id, source_version))""",
    ),
    (
        "CREATE TABLE state (id TEXT NOT NULL)",
        "INSERT INTO state VALUES (lower(hex(randomblob(16))))",
    ),
    (
        # SQLite cannot change a CHECK or a UNIQUE in place
        """CREATE TABLE events_3 (
            offset INTEGER PRIMARY KEY AUTOINCREMENT,
            video_id TEXT NOT NULL, kind TEXT NOT NULL CHECK (kind IN ('upsert', 'delete', 'views')),
            uri TEXT NOT NULL, title TEXT NOT NULL, stickers TEXT NOT NULL, views INTEGER, sha256 TEXT,
            published_at TEXT, source_version INTEGER NOT NULL, digest TEXT NOT NULL)""",
        f"INSERT INTO events_3 (offset, {_FIRST}, digest) SELECT offset, {_FIRST}, digest FROM events",  # noqa: S608
        # the newest offsets of a shortened copy must not be given out again
        "DELETE FROM sqlite_sequence WHERE name = 'events_3'",
        "INSERT INTO sqlite_sequence (name, seq) SELECT 'events_3', seq FROM sqlite_sequence WHERE name = 'events'",
        "DROP TABLE events",
        "ALTER TABLE events_3 RENAME TO events",
        "CREATE UNIQUE INDEX versions ON events (video_id, source_version) WHERE kind != 'views'",
        "CREATE INDEX watched ON events (video_id, views)",
    ),
    # where events may be missing because they were compacted or forgotten
    ("CREATE TABLE cut (first INTEGER NOT NULL, last INTEGER NOT NULL)",),
    ("ALTER TABLE events ADD COLUMN creator_id TEXT", "ALTER TABLE events ADD COLUMN duration_s REAL"),
)

#: events of one transaction: about a second of the write lock at most
BATCH = 10_000
#: how far one look for a tenant's events goes
WINDOW = 100_000


class Published(NamedTuple):
    """How many events were given, and how many of them were new."""

    events: int = 0
    appended: int = 0


@dataclass(frozen=True)
class EventLog:
    """The log; open it with ``open_log``.

    ``elsewhere`` gives the newest content of videos that another source brought.
    """

    database: Database
    elsewhere: Callable[[Iterable[str]], dict[str, Event]] = field(default=lambda video_ids: {})

    def publish(self, events: Iterable[Event]) -> list[Event]:
        """Append what is new, all or nothing; return it with offsets and source versions.

        An event equal to its video's newest one (content and metadata) is not appended again. If only ``views`` grew,
        the event is of kind ``views``: it raises no source version. Fewer views than before are no change.

        Raises:
            DataError: a deletion names a video that was never published.
        """
        given = list(events)
        with self.database.transaction() as connection:
            return append_changed(connection, given)

    def publish_all(self, events: Iterable[Event]) -> Published:
        """As ``publish``, in transactions of ``BATCH`` events: memory is bounded and other publishers get their turn.

        Raises:
            DataError: as ``publish``, or of ``events`` itself; the transactions before stay.
        """
        published, rest = Published(), iter(events)
        while batch := list(islice(rest, BATCH)):
            appended = len(self.publish(batch))
            published = Published(published.events + len(batch), published.appended + appended)
            del batch  # before the next is made
        return published

    def republish(self, versions: Mapping[str, int]) -> list[Event]:
        """Append events once more, one source version up, so that they are processed again.

        ``versions`` maps video id to source version; a video that has a newer event already is left alone.
        """
        with self.database.transaction() as connection:
            newest = newest_of(connection, versions).values()
            again = [event for event in newest if event.source_version == versions[event.video_id]]
            return insert(connection, [replace(event, source_version=event.source_version + 1) for event in again])

    def poll(self, after: int, max_n: int, tenant: str = DEFAULT, apart: Sequence[str] = ()) -> list[Event]:
        """Return up to ``max_n`` events with an offset above ``after``, oldest first, without waiting.

        ``apart`` are tenants that are read by themselves: their events come for them as ``tenant`` only, and no further
        than ``WINDOW`` offsets ahead.
        """
        where, values = _lane(after, tenant, apart)
        return [
            event_of(row)
            for row in self.database.query(
                f"SELECT {COLUMNS}, offset FROM events WHERE {where} ORDER BY offset LIMIT ?",  # noqa: S608
                (*values, max_n),
            )
        ]

    def waiting(self, after: int, most: int, tenant: str, apart: Sequence[str]) -> int:
        """How many events ``poll`` would give, counted up to ``most``."""
        where, values = _lane(after, tenant, apart)
        sql = f"SELECT count(*) FROM (SELECT 1 FROM events WHERE {where} LIMIT ?)"  # noqa: S608
        return int(self.database.query(sql, (*values, most))[0][0])

    def newest(self, video_ids: Iterable[str]) -> dict[str, Event]:
        """The newest content of each video: an upsert or a deletion, with the highest view count."""
        wanted = dict.fromkeys(video_ids)
        with self.database.reading() as connection:
            found, views = newest_of(connection, wanted), most_views_of(connection, wanted)
        here = {video_id: replace(event, views=views.get(video_id)) for video_id, event in found.items()}
        return here | self.elsewhere(wanted.keys() - here.keys())

    def version(self, video_id: str, source_version: int) -> Event | None:
        """The event that gave a video this source version."""
        rows = self.database.query(
            f"SELECT {COLUMNS}, offset FROM events "  # noqa: S608
            "WHERE video_id = ? AND source_version = ? AND kind != 'views'",
            (video_id, source_version),
        )
        if rows:
            return event_of(rows[0])
        event = self.elsewhere([video_id]).get(video_id)
        return event if event is not None and event.source_version == source_version else None

    def places(self, tenant: str = DEFAULT) -> Iterator[tuple[str, str]]:
        """Id and path of each upsert of a tenant in the log, oldest first."""
        mine, values = within(tenant, "video_id")
        query = f"SELECT video_id, uri FROM events WHERE kind = 'upsert' AND {mine} ORDER BY offset"  # noqa: S608
        with self.database.reading() as connection:
            for video_id, uri in connection.execute(query, values):
                yield split(str(video_id))[1], str(uri)

    def last_offset(self) -> int:
        """Offset of the newest event, also if it was forgotten since; 0 for an empty log."""
        sql = "SELECT max(coalesce((SELECT max(offset) FROM events), 0), coalesce((SELECT max(last) FROM cut), 0))"
        return self.database.whole(self.database.query(sql)[0][0], "an offset")

    def was_cut(self, offset: int) -> bool:
        """Whether the event at ``offset`` may be missing because it was compacted or forgotten."""
        return bool(self.database.query("SELECT 1 FROM cut WHERE ? BETWEEN first AND last LIMIT 1", (offset,)))

    def state_id(self) -> str:
        """Id of the state this log belongs to, drawn when the log was made.

        Raises:
            DataError: the table that held it is empty.
        """
        rows = self.database.query("SELECT id FROM state")
        if not rows:
            raise DataError(f"{self.database.place}: the log has lost its id (table state); restore it from a copy")
        return str(rows[0][0])

    def event_at(self, offset: int) -> tuple[str, int, str] | None:
        """Video id, source version and content digest of the event at ``offset``; None where there is none."""
        rows = self.database.query("SELECT video_id, source_version, digest FROM events WHERE offset = ?", (offset,))
        return (
            None
            if not rows
            else (str(rows[0][0]), self.database.whole(rows[0][1], "a source version"), str(rows[0][2]))
        )


@contextmanager
def open_log(path: Path, create: bool = True) -> Iterator[EventLog]:
    """Open the log at ``path``.

    Raises:
        DataError: see ``open_database``.
    """
    with open_database(path, _SCHEMA, create) as database:
        yield EventLog(database)


def _lane(after: int, tenant: str, apart: Sequence[str]) -> tuple[str, list[Any]]:
    """Condition and parameters of the events of a tenant that is read apart, or of all that is not."""
    if not apart:
        return "offset > ?", [after]
    sign = "" if tenant in apart else "NOT "
    chosen = [within(name, "video_id") for name in ([tenant] if tenant in apart else apart)]
    where = "".join(f" AND {sign}({sql})" for sql, _ in chosen)
    # else a tenant with few events would be searched for in all events of the others, batch by batch
    values = [after, after + WINDOW, *(value for _, names in chosen for value in names)]
    return f"offset > ? AND offset <= ?{where}", values
