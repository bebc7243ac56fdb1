"""What the shards of one part hold, in memory: a shard never changes, so its header is read once.

Which shards came since is in the part's journal, to which every writer appends; only its new lines are read. The
folder itself is listed once, and again where somebody replaced the journal.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

SUFFIX = ".safetensors"
JOURNAL = "shards.txt"


@dataclass
class ShardIndex:
    """Shard of each entry below ``folder``, as of the last ``refresh``."""

    folder: Path
    shards: dict[str, Path] = field(default_factory=dict)
    _known: set[str] = field(default_factory=set)
    _journal: tuple[int, int] = (-1, 0)  # inode, and bytes of it that were read

    def refresh(self, read: Callable[[Path], list[str] | None]) -> list[Path]:
        """Take up new shards; ``read`` gives a shard's entries, None where it is damaged. Returns the damaged ones."""
        damaged = []
        for name in self._new_names():
            shard = self.folder / name
            entries = read(shard)
            if entries is not None:
                self._known.add(name)
                self.shards |= dict.fromkeys(entries, shard)
            elif shard.is_file():
                damaged.append(shard)
        return damaged

    def forget(self, shards: Collection[Path]) -> None:
        """Drop shards that are gone."""
        self._known -= {shard.name for shard in shards}
        self.shards = {entry: shard for entry, shard in self.shards.items() if shard not in shards}

    def _new_names(self) -> list[str]:
        before, (inode, position) = self._journal, self._state()
        self._journal = inode, position
        if before[0] == inode and before[1] <= position:
            names = _lines(self.folder / JOURNAL, before[1], position) if before[1] < position else []
        else:
            names = listed(self.folder)
        return [name for name in dict.fromkeys(names) if name not in self._known]

    def _state(self) -> tuple[int, int]:
        """Inode and length of the journal; 0 and 0 where there is none yet."""
        try:
            facts = (self.folder / JOURNAL).stat()
        except OSError:
            return 0, 0
        return facts.st_ino, facts.st_size


def listed(folder: Path) -> list[str]:
    """Names of a part's shards on disk."""
    try:
        return [entry.name for entry in os.scandir(folder) if entry.name.endswith(SUFFIX)]
    except OSError:
        return []


def record(shard: Path) -> None:
    """Tell other processes of a new shard; call it with the store's lock held."""
    with (shard.parent / JOURNAL).open("a", encoding="utf-8") as journal:
        journal.write(f"{shard.name}\n")


def _lines(journal: Path, start: int, stop: int) -> list[str]:
    with journal.open("rb") as stream:
        stream.seek(start)
        return stream.read(stop - start).decode("utf-8").splitlines()
