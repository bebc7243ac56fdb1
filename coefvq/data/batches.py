"""A batch of new clips: its rows in canonical form, where each clip lies now, and the hash of its bytes.

Layout `files`: clips lie below the batch's folder and will be copied. Layout `reference`: clips stay in a store
(`paths.media`, or wherever a row's URL points) and only their rows and hashes are versioned. Rows wait in a SQLite
file, so that a batch of millions takes no memory.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from coefvq.config import Ingest, MediaLimits
from coefvq.data import remote
from coefvq.data.clip_names import check_clip
from coefvq.data.importers import CheckedTable
from coefvq.data.locations import Root, locate, root_at, sha256_regular
from coefvq.data.raw_table import Counts, Labels, Layout, Row, add_counts, canonical_rows, count_labels, same_facts
from coefvq.errors import ConfigError, DataError, MediaError
from coefvq.files import sha256_file
from coefvq.redaction import redact

T = TypeVar("T")
R = TypeVar("R")

_AT_ONCE = 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SCHEMA = """CREATE TABLE batch (
    n INTEGER PRIMARY KEY, video_id TEXT UNIQUE, uri TEXT UNIQUE, place TEXT, content TEXT, known INTEGER DEFAULT 0
)"""


@dataclass(frozen=True)
class Batch:
    """Rows in ``store``; their ``uri`` is relative to the batch's folder (`files`) or to the store of clips."""

    name: str
    layout: Layout
    source: Path
    store: Path
    clips: int

    def new_rows(self) -> Iterator[tuple[Row, str]]:
        """Rows that no `survey` found to be there already, in order, each with the place of its clip."""
        with closing(sqlite3.connect(self.store)) as db:
            for content, place in db.execute("SELECT content, place FROM batch WHERE NOT known ORDER BY n"):
                yield json.loads(content), place


@dataclass(frozen=True)
class Survey:
    """What a raw table holds, seen from a batch: rows, labels, columns, and how many rows of the batch it has."""

    clips: int
    counts: Counts
    columns: tuple[str, ...]
    known: int


def batch_name(source: Path, given: str | None) -> str:
    """Name of a batch: as given, else of its folder or table.

    Raises:
        ConfigError: not usable as a folder name.
    """
    name = given or (source.parent.name if source.stem == "metadata" else source.stem)
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"batch name '{name}': expected letters, digits, '.', '_' or '-', at most 64; give one: --name"
        )
    return name


def stage_batch(
    table: CheckedTable,
    batch: Batch,
    media: str | None,
    labels: Labels,
    ingest: Ingest,
    workers: int,
    done: Callable[[int], None] = lambda _: None,
) -> None:
    """Hash every clip and write the rows to the batch's store; ``done`` is called with 1 per clip.

    ``media`` is `paths.media`, absolute where it is a folder.

    Raises:
        DataError: a clip outside its folder or store, a clip twice, a hash that is not the one in the row.
        MediaError: a clip is missing or its store does not answer.
        ConfigError: the layout does not fit the paths, or a protocol is not allowed.
    """
    # without a table ids are file names, and those come again in the next batch
    prefix = f"{batch.name}-" if table.source.parts[0].kind == "scan" else ""
    rows = ((row, *_places(table, row["uri"], batch.layout, media)) for row in canonical_rows(table, labels))

    def hashed(found: tuple[Row, str, str]) -> tuple[str, str, str, str]:
        row, uri, place = found
        row |= {"uri": uri, "video_id": prefix + row["video_id"], "sha256": _sha256(row, place, batch, ingest)}
        return row["video_id"], uri, place, json.dumps(row)

    with closing(sqlite3.connect(batch.store)) as db:
        db.execute(_SCHEMA)
        for values in in_threads(hashed, rows, workers):
            try:
                db.execute("INSERT INTO batch (video_id, uri, place, content) VALUES (?, ?, ?, ?)", values)
            except sqlite3.IntegrityError as error:
                raise DataError(f"{batch.source}: clip {values[1]} is listed twice; delete one row") from error
            done(1)
        db.commit()


def survey(chunks: Iterable[pa.Table], batch: Batch, labels: Labels, place: str) -> Survey:
    """Look through a raw table, and mark rows of the batch that it has with the same clip and the same facts.

    Raises:
        DataError: an id of the batch is taken by another clip or by other facts, or its clip by another id.
    """
    clips, counts, columns = 0, count_labels(pa.table({}), labels), dict.fromkeys(["uri", "video_id"])
    with closing(sqlite3.connect(batch.store)) as db:
        db.execute("UPDATE batch SET known = 0")
        for chunk in chunks:
            clips += len(chunk)
            counts = add_counts(counts, count_labels(chunk, labels))
            columns |= dict.fromkeys(chunk.column_names)
            _mark_known(db, chunk, place, batch)
        db.commit()
        known = db.execute("SELECT count(*) FROM batch WHERE known").fetchone()[0]
    for row, _ in batch.new_rows():
        columns |= dict.fromkeys(row)
    return Survey(clips, counts, tuple(columns), known)


def in_threads(work: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Results in order. Threads do: hashing, copying and waiting for a store all release the interpreter."""
    remaining = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        while chunk := list(islice(remaining, _AT_ONCE)):  # a future per clip of a large batch would fill memory
            yield from pool.map(work, chunk)


def location_sha256(place: str, limits: MediaLimits, scratch: Path) -> str:
    """Hex SHA-256 of a file, or of what a URL gives; its copy in ``scratch`` is deleted again.

    Raises:
        MediaError: missing, unreachable, or above the limits for remote clips.
    """
    if remote.is_url(place):
        copy = remote.fetch(place, scratch, limits)
        try:
            return sha256_file(copy)
        finally:
            copy.unlink()
    return sha256_regular(Path(place))


def _sha256(row: Mapping[str, Any], place: str, batch: Batch, ingest: Ingest) -> str:
    if remote.is_url(place):
        try:
            locate(place, Root(batch.source.parent, ingest.protocols))
        except MediaError as error:
            raise ConfigError(f"{error} and commit") from error
    digest = location_sha256(place, ingest.limits, batch.store.parent / "fetched")
    if row.get("sha256", digest) != digest:
        raise DataError(
            f"{batch.source}: {row['uri']} has sha256 {digest}, its row says {row['sha256']}; correct the row"
        )
    return digest


def _mark_known(db: sqlite3.Connection, chunk: pa.Table, place: str, batch: Batch) -> None:
    ids = chunk["video_id"].to_pylist()
    uris = chunk["uri"].to_pylist()
    if batch.layout == "files":  # copied clips lie in a folder named after their batch
        folder = re.compile(rf"{re.escape(batch.name)}(-\d+)?/")
        uris = [folder.sub("", uri, count=1) if folder.match(uri) else "" for uri in uris]
    mine = "(SELECT value FROM json_each(?))"
    found = db.execute(
        f"SELECT video_id, uri, content FROM batch WHERE video_id IN {mine} OR uri IN {mine}",  # noqa: S608 - constants
        (json.dumps(ids), json.dumps(uris)),
    ).fetchall()
    if not found:
        return
    at = {video_id: index for index, video_id in enumerate(ids)}
    known = []
    for video_id, uri, content in found:
        index, new = at.get(video_id), json.loads(content)
        old = chunk.slice(uris.index(uri) if index is None else index, 1).to_pylist()[0]
        if index is not None:
            _check_same(old, new, place)
            known.append((video_id,))
        elif batch.layout == "reference" or old.get("sha256") == new["sha256"]:
            raise DataError(f"{place}: clip {uri} of '{video_id}' is already there as '{old['video_id']}'; delete it")
    db.executemany("UPDATE batch SET known = 1 WHERE video_id = ?", known)


def _check_same(old: Mapping[str, Any], new: Mapping[str, Any], place: str) -> None:
    where = f"{place}: video_id '{new['video_id']}' ({old['uri']}) is already there"
    if old.get("sha256") is None:
        raise DataError(f"{where}, without a sha256 to compare {new['uri']} with; give the new clip another id")
    if old["sha256"] != new["sha256"]:
        raise DataError(f"{where}, and {new['uri']} is another clip; give the new clip another id")
    if differing := same_facts(old, new):
        raise DataError(
            f"{where}, and {new['uri']} differs in {', '.join(differing)}; a snapshot only adds: correct the old row "
            "in a checkout and `dvc add` the folder"
        )


def _places(table: CheckedTable, uri: str, layout: Layout, media: str | None) -> tuple[str, str]:
    """A clip's uri in the raw table, and where its bytes are now."""
    origin, root = table.source.origin, table.source.root
    if layout == "files":
        if remote.is_url(uri):
            raise DataError(f"{origin}: {redact(uri)} is a URL; version such rows with --layout reference")
        if media is not None:
            raise ConfigError("paths.media is set, so clips are not read from the raw folder; use --layout reference")
        return _below(root, root, uri)
    if remote.is_url(uri):
        return uri, uri
    if media is None:
        raise ConfigError(
            f"{origin}: {uri} is not a URL and paths.media is not set, so nothing says where the clip lies; "
            "set paths.media to the folder or URL of the store and commit it, or use --layout files"
        )
    if not remote.is_url(media):
        store = Path(media)
        in_store = root.resolve().is_relative_to(store.resolve())
        return _below(store, root if in_store else store, uri)
    if not remote.is_below(uri):
        raise DataError(f"{origin}: {uri} leaves the store {redact(media)}; use a path below it")
    return uri, remote.address(uri, media)


def _below(root: Path, base: Path, uri: str) -> tuple[str, str]:
    path = os.path.normpath(base.resolve() / uri)
    found = locate(Path(os.path.relpath(path, root.resolve())).as_posix(), root_at(root))
    check_clip(found)
    return found.uri, str(found.file)
