"""The newest content of each video of a stream: what campaigns, views and the MLLM's answers look at.

The log is that for its own events. It is written in the transaction of the rows, so that it knows what the index knows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

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


#: a video's newest version, and the most views that were named
_Newest = tuple[int, int | None]
_NOTHING: _Newest = (-1, None)


def write(connection: Connection, events: Sequence[Event]) -> None:
    """Keep what is newer than what is there; call inside a writing transaction."""
    found = _stored(connection, {event.video_id for event in events})
    written: dict[str, Event] = {}
    watched: dict[str, int | None] = {}
    for event in events:
        name = event.video_id
        version, views = found.get(name, _NOTHING)
        # of equal versions the first one stays, as in the index; the highest view count does whatever the order
        if event.kind != "views" and event.source_version > version:
            written[name], found[name] = event, (event.source_version, _most(views, event.views))
        elif version >= 0 and (most := _most(views, event.views)) != views:
            watched[name], found[name] = most, (version, most)
    _WRITE.run(connection, [_cells(event, found[name][1]) for name, event in written.items()])
    seen = [(views, name) for name, views in watched.items() if name not in written]
    if seen:
        connection.executemany(_WATCH, seen)


def _stored(connection: Connection, video_ids: Collection[str]) -> dict[str, _Newest]:
    sql = "SELECT video_id, source_version, views FROM stream_contents WHERE "
    return {
        video_id: (version, views)
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
