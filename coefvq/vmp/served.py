"""What readers see of the index: entries as the view ``served`` shows them, one or page by page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from coefvq.documents import parse_json
from coefvq.vmp.database import Database
from coefvq.vmp.keys import DEFAULT, key, shown, split, within
from coefvq.vmp.records import IndexEntry, Override, Served

COLUMNS = (
    "s.video_id, s.state, s.verdict, s.rule, s.source_version, s.epoch, s.rank, s.bundle_version, s.decided_at, "
    "s.pinned, s.by, s.reason, s.at, s.value, s.views"
)
_PAGE = 500


def entry_of(database: Database, cells: Sequence[Any]) -> IndexEntry:
    """A row of ``COLUMNS`` as an entry; the views are those known now.

    Raises:
        DataError: the stored value is not JSON.
    """
    video_id, state, verdict, rule, version, epoch, rank, bundle, decided, pinned, by, reason, at, text, views = cells
    override = None if pinned is None else Override(pinned, by, reason, at)
    value = value_of(database, text, video_id)
    if "views" in value and views is not None:
        value["views"] = views
    name = split(video_id)[1]
    return IndexEntry(name, state, verdict, rule, version, epoch, rank, bundle, decided, override, value)


def value_of(database: Database, text: str, video_id: str) -> Any:
    """The stored JSON of a video.

    Raises:
        DataError: it is not JSON.
    """
    return parse_json(text, f"{database.place} entry {shown(video_id)}", "restore the index from a copy")


def get(database: Database, video_id: str) -> IndexEntry | None:
    """The entry or tombstone of the video with that key, None if the index never had one."""
    rows = database.query(f"SELECT {COLUMNS} FROM served s WHERE s.video_id = ?", (video_id,))  # noqa: S608
    return entry_of(database, rows[0]) if rows else None


def page(
    database: Database, after: str, limit: int, state: Served | None = None, tenant: str = DEFAULT
) -> list[IndexEntry]:
    """Up to ``limit`` entries of a tenant with an id above ``after``, by id; ``state`` leaves out the others."""
    chosen, values = ("", ()) if state is None else ("AND s.state = ? ", (state,))
    mine, names = within(tenant, "s.video_id")
    rows = database.query(
        f"SELECT {COLUMNS} FROM served s WHERE s.video_id > ? AND {mine} {chosen}"  # noqa: S608
        "ORDER BY s.video_id LIMIT ?",
        (key(tenant, after), *names, *values, limit),
    )
    return [entry_of(database, cells) for cells in rows]


def scan(database: Database, state: Served | None = None, tenant: str = DEFAULT) -> Iterator[IndexEntry]:
    """All entries of a tenant by id, read page by page: writers are not held up."""
    after = ""
    while entries := page(database, after, _PAGE, state, tenant):
        yield from entries
        after = entries[-1].video_id
