"""Rows of the log: an event as columns and back, the newest ones of videos, and what counts as a change.

All run in the transaction that the log opened (coefvq/vmp/log.py).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from coefvq.documents import parse_json
from coefvq.errors import DataError
from coefvq.files import canonical_json, sha256_json
from coefvq.vmp.database import Connection
from coefvq.vmp.keys import shown
from coefvq.vmp.records import Event

_LATER = ("creator_id", "duration_s")
#: as ``event_of`` reads them
COLUMNS = f"video_id, kind, uri, title, stickers, views, sha256, published_at, source_version, {', '.join(_LATER)}"

_TEXTS = json.JSONEncoder(ensure_ascii=False)
_IDS_PER_QUERY = 64
_MARKS = ", ".join(["(?)"] * _IDS_PER_QUERY)


def append_changed(connection: Connection, events: Sequence[Event]) -> list[Event]:
    """Append what is not equal to its video's newest event, in the open transaction."""
    video_ids = list(dict.fromkeys(event.video_id for event in events))
    newest = newest_of(connection, video_ids)
    views, offset = most_views_of(connection, newest), _last_offset(connection)
    appended: list[Event] = []
    for event in events:
        before, most = newest.get(event.video_id), views.get(event.video_id)
        if before is None and event.kind == "delete":
            raise DataError(f"video '{shown(event.video_id)}': never published, so it cannot be deleted; check the id")
        place = offset + len(appended) + 1
        if before is None or not same_content(before, event):
            version = before.source_version + 1 if before else 1
            numbered = Event(**(vars(event) | {"source_version": version, "offset": place}))
        elif event.kind == "delete" or event.views is None or (most is not None and event.views <= most):
            continue
        else:  # the content is the same: only a higher view count is news
            numbered = replace(before, kind="views", views=event.views, offset=place)
        appended.append(numbered)
        if numbered.kind != "views":
            newest[event.video_id] = numbered
        if numbered.views is not None:
            views[event.video_id] = numbered.views if most is None else max(most, numbered.views)
    _insert(connection, appended)
    return appended


def insert(connection: Connection, numbered: Sequence[Event]) -> list[Event]:
    """Store events in the open transaction and give them their offsets."""
    first = _last_offset(connection) + 1
    placed = [replace(event, offset=offset) for offset, event in enumerate(numbered, start=first)]
    _insert(connection, placed)
    return placed


def _insert(connection: Connection, placed: Sequence[Event]) -> None:
    connection.executemany(
        f"INSERT INTO events (offset, {COLUMNS}, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        ((event.offset, *_values(event), _digest(event)) for event in placed),
    )


def _last_offset(connection: Connection) -> int:
    """The offset that AUTOINCREMENT would go on from."""
    row = connection.execute(
        "SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0), "
        "coalesce((SELECT max(offset) FROM events), 0))"
    ).fetchone()
    return int(row[0])


def newest_of(connection: Connection, video_ids: Iterable[str]) -> dict[str, Event]:
    """The newest upsert or deletion of each video that has one, in the order of ``video_ids``."""
    sql = (
        f"WITH wanted (id) AS (VALUES {_MARKS}) SELECT {COLUMNS}, offset FROM wanted "  # noqa: S608
        "JOIN events ON video_id = id AND kind != 'views' AND source_version = (SELECT source_version FROM events "
        "WHERE video_id = id AND kind != 'views' ORDER BY source_version DESC LIMIT 1)"
    )
    wanted = list(dict.fromkeys(video_ids))
    found = {row[0]: event_of(row) for row in _rows_of(connection, sql, wanted)}
    return {video_id: found[video_id] for video_id in wanted if video_id in found}


def most_views_of(connection: Connection, video_ids: Iterable[str]) -> dict[str, int]:
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
    # absent facts of later versions leave the digests of earlier ones as they were
    creator = "" if event.creator_id is None else f'"creator_id":{canonical_json(event.creator_id)},'
    duration = "" if event.duration_s is None else f'"duration_s":{_number(event.duration_s)},'
    published_at, sha256 = canonical_json(event.published_at), canonical_json(event.sha256)
    stickers = canonical_json(event.stickers) if event.stickers else "[]"
    title, uri, video_id = canonical_json(event.title), canonical_json(event.uri), canonical_json(event.video_id)
    # the fields in order, as ``sha256_json`` would write them: an encoder of a whole event takes three times as long
    content = (
        f'{{{creator}{duration}"kind":"upsert","offset":0,"published_at":{published_at},"sha256":{sha256},'
        f'"source_version":0,"stickers":{stickers},"title":{title},"uri":{uri},"video_id":{video_id},"views":null}}'
    )
    return hashlib.sha256(content.encode("ascii")).hexdigest()


def _number(value: float) -> str:
    return repr(value) if type(value) is float and math.isfinite(value) else canonical_json(value)


def _digest(event: Event) -> str:
    """Digest of all that the log was told, for the check that an index was made from this log."""
    told = f'["{content_digest(event)}","{event.kind}",{canonical_json(event.views)}]'
    return hashlib.sha256(told.encode("ascii")).hexdigest()


def stickers_text(event: Event) -> str:
    """The stickers as a column holds them: a JSON list."""
    return _TEXTS.encode(event.stickers) if event.stickers else "[]"


def _values(event: Event) -> tuple[Any, ...]:
    return (event.video_id, event.kind, event.uri, event.title, stickers_text(event), event.views, event.sha256,
            event.published_at, event.source_version, event.creator_id, event.duration_s)  # fmt: skip


def event_of(row: tuple[Any, ...]) -> Event:
    """An event from ``COLUMNS``, and its offset where that is read too."""
    video_id, kind, uri, title, stickers, views, sha256, published_at, source_version, creator, duration, *place = row
    texts: tuple[str, ...] = ()
    if stickers != "[]":
        texts = tuple(parse_json(stickers, f"log entry {shown(video_id)}", "restore the log from a copy"))
    return Event(video_id, kind, uri, title, texts, views, sha256, published_at, source_version,
                 place[0] if place else 0, creator, duration)  # fmt: skip
