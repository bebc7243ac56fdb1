"""Where a user's rows come from: one table, a VideoFolder with tables, or a folder of clips.

VideoFolder is the Hugging Face layout: ``metadata.csv|tsv|jsonl|parquet`` at the top or in each split folder,
with ``file_name`` relative to that folder; or clips in ``label/`` or ``split/label/``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from coefvq.data.importers.tables import TABLE_SUFFIXES
from coefvq.errors import DataError

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".ts", ".3gp"})
#: folder name -> split, with the names Hugging Face uses
SPLIT_FOLDERS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "traffic": "traffic",
}
Kind = Literal["csv", "jsonl", "parquet", "scan"]


@dataclass(frozen=True)
class Part:
    """One table, or one folder to ``scan``; its file names are relative to ``folder`` below the root."""

    path: Path
    kind: Kind
    folder: str = ""
    split: str | None = None


@dataclass(frozen=True)
class Source:
    """What to read, in order; ``origin`` is what messages name, ``root`` what file names are relative to."""

    origin: Path
    root: Path
    parts: tuple[Part, ...]

    @property
    def is_scan(self) -> bool:
        """Whether the clips themselves are all there is."""
        return self.parts[0].kind == "scan"


def find_source(source: Path, format: str = "auto") -> Source:
    """Decide how a folder or file is read; nothing but names is looked at.

    Raises:
        DataError: nothing usable there.
    """
    if format == "videofolder" or (format == "auto" and source.is_dir()):
        return _folder(source)
    kind = TABLE_SUFFIXES.get(source.suffix.lower() if format == "auto" else f".{format}")
    if kind is None or not source.is_file():
        found = "no such file" if kind else "neither a folder nor a known table"
        raise DataError(f"{source}: {found}; give a folder or a .csv, .tsv, .jsonl or .parquet table")
    return Source(source, source.parent, (Part(source, kind),))


def _folder(folder: Path) -> Source:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; put labelled clips there (docs/data.md shows the layout)")
    table = _metadata(folder, "", None)
    if table is not None:
        return Source(table.path, folder, (table,))
    split_folders = [path for path in sorted(folder.iterdir()) if path.name in SPLIT_FOLDERS and path.is_dir()]
    tables = [_metadata(path, path.name, SPLIT_FOLDERS[path.name]) for path in split_folders]
    found = tuple(part for part in tables if part is not None)
    if not found:
        return _scanned(folder)
    for path, part in zip(split_folders, tables, strict=True):
        if part is None and next(clips_below(path), None) is not None:
            raise DataError(f"{path}: holds clips but no metadata table, as {found[0].path} is one; add one")
    return Source(folder, folder, found)


def _metadata(folder: Path, prefix: str, split: str | None) -> Part | None:
    tables = ((folder / f"metadata{suffix}", kind) for suffix, kind in TABLE_SUFFIXES.items())
    found = [(path, kind) for path, kind in tables if path.is_file()]
    if len(found) > 1:
        names = " and ".join(path.name for path, _ in found)
        raise DataError(f"{folder}: holds {names}; keep one of them")
    return Part(found[0][0], found[0][1], prefix, split) if found else None


def _scanned(folder: Path) -> Source:
    if next(clips_below(folder), None) is None:
        raise DataError(f"{folder}: neither a metadata table nor video files; add one of them")
    tops = [path for path in sorted(folder.iterdir()) if path.is_dir() and next(clips_below(path), None) is not None]
    split = [path for path in tops if path.name in SPLIT_FOLDERS]
    if split and len(split) < len(tops):
        other = next(path for path in tops if path not in split)
        raise DataError(
            f"{folder}: '{split[0].name}' reads as a split and '{other.name}' as a label; put every clip into "
            "a split folder, rename the folder, or give a metadata.csv"
        )
    return Source(folder, folder, (Part(folder, "scan"),))


def clips_below(folder: Path) -> Iterator[Path]:
    """Video files in the order of their names' parts; folders are listed one at a time, links to them not entered."""
    with os.scandir(folder) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from clips_below(Path(entry.path))
        elif Path(entry.name).suffix.lower() in VIDEO_SUFFIXES and (entry.is_symlink() or entry.is_file()):
            yield Path(entry.path)


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
