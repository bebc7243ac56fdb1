"""A user's folder or table of videos as events for the Source."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coefvq.data.locations import Root, check_clip, locate, root_at, sha256_regular
from coefvq.data.remote import is_url
from coefvq.errors import DataError, MediaError
from coefvq.redaction import redact
from coefvq.vmp.records import Event

if TYPE_CHECKING:
    from coefvq.data.importers import ImportedTable


def read_events(
    source: Path,
    root: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    published: Callable[[], Iterable[tuple[str, str]]] = tuple,
    note: Callable[[str], None] = lambda line: None,
    columns: Mapping[str, str] | None = None,
) -> list[Event]:
    """Read a manifest, a metadata table or a folder of videos; ``uri`` is relative to ``root``.

    ``root`` defaults to the folder of the table. ``progress`` gets rows done and rows in total. ``published``
    gives id and path of the videos in the log: a row without an id keeps the one that its clip has there. ``note``
    gets a line that names other files of a folder without a table. ``columns`` is ``ingest.columns``.

    Raises:
        DataError: a row does not fit, or no file at all is found below the root.
    """
    # pandas: half a second that `get` need not pay
    from coefvq.data.importers import Naming, find_source, import_table
    from coefvq.data.importers.ids import KnownIds

    folder = (root or find_source(source).root).resolve()
    # realpath: Path.resolve raises where a link leads to itself, and that row will have its reason
    ids = KnownIds(published, lambda uri: os.path.realpath(folder / uri))
    table = import_table(source, id_of=ids, naming=Naming(columns or {}, folder, lenient=True))
    if line := table.left_out.line():
        note(line)
    return events_from_table(table, root or table.root, progress)


def events_from_table(
    table: ImportedTable, root: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Event]:
    """Turn rows into events; a missing file stays in, without hash, to become a dead letter.

    Raises:
        DataError: a row does not fit, or no file at all is found below ``root``.
    """
    records, below = table.frame.to_dict("records"), root_at(root)
    events = []
    for done, record in enumerate(records, start=1):
        # rows as a person counts them in an editor: the header is line 1
        events.append(_event({str(key): value for key, value in record.items()}, below, f"row {done + 1}"))
        progress(done, len(records))
    if all(event.sha256 is None for event in events):
        raise DataError(
            f"{table.source}: none of its {len(events)} files is below {root} (first: {events[0].uri}); "
            "pass --root with the folder the paths are relative to"
        )
    return events


def _event(record: dict[str, Any], root: Root, row: str) -> Event:
    path, sha256 = _content(str(record["uri"]), root, row)
    return Event(
        video_id=str(record["video_id"]),
        uri=str(path),
        title=str(record["title"]),
        stickers=tuple(record["stickers"]),
        views=_views(record["views"]),
        # hashed here rather than taken from the table: it decides whether the content changed
        sha256=sha256,
        published_at=_utc(record["published_at"], row),
    )


def _content(uri: str, root: Root, row: str) -> tuple[Path, str | None]:
    """The clip and its hash; a file that is not there, or is a pipe or folder, has none."""
    if is_url(uri):
        raise DataError(f"{row}: {redact(uri)}: expected a local file; download it and publish the copy")
    try:
        found = locate(uri, root)
    except MediaError as error:
        if error.reason == "outside_root":
            raise DataError(f"{row}: {error}") from error
        return root.base / uri, None
    try:
        check_clip(found)
    except MediaError as error:
        raise DataError(f"{row}: {error}") from error
    try:
        return found.file, sha256_regular(found.file)
    except MediaError:  # not readable, or gone meanwhile
        return found.file, None


def _views(value: Any) -> int | None:
    # pandas gives NA or NaN for an empty cell; both differ from themselves or refuse the comparison
    import pandas as pd

    return None if pd.isna(value) else int(value)


def _utc(value: Any, row: str) -> str | None:
    import pandas as pd

    if pd.isna(value):
        return None
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError as error:
        raise DataError(
            f"{row}: published_at = {str(value)!r}: expected ISO 8601 such as 2026-01-31T08:00:00+00:00; "
            "correct or empty it"
        ) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
