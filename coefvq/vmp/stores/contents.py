"""The newest content of each video of a stream: what campaigns, views and the MLLM's answers look at.

The log is that for its own events. It is written in the transaction of the rows, so that it knows what the index knows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from coefvq.documents import parse_json
from coefvq.vmp.database import Connection, Database
from coefvq.vmp.inserts import Insert, chosen
from coefvq.vmp.log_rows import stickers_text
from coefvq.vmp.records import Event
from coefvq.vmp.stores.tables import have_tables

_NAMES = ("video_id", "kind", "uri", "title", "stickers", "views", "sha256", "published_at", "source_version", "place",
          "creator_id", "duration_s")  # fmt: skip
_COLUMNS = ", ".join(_NAMES)
_WRITE = Insert(
    "stream_contents",
    _NAMES,
    conflict=f"ON CONFLICT (video_id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _NAMES[1:])}",
)
_WATCH = "UPDATE stream_contents SET views = ? WHERE video_id = ?"


@dataclass
class _Newest:
    """A video: its newest version, the most views that were named, and the event to write, if it has to be."""

    version: int
    views: int | None
    event: Event | None = None
    is_watched: bool = False


def write(connection: Connection, events: Sequence[Event]) -> None:
    """Keep what is newer than what is there; call inside a writing transaction."""
    found = _stored(connection, {event.video_id for event in events})
    for event in events:
        one = found.get(event.video_id)
        # of equal versions the first one stays, as in the index; the highest view count does whatever the order
        if event.kind != "views" and (one is None or event.source_version > one.version):
            most = event.views if one is None else _most(one.views, event.views)
            found[event.video_id] = _Newest(event.source_version, most, event)
        elif one is not None and (most := _most(one.views, event.views)) != one.views:
            one.views, one.is_watched = most, True
    _WRITE.run(connection, [_cells(one.event, one.views) for one in found.values() if one.event is not None])
    watched = [(one.views, name) for name, one in found.items() if one.event is None and one.is_watched]
    if watched:
        connection.executemany(_WATCH, watched)


def _stored(connection: Connection, video_ids: Collection[str]) -> dict[str, _Newest]:
    sql = "SELECT video_id, source_version, views FROM stream_contents WHERE "
    return {
        video_id: _Newest(version, views)
        for condition, values in chosen("video_id", list(video_ids))
        for video_id, version, views in connection.execute(sql + condition, values).fetchall()
    }


def _most(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else max(one, other)


def newest(database: Database, video_ids: Iterable[str]) -> dict[str, Event]:
    """The newest upsert or deletion of each video that a stream brought; empty where there is no stream."""
    wanted = list(dict.fromkeys(video_ids))
    if not wanted or not have_tables(database):
        return {}
    sql = f"SELECT {_COLUMNS} FROM stream_contents WHERE "  # noqa: S608
    rows = [row for condition, values in chosen("video_id", wanted) for row in database.query(sql + condition, values)]
    found = {row[0]: _event(row) for row in rows}
    return {video_id: found[video_id] for video_id in wanted if video_id in found}


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


def _cells(event: Event, views: int | None) -> tuple[object, ...]:
    return (event.video_id, event.kind, event.uri, event.title, stickers_text(event), views, event.sha256,
            event.published_at, event.source_version, event.offset, event.creator_id,
            event.duration_s)  # fmt: skip


def _event(row: tuple[object, ...]) -> Event:
    video_id, kind, uri, title, stickers, *rest = row
    texts = parse_json(str(stickers), f"stream_contents {video_id}", "restore the index from a copy")
    return Event(video_id, kind, uri, title, tuple(texts), *rest)  # type: ignore[arg-type]
