"""Rows of the log: an event as columns and back, the newest ones of videos, and what counts as a change.

All run in the transaction that the log opened (coefvq/vmp/log.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from coefvq.documents import parse_json
from coefvq.errors import DataError
from coefvq.files import sha256_json
from coefvq.vmp.database import Connection
from coefvq.vmp.keys import shown
from coefvq.vmp.records import Event

_LATER = ("creator_id", "duration_s")
#: as ``event_of`` reads them
COLUMNS = f"video_id, kind, uri, title, stickers, views, sha256, published_at, source_version, {', '.join(_LATER)}"

_IDS_PER_QUERY = 64
_MARKS = ", ".join(["(?)"] * _IDS_PER_QUERY)


def append_changed(connection: Connection, events: Sequence[Event]) -> list[Event]:
    """Append what is not equal to its video's newest event, in the open transaction."""
    video_ids = list(dict.fromkeys(event.video_id for event in events))
    newest, views = newest_of(connection, video_ids), most_views_of(connection, video_ids)
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
    return insert(connection, appended)


def insert(connection: Connection, numbered: Sequence[Event]) -> list[Event]:
    """Store events in the open transaction and give them their offsets, as AUTOINCREMENT would."""
    row = connection.execute(
        "SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0), "
        "coalesce((SELECT max(offset) FROM events), 0))"
    ).fetchone()
    placed = [replace(event, offset=offset) for offset, event in enumerate(numbered, start=int(row[0]) + 1)]
    connection.executemany(
        f"INSERT INTO events (offset, {COLUMNS}, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        ((event.offset, *_values(event), _digest(event)) for event in placed),
    )
    return placed


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


def event_of(row: tuple[Any, ...]) -> Event:
    """An event from ``COLUMNS``, and its offset where that is read too."""
    video_id, kind, uri, title, stickers, *rest = row
    where = f"log entry {shown(video_id)}"
    texts = () if stickers == "[]" else tuple(parse_json(stickers, where, "restore the log from a copy"))
    views, sha256, published_at, source_version, creator_id, duration_s, *offset = rest
    place = offset[0] if offset else 0
    return Event(video_id, kind, uri, title, texts, views, sha256, published_at, source_version, place, creator_id,
                 duration_s)  # fmt: skip
