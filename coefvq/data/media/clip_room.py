"""How much disk decoded clips take, and which go first: the least recently used.

A clip that went is decoded again when somebody asks for it, so nothing has to be protected. Several processes may
share a store: each counts what it writes itself, and all files anew now and then.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

GIB = 2**30
#: where nobody says otherwise
DEFAULT_BYTES = 50 * GIB
# of the limit: freed beyond need, and written between two counts of all files
_SLACK = 0.1
_LEFT_OVER_SECONDS = 3600.0  # what a killed writer left is older


class Entry(NamedTuple):
    """A file of the store: bytes, and when it was last used (seconds since 1970)."""

    path: Path
    bytes: int
    last_use: float


def entries(root: Path) -> Iterator[Entry]:
    """Every decoded clip below ``root``, in no order."""
    for path, facts in _files(root, ".safetensors"):
        yield Entry(path, facts.st_size, facts.st_mtime)


def prune(root: Path, max_bytes: int | None = None, before: float | None = None) -> tuple[int, int]:
    """Remove clips last used ``before`` (seconds since 1970), then the oldest until ``max_bytes`` are left.

    Returns:
        How many clips went, and their bytes.
    """
    for path, facts in _files(root, ".tmp"):
        if before is not None and facts.st_mtime < before - _LEFT_OVER_SECONDS:
            path.unlink(missing_ok=True)
    found = sorted(entries(root), key=lambda entry: entry.last_use)
    total, gone = sum(entry.bytes for entry in found), []
    for entry in found:
        too_old = before is not None and entry.last_use < before
        if not too_old and (max_bytes is None or total <= max_bytes):
            break
        entry.path.unlink(missing_ok=True)
        total -= entry.bytes
        gone.append(entry.bytes)
    return len(gone), sum(gone)


@dataclass
class ClipRoom:
    """Keeps a store within ``max_bytes``, by what this process writes."""

    root: Path
    max_bytes: int
    _total: int = 0
    _until_count: float = 0.0  # bytes that may be written before all files are counted again

    def wrote(self, count: int) -> None:
        """A clip of so many bytes came; the least recently used ones go if there is no room left."""
        self._total += count
        self._until_count -= count
        if self._until_count <= 0:
            self._total = sum(entry.bytes for entry in entries(self.root))
            self._until_count = _SLACK * self.max_bytes
        if self._total > self.max_bytes:
            prune(self.root, round((1 - _SLACK) * self.max_bytes))
            self._until_count = 0.0


def _files(root: Path, suffix: str) -> Iterator[tuple[Path, os.stat_result]]:
    for folder in (root / "clips").glob("*/*"):
        with suppress(OSError), os.scandir(folder) as listing:
            for item in listing:
                if item.name.endswith(suffix):
                    with suppress(OSError):  # gone meanwhile
                        yield Path(item.path), item.stat(follow_symlinks=False)
