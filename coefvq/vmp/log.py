"""Source: an append-only log of events in SQLite, the embedded stand-in for a Kafka topic.

Offsets only grow and are never reused. The log does not know its consumers: how far one has read is
stored by the Sink, in the same transaction as what it read (coefvq/vmp/index.py). ``open_state``
(coefvq/vmp/state.py) opens both together and checks that they belong together.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from coefvq.documents import parse_json
from coefvq.errors import DataError
from coefvq.files import sha256_json
from coefvq.vmp.database import Connection, Database, open_database
from coefvq.vmp.keys import DEFAULT, shown, split, within
from coefvq.vmp.records import Event

_FIRST = "video_id, kind, uri, title, stickers, views, sha256, published_at, source_version"
_COLUMNS = f"{_FIRST}, creator_id, duration_s"
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


_LATER = ("creator_id", "duration_s")

#: events of one transaction: about a second of the write lock at most
BATCH = 10_000
_IDS_PER_QUERY = 64
_MARKS = ", ".join(["(?)"] * _IDS_PER_QUERY)
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
            return _append_changed(connection, given)

    def publish_all(self, events: Iterable[Event]) -> Published:
        """As ``publish``, in transactions of ``BATCH`` events: memory is bounded and other publishers get their turn.

        Raises:
            DataError: as ``publish``, or of ``events`` itself; the transactions before stay.
        """
        published, rest = Published(), iter(events)
        while batch := list(islice(rest, BATCH)):
            appended = self.publish(batch)
            published = Published(published.events + len(batch), published.appended + len(appended))
        return published

    def republish(self, versions: Mapping[str, int]) -> list[Event]:
        """Append events once more, one source version up, so that they are processed again.

        ``versions`` maps video id to source version; a video that has a newer event already is left alone.
        """
        with self.database.transaction() as connection:
            newest = _newest_of(connection, versions).values()
            again = [event for event in newest if event.source_version == versions[event.video_id]]
            return _insert(connection, [replace(event, source_version=event.source_version + 1) for event in again])

    def poll(self, after: int, max_n: int, tenant: str = DEFAULT, apart: Sequence[str] = ()) -> list[Event]:
        """Return up to ``max_n`` events with an offset above ``after``, oldest first, without waiting.

        ``apart`` are tenants that are read by themselves: their events come for them as ``tenant`` only, and no further
        than ``WINDOW`` offsets ahead.
        """
        where, values = _lane(after, tenant, apart)
        return [
            _event(row)
            for row in self.database.query(
                f"SELECT {_COLUMNS}, offset FROM events WHERE {where} ORDER BY offset LIMIT ?",  # noqa: S608
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
            found, views = _newest_of(connection, wanted), _most_views_of(connection, wanted)
        here = {video_id: replace(event, views=views.get(video_id)) for video_id, event in found.items()}
        return here | self.elsewhere(wanted.keys() - here.keys())

    def version(self, video_id: str, source_version: int) -> Event | None:
        """The event that gave a video this source version."""
        rows = self.database.query(
            f"SELECT {_COLUMNS}, offset FROM events "  # noqa: S608
            "WHERE video_id = ? AND source_version = ? AND kind != 'views'",
            (video_id, source_version),
        )
        if rows:
            return _event(rows[0])
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


def _append_changed(connection: Connection, events: Sequence[Event]) -> list[Event]:
    """Append what is not equal to its video's newest event, in the open transaction."""
    video_ids = list(dict.fromkeys(event.video_id for event in events))
    newest, views = _newest_of(connection, video_ids), _most_views_of(connection, video_ids)
    appended = []
    for event in events:
        before, most = newest.get(event.video_id), views.get(event.video_id)
        if before is None and event.kind == "delete":
            raise DataError(f"video '{shown(event.video_id)}': never published, so it cannot be deleted; check the id")
        if before is None or not same_content(before, event):
            numbered = replace(event, source_version=before.source_version + 1 if before else 1)
        elif event.kind == "delete" or event.views is None or (most is not None and event.views <= most):
            continue
        else:  # the content is the same: only a higher view count is news
            numbered = replace(before, kind="views", views=event.views)
        appended.append(numbered)
        if numbered.kind != "views":
            newest[event.video_id] = numbered
        if numbered.views is not None:
            views[event.video_id] = numbered.views if most is None else max(most, numbered.views)
    return _insert(connection, appended)


def _insert(connection: Connection, numbered: Sequence[Event]) -> list[Event]:
    """Store events in the open transaction and give them their offsets, as AUTOINCREMENT would."""
    row = connection.execute(
        "SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0), "
        "coalesce((SELECT max(offset) FROM events), 0))"
    ).fetchone()
    placed = [replace(event, offset=offset) for offset, event in enumerate(numbered, start=int(row[0]) + 1)]
    connection.executemany(
        f"INSERT INTO events (offset, {_COLUMNS}, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        ((event.offset, *_values(event), _digest(event)) for event in placed),
    )
    return placed


def _newest_of(connection: Connection, video_ids: Iterable[str]) -> dict[str, Event]:
    """The newest upsert or deletion of each video that has one, in the order of ``video_ids``."""
    sql = (
        f"WITH wanted (id) AS (VALUES {_MARKS}) SELECT {_COLUMNS}, offset FROM wanted "  # noqa: S608
        "JOIN events ON video_id = id AND kind != 'views' AND source_version = (SELECT source_version FROM events "
        "WHERE video_id = id AND kind != 'views' ORDER BY source_version DESC LIMIT 1)"
    )
    wanted = list(dict.fromkeys(video_ids))
    found = {row[0]: _event(row) for row in _rows_of(connection, sql, wanted)}
    return {video_id: found[video_id] for video_id in wanted if video_id in found}


def _most_views_of(connection: Connection, video_ids: Iterable[str]) -> dict[str, int]:
    """The highest view count of each video that has one."""
    # not GROUP BY: that would read all events of each video
    sql = (
        f"WITH wanted (id) AS (VALUES {_MARKS}) "  # noqa: S608
        "SELECT id, (SELECT max(views) FROM events WHERE video_id = id) FROM wanted"
    )
    rows = _rows_of(connection, sql, list(dict.fromkeys(video_ids)))
    return {video_id: views for video_id, views in rows if views is not None}


def _rows_of(connection: Connection, sql: str, video_ids: Sequence[str]) -> list[tuple[Any, ...]]:
    """Rows of a statement that takes ``_IDS_PER_QUERY`` ids, for all of ``video_ids``."""
    rows: list[tuple[Any, ...]] = []
    for start in range(0, len(video_ids), _IDS_PER_QUERY):
        part = video_ids[start : start + _IDS_PER_QUERY]
        # always as many parameters, so that it is one statement to the database
        rows += connection.execute(sql, [*part, *[part[0]] * (_IDS_PER_QUERY - len(part))]).fetchall()
    return rows


def same_content(first: Event, second: Event) -> bool:
    """Whether ``content_digest`` of both events of one video is equal."""
    if "delete" in (first.kind, second.kind):
        return first.kind == second.kind
    return _content(first) == _content(second)


def _content(event: Event) -> tuple[Any, ...]:
    return (event.uri, event.title, event.stickers, event.sha256, event.published_at, event.creator_id,
            event.duration_s)  # fmt: skip


def content_digest(event: Event) -> str:
    """Digest of what a verdict is about: everything but the views and the log's own numbers."""
    if event.kind == "delete":
        # a deletion carries no content: two of them are the same whatever else they hold
        return sha256_json(["delete", event.video_id])
    content = vars(event) | {"kind": "upsert", "views": None, "offset": 0, "source_version": 0}
    # absent facts of later versions leave the digests of earlier ones as they were
    return sha256_json({name: v for name, v in content.items() if v is not None or name not in _LATER})


def _digest(event: Event) -> str:
    """Digest of all that the log was told, for the check that an index was made from this log."""
    return sha256_json([content_digest(event), event.kind, event.views])


def _values(event: Event) -> tuple[Any, ...]:
    stickers = json.dumps(event.stickers, ensure_ascii=False)
    return (event.video_id, event.kind, event.uri, event.title, stickers, event.views, event.sha256,
            event.published_at, event.source_version, event.creator_id, event.duration_s)  # fmt: skip


def _event(row: tuple[Any, ...]) -> Event:
    video_id, kind, uri, title, stickers, *rest = row
    where = f"log entry {shown(video_id)}"
    texts = () if stickers == "[]" else tuple(parse_json(stickers, where, "restore the log from a copy"))
    views, sha256, published_at, source_version, creator_id, duration_s, *offset = rest
    place = offset[0] if offset else 0
    return Event(video_id, kind, uri, title, texts, views, sha256, published_at, source_version, place, creator_id,
                 duration_s)  # fmt: skip
