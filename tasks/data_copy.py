"""A person's labelled clips as the raw folder of a new workspace: the listed clips and their tables, nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from coefvq.config import LabelSource
from coefvq.data.clip_names import check_clip
from coefvq.data.importers import ImportedTable, Naming, import_table, open_table
from coefvq.data.importers.columns import PATH_COLUMNS
from coefvq.data.importers.sources import Part
from coefvq.data.locations import Location, Root, locate, open_regular, root_at
from coefvq.data.raw_table import Layout, canonical_rows, to_chunks, write_table
from coefvq.errors import DataError, MediaError
from coefvq.files import inside

_NAMED = 5
_BUFFER = 2**20


def copy_data(
    source: Path,
    raw: Path,
    protocols: Iterable[str],
    columns: Mapping[str, str] | None = None,
    labels: Mapping[str, LabelSource] | None = None,
) -> list[str]:
    """Copy clips and tables to ``raw``, in one step as far as a reader can tell; returns what was not copied.

    Every clip is a regular file below the source and keeps its path below ``raw``. A row whose clip is refused or
    missing stays in its table, and ingest gives it its reason; a URL is left to ingest. ``columns`` is
    ``ingest.columns``. A table with absolute paths is written anew with relative ones, as snapshots write theirs.

    Raises:
        DataError: the table does not fit, or no row has a clip.
    """
    naming = Naming(columns or {})
    table = import_table(source, naming=naming)
    partial = raw.with_name(raw.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    refused = list(_copied(table, root_at(table.root, protocols), partial))
    if len(refused) == len(table.frame):
        raise DataError(f"{source}: none of its {len(refused)} clips can be copied, e.g. {refused[0]}")
    if _has_absolute_paths(source, naming):
        _write_anew(source, partial, "files", naming, labels or {})
    else:
        for part in table.parts:
            if part.kind != "scan":
                _copy_file(part.path.resolve(), partial, _table_name(part, source))
    partial.rename(raw)
    lines = [table.left_out.line()] if table.left_out.count else []
    if refused:
        lines.append(f"{len(refused)} of {len(table.frame)} clips not copied: {'; '.join(refused[:_NAMED])}")
    return lines


def link_table(
    source: Path, raw: Path, media: Path, columns: Mapping[str, str], labels: Mapping[str, LabelSource]
) -> None:
    """Put a table alone into ``raw``, in the form that snapshots write; its clips stay below ``media``.

    Raises:
        DataError: the table does not fit.
    """
    partial = raw.with_name(raw.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _write_anew(source, partial, "reference", Naming(columns, media), labels)
    partial.rename(raw)


def _has_absolute_paths(source: Path, naming: Naming) -> bool:
    """Whether a row names a clip below the table's folder by its absolute path, which the copy will not have."""
    for raw, words in open_table(source, naming=naming).raw_rows():
        given = next((str(raw[name]).strip() for name in PATH_COLUMNS if name in raw), "")
        if given.startswith("/") and not words["uri"].startswith("/"):
            return True
    return False


def _write_anew(source: Path, target: Path, layout: Layout, naming: Naming, labels: Mapping[str, LabelSource]) -> None:
    table = open_table(source, naming=naming)
    columns = dict.fromkeys(name for row in canonical_rows(table, labels) for name in row)
    write_table(target, layout, to_chunks(canonical_rows(table, labels)), columns)


def _copied(table: ImportedTable, root: Root, target: Path) -> Iterator[str]:
    """Copy each row's clip once; yields why a row has none."""
    done: set[str] = set()
    for uri in table.frame["uri"]:
        try:
            found = _plain(uri, locate(uri, root))
            if found.path is not None and found.uri not in done:
                check_clip(found)
                _copy_file(found.path, target, found.uri)
                done.add(found.uri)
        except MediaError as error:
            yield str(error)


def _plain(uri: str, found: Location) -> Location:
    # the copied table says the same as the original, and ingest takes plain relative paths only
    if found.path is not None and (uri.startswith("/") or ".." in uri.split("/")):
        raise MediaError("outside_root", f"{uri}: expected a path relative to the table's folder, without ..")
    return found


def _table_name(part: Part, source: Path) -> str:
    # beside other tables a lone one may have any name; in the raw folder it is the folder's own
    return f"{part.folder}/{part.path.name}".lstrip("/") if source.is_dir() else f"metadata.{part.kind}"


def _copy_file(path: Path, folder: Path, name: str) -> None:
    target = inside(folder, name)
    target.parent.mkdir(parents=True, exist_ok=True)
    with open_regular(path) as stream, target.open("xb") as copy:
        shutil.copyfileobj(stream, copy, _BUFFER)
