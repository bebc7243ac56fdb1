"""A user's folder or table of videos as events for the Source, row by row: memory does not grow with the rows."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coefvq.data.clip_names import check_clip, name_problem
from coefvq.data.locations import Root, file_stamp, is_as_written, locate, regular_as_written, root_at, sha256_and_stamp
from coefvq.data.media.probe_cache import ProbeCache
from coefvq.data.remote import is_url
from coefvq.errors import DataError, MediaError
from coefvq.redaction import redact
from coefvq.vmp.log import BATCH
from coefvq.vmp.records import Event

if TYPE_CHECKING:
    from coefvq.data.importers import CheckedTable

#: settings under which a ``ProbeCache`` keeps hashes of files
HASHES = "sha256 of the file"
#: what a manifest has measured, beside the columns of any table
_SECONDS = "duration_s"
_OTHERS = (_SECONDS, "source_version", "deleted")
_WORDS = ("video_id", "uri", "title", "stickers", "views", "published_at", "creator_id")


def read_events(
    source: Path,
    root: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    published: Callable[[], Iterable[tuple[str, str]]] = tuple,
    note: Callable[[str], None] = lambda line: None,
    columns: Mapping[str, str] | None = None,
    hashes: ProbeCache | None = None,
    versioned: bool = False,
) -> Iterator[Event]:
    """Read a manifest, a metadata table or a folder of videos; ``uri`` is relative to ``root``.

    ``root`` defaults to the folder of the table. ``progress`` gets rows done and rows in total. ``published``
    gives id and path of the videos in the log: a row without an id keeps the one that its clip has there. ``note``
    gets a line that names other files of a folder without a table. ``columns`` is ``ingest.columns``. ``hashes``
    keeps the hash of each file until its size or time changes. ``versioned``: columns ``source_version`` and
    ``deleted`` count; the log numbers versions itself.

    The table is checked before this returns; the first event comes when the first ``BATCH`` rows are events.

    Raises:
        DataError: a row does not fit, or none of the first files is found below the root.
    """
    # pyarrow: half a second that `get` need not pay
    from coefvq.data.importers import Naming, find_source, open_table
    from coefvq.data.importers.ids import KnownIds
    from coefvq.data.importers.left_out import not_taken

    folder = (root or find_source(source).root).resolve()
    # realpath: Path.resolve raises where a link leads to itself, and that row will have its reason
    ids = KnownIds(published, lambda uri: os.path.realpath(folder / uri))
    table = open_table(source, id_of=ids, naming=Naming(columns or {}, folder, lenient=True), others=(_SECONDS,))
    if line := not_taken(table.source).line():
        note(line)
    return _events(table, _Files(root_at(root or table.source.root), hashes), progress, versioned)


def _events(
    table: CheckedTable, files: _Files, progress: Callable[[int, int], None], versioned: bool
) -> Iterator[Event]:
    """Rows as events; a missing file stays in, without hash, to become a dead letter."""
    events = _read(table, files, versioned)
    first = list(islice(events, BATCH))
    if all(event.sha256 is None for event in first) and any(event.kind == "upsert" for event in first):
        raise DataError(
            f"{table.source.origin}: none of its {_first(len(first), table.count)} files is below {files.root.base} "
            f"(first: {first[0].uri}); pass --root with the folder the paths are relative to"
        )
    everything = chain(first, events)
    del first  # else it stays in memory to the end
    for done, event in enumerate(everything, start=1):
        progress(done, table.count)
        yield event
    files.keep()


def _read(table: CheckedTable, files: _Files, versioned: bool) -> Iterator[Event]:
    # rows as a person counts them in an editor: the header is line 1
    number = 1
    for words, others in table.columns_by_block(_WORDS):
        files.recall(words["uri"])
        nothing = [None] * len(words["uri"])
        columns = [words[name] for name in _WORDS] + [others.get(name, nothing) for name in _OTHERS]
        for *cells, seconds, version, deleted in zip(*columns, strict=True):
            number += 1
            row = f"row {number}"
            event = _event(cells, seconds, files, row)
            yield _versioned(event, version, deleted, row) if versioned else event


def _first(seen: int, count: int) -> str:
    return str(count) if seen == count else f"first {seen}"


@dataclass
class _Files:
    """Files below a root. Their hashes are known until size or time changes, also those that ingest found.

    New ones are kept a batch at a time.
    """

    root: Root
    cache: ProbeCache | None
    _known: dict[str, dict[str, str]] = field(default_factory=dict)
    _new: list[tuple[str, str, Mapping[str, Any]]] = field(default_factory=list)
    _folders: set[str] = field(default_factory=set)

    def recall(self, uris: Sequence[str]) -> None:
        """Read what is kept of the files that are asked for next; folders are looked at again."""
        self._folders.clear()
        if self.cache is not None:
            self._known = self.cache.sha256_of_files([self.root.prefix + uri for uri in uris])

    def as_written(self, uri: str) -> tuple[str, str] | None:
        """Path and hash of the readable clip that a plain path names; None where ``locate`` has to look."""
        if name_problem(uri) is not None:
            return None
        path = self.root.prefix + uri
        if path in self._known:
            facts = regular_as_written(uri, self.root, self._folders)
            if facts is not None and (known := self._known[path].get(file_stamp(facts))):
                return path, known
        sha256 = self._read(path) if is_as_written(uri, self.root, self._folders) else None
        return None if sha256 is None else (path, sha256)

    def sha256(self, path: str, facts: os.stat_result) -> str | None:
        """Hex SHA-256 of a located file; None if it is not readable, or gone meanwhile."""
        known = {} if self.cache is None else self.cache.sha256_of_files([path]).get(path, {})
        return known.get(file_stamp(facts)) or self._read(path)

    def _read(self, path: str) -> str | None:
        try:
            sha256, stamp = sha256_and_stamp(path)
        except (MediaError, ValueError):  # a zero byte, half a character
            return None
        self._new.append((path, stamp, {"sha256": sha256}))
        if len(self._new) >= BATCH:
            self.keep()
        return sha256

    def keep(self) -> None:
        """Write what is new."""
        if self.cache is not None and self._new:
            self.cache.put_all(self._new)
        self._new = []


def _event(cells: Sequence[Any], seconds: Any, files: _Files, row: str) -> Event:
    video_id, uri, title, stickers, views, published_at, creator_id = cells
    # not taken from the table: it decides whether the content changed
    path, sha256 = _content(uri, files, row)
    return Event(
        video_id=video_id,
        uri=path,
        title=title,
        stickers=tuple(stickers),
        views=views,
        sha256=sha256,
        published_at=published_at,
        creator_id=creator_id,
        duration_s=_duration(row, seconds),
    )


def _duration(row: str, cell: Any) -> float | None:
    """The table's ``duration_s``, which a manifest has measured."""
    if type(cell) is float and 0.0 < cell < math.inf:
        return cell
    from coefvq.data.importers import values

    seconds = values.number(row, _SECONDS, cell, math.nan, positive=True)
    return None if math.isnan(seconds) else seconds


def _versioned(event: Event, version: Any, deleted: Any, row: str) -> Event:
    """The event with the row's ``source_version``; where its ``deleted`` is true, the deletion of the video."""
    from coefvq.data.importers import values

    number = values.number(row, "source_version", version, 0.0)
    if not (number.is_integer() and 1 <= number < 2**53):
        raise DataError(
            f"{row}: source_version = {version!r:.40}: a topic needs a whole number from 1 that "
            "grows with each change of the video; add the column, or correct it"
        )
    if values.truth(row, "deleted", deleted) >= 1.0:  # NaN, where nothing stands, is no deletion
        return Event(event.video_id, "delete", source_version=int(number))
    return replace(event, source_version=int(number))


def _content(uri: str, files: _Files, row: str) -> tuple[str, str | None]:
    """The clip's path and its hash; a file that is not there, or is a pipe or folder, has none."""
    if is_url(uri):
        raise DataError(f"{row}: {redact(uri)}: expected a local file; download it and publish the copy")
    if (content := files.as_written(uri)) is not None:
        return content
    try:
        found = locate(uri, files.root)
    except MediaError as error:
        if error.reason == "outside_root":
            raise DataError(f"{row}: {error}") from error
        return str(files.root.base / uri), None
    try:
        check_clip(found)
    except MediaError as error:
        raise DataError(f"{row}: {error}") from error
    path = str(found.file)
    return path, None if found.facts is None else files.sha256(path, found.facts)
