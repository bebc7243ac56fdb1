"""The newest content of each video of a stream: what campaigns, views and the MLLM's answers look at.

The log is that for its own events. It is written in the transaction of the rows, so that it knows what the index knows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from coefvq.documents import parse_json
from coefvq.vmp.database import Connection, Database
from coefvq.vmp.records import Event
from coefvq.vmp.stores.tables import have_tables

_COLUMNS = (
    "video_id, kind, uri, title, stickers, views, sha256, published_at, source_version, place, creator_id, duration_s"
)
#: of equal versions the first one stays, as in the index; the highest view count does whatever the order
_WRITE = f"""
    INSERT INTO stream_contents ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (video_id) DO UPDATE SET
        kind = excluded.kind, uri = excluded.uri, title = excluded.title, stickers = excluded.stickers,
        views = CASE WHEN coalesce(stream_contents.views, -1) > coalesce(excluded.views, -1)
            THEN stream_contents.views ELSE excluded.views END,
        sha256 = excluded.sha256, published_at = excluded.published_at, source_version = excluded.source_version,
        place = excluded.place, creator_id = excluded.creator_id, duration_s = excluded.duration_s
    WHERE excluded.source_version > stream_contents.source_version"""  # noqa: S608
_WATCH = """
    UPDATE stream_contents SET views = ?1 WHERE video_id = ?2 AND coalesce(views, -1) < ?1"""


def write(connection: Connection, events: Iterable[Event]) -> None:
    """Keep what is newer than what is there."""
    for event in events:
        if event.kind != "views":
            connection.execute(_WRITE, _cells(event))
        if event.views is not None:
            connection.execute(_WATCH, (event.views, event.video_id))


def newest(database: Database, video_ids: Iterable[str]) -> dict[str, Event]:
    """The newest upsert or deletion of each video that a stream brought; empty where there is no stream."""
    wanted = list(dict.fromkeys(video_ids))
    if not wanted or not have_tables(database):
        return {}
    sql = f"SELECT {_COLUMNS} FROM stream_contents WHERE video_id = ?"  # noqa: S608
    rows = [row for video_id in wanted for row in database.query(sql, (video_id,))]
    return {row[0]: _event(row) for row in rows}


def retry(database: Database, versions: Mapping[str, int]) -> int:
    """Let a run judge videos anew that could not be scored, from the content that is kept here; how many.

    ``versions`` maps video to the version that failed; one with newer content needs no retry.
    """
    kept = newest(database, versions)
    again = [(name,) for name, version in versions.items() if name in kept and kept[name].source_version == version]
    with database.transaction() as connection:
        connection.executemany("DELETE FROM dead_letters WHERE video_id = ?", again)
        connection.executemany("INSERT INTO due (video_id) VALUES (?) ON CONFLICT (video_id) DO NOTHING", again)
    return len(again)


def forget(connection: Connection, video_id: str) -> None:
    """Remove a video's content."""
    connection.execute("DELETE FROM stream_contents WHERE video_id = ?", (video_id,))


def _cells(event: Event) -> tuple[object, ...]:
    return (event.video_id, event.kind, event.uri, event.title, json.dumps(event.stickers, ensure_ascii=False),
            event.views, event.sha256, event.published_at, event.source_version, event.offset, event.creator_id,
            event.duration_s)  # fmt: skip


def _event(row: tuple[object, ...]) -> Event:
    video_id, kind, uri, title, stickers, *rest = row
    texts = parse_json(str(stickers), f"stream_contents {video_id}", "restore the index from a copy")
    return Event(video_id, kind, uri, title, tuple(texts), *rest)  # type: ignore[arg-type]
