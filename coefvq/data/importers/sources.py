"""Where a user's rows come from: one table, a VideoFolder with tables, or a folder of clips.

VideoFolder is the Hugging Face layout: ``metadata.csv|tsv|jsonl|parquet`` at the top or in each split folder,
with ``file_name`` relative to that folder; or clips in ``label/`` or ``split/label/``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

from coefvq.data.clip_names import name_problem
from coefvq.data.importers.tables import TABLE_SUFFIXES
from coefvq.data.locations import CLIP_SUFFIXES
from coefvq.errors import DataError

#: folder name -> split, with the names Hugging Face uses
SPLIT_FOLDERS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "traffic": "traffic",
    "unlabelled": "unlabelled",
}
Kind = Literal["csv", "jsonl", "parquet", "scan"]
_SHOWN = 5


@dataclass(frozen=True)
class Part:
    """One table, or one folder to ``scan``; its file names are relative to ``folder`` below the root."""

    path: Path
    kind: Kind
    folder: str = ""
    split: str | None = None


@dataclass(frozen=True)
class Source:
    """What to read, in order; ``origin`` is what messages name, ``root`` what file names are relative to.

    ``is_folder`` tells a folder of clips, with or without a table, from a table given by itself. ``renames`` is
    ``ingest.columns``. Absolute paths below ``media`` are taken as paths relative to it.
    """

    origin: Path
    root: Path
    parts: tuple[Part, ...]
    is_folder: bool = True
    renames: Mapping[str, str] = field(default_factory=dict)
    other_media: Path | None = None

    @property
    def media(self) -> Path:
        """Folder that file names are relative to."""
        return self.other_media or self.root

    @property
    def is_scan(self) -> bool:
        """Whether the clips themselves are all there is."""
        return self.parts[0].kind == "scan"


def find_source(source: Path, format: str = "auto") -> Source:
    """Decide how a folder or file is read; nothing but names is looked at.

    Raises:
        DataError: nothing usable there.
    """
    # os.path: where Path raises, as for a name too long, it says no
    if format == "videofolder" or (format == "auto" and os.path.isdir(source)):  # noqa: PTH112
        return _folder(source)
    kind = TABLE_SUFFIXES.get(source.suffix.lower() if format == "auto" else f".{format}")
    if kind is None or not os.path.isfile(source):  # noqa: PTH113
        found = "no such file" if kind else "neither a folder nor a known table"
        raise DataError(f"{source}: {found}; give a folder or a .csv, .tsv, .jsonl or .parquet table")
    return Source(source, source.parent, (Part(source, kind),), is_folder=False)


def _folder(folder: Path) -> Source:
    if not os.path.isdir(folder):  # noqa: PTH112
        raise DataError(f"{folder}: no such folder; put labelled clips there (docs/data.md shows the layout)")
    table = _metadata(folder, "", None)
    if table is not None:
        return Source(table.path, folder, (table,))
    split_folders = [path for path in _folders(folder) if path.name in SPLIT_FOLDERS]
    tables = [_metadata(path, path.name, SPLIT_FOLDERS[path.name]) for path in split_folders]
    found = tuple(part for part in tables if part is not None)
    if not found:
        return _scanned(folder)
    for path, part in zip(split_folders, tables, strict=True):
        if part is None and next(clips_below(path, folder), None) is not None:
            raise DataError(f"{path}: holds clips but no metadata table, as {found[0].path} is one; add one")
    return Source(folder, folder, found)


def _holds_clips(folder: Path, root: Path) -> bool:
    try:
        return next(clips_below(folder, root), None) is not None
    except DataError:  # not readable; the scan names it
        return False


def _folders(folder: Path) -> list[Path]:
    base = folder.resolve()
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and path.resolve().is_relative_to(base)]


def _metadata(folder: Path, prefix: str, split: str | None) -> Part | None:
    tables = ((folder / f"metadata{suffix}", kind) for suffix, kind in TABLE_SUFFIXES.items())
    # os.path: a folder that may not be entered has no table
    found = [(path, kind) for path, kind in tables if os.path.lexists(path)]
    for path, _ in found:
        if not os.path.isfile(path):  # noqa: PTH113
            raise DataError(f"{path}: expected a table; it is a folder, pipe, device or broken link")
    for path, _ in found:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise DataError(f"{path}: a link that leads out of its folder; put the table itself there")
    if len(found) > 1:
        names = " and ".join(path.name for path, _ in found)
        raise DataError(f"{folder}: holds {names}; keep one of them")
    return Part(found[0][0], found[0][1], prefix, split) if found else None


def _scanned(folder: Path) -> Source:
    if next(clips_below(folder), None) is None:
        seen = ", ".join(path.name for path, _ in islice(files_below(folder), _SHOWN)) or "nothing"
        raise DataError(
            f"{folder}: neither a metadata table nor video files; add one of them (found: {seen}; suffixes of clips: "
            f"{' '.join(sorted(CLIP_SUFFIXES))})"
        )
    tops = [path for path in _folders(folder) if _holds_clips(path, folder)]
    split = [path for path in tops if path.name in SPLIT_FOLDERS]
    if split and len(split) < len(tops):
        other = next(path for path in tops if path not in split)
        raise DataError(
            f"{folder}: '{split[0].name}' reads as a split and '{other.name}' as a label; put every clip into "
            "a split folder, rename the folder, or give a metadata.csv"
        )
    return Source(folder, folder, (Part(folder, "scan"),))


def clips_below(folder: Path, root: Path | None = None) -> Iterator[Path]:
    """Video files in the order of their names' parts; folders are listed one at a time, links to them not entered.

    Links to clips lead to a place below ``root`` (by default the folder), if only to one where nothing is.
    """
    return (path for path, problem in files_below(folder, root) if problem is None)


def files_below(folder: Path, root: Path | None = None) -> Iterator[tuple[Path, str | None]]:
    """Everything in a folder in that order, and why it is not taken as a clip.

    Raises:
        DataError: the folder itself cannot be listed.
    """
    base = (root or folder).resolve()
    try:
        entries = _listed(folder)
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}; give a folder that you may read") from error
    for entry in entries:
        path, problem = Path(entry.path), _entry_problem(entry, base)
        if problem is None and entry.is_dir(follow_symlinks=False):
            try:
                yield from files_below(path, base)
            except DataError:
                yield path, "a folder that cannot be read"
        else:
            yield path, problem


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as listing:
        return sorted(listing, key=lambda entry: entry.name)


def _entry_problem(entry: os.DirEntry[str], base: Path) -> str | None:
    """None for a folder to enter or a clip to take."""
    if entry.name.startswith("."):
        return "hidden"
    try:
        entry.name.encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    if entry.is_dir(follow_symlinks=False):
        return None
    if entry.is_symlink() and os.path.isdir(entry.path):  # noqa: PTH112  entry.is_dir raises on a circle of links
        return "a link to a folder"
    if entry.is_symlink():
        if not Path(os.path.realpath(entry.path)).is_relative_to(base):
            return "a link that leads outside"
    elif not entry.is_file():
        return "a pipe, socket or device"
    return name_problem(entry.name)


def scanned_row(folder: Path, clip: Path) -> dict[str, str | None]:
    """What the place of a clip says: ``label/x.mp4``, ``split/label/x.mp4`` or ``split/x.mp4``."""
    parts = clip.relative_to(folder).parts
    split = SPLIT_FOLDERS.get(parts[0]) if len(parts) > 1 else None
    folders = parts[1:-1] if split else parts[:-1]
    return {"file_name": "/".join(parts), "label": folders[-1] if folders else None, "split": split}


def stamp(part: Part) -> tuple[int, int]:
    """Size and time of change of a table, to notice that it is another one than a moment ago."""
    facts = part.path.stat()
    return (0, 0) if part.kind == "scan" else (facts.st_size, facts.st_mtime_ns)
