"""Leases: shards of the feature store that a live process uses, and lock files that nobody holds any more."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Lease:
    """Shards that one process uses, by name, in a file that lives as long as its lock is held."""

    listing: Path
    lock: Any
    _held: set[Path] = field(default_factory=set)

    def unknown(self, shards: Iterable[Path]) -> set[Path]:
        """Those of the shards that this lease does not protect yet."""
        return set(shards) - self._held

    def protect(self, shards: Iterable[Path]) -> set[Path]:
        """Keep these from eviction, and mark them as used now; call it with the store's lock held.

        Returns:
            Those that are gone.
        """
        gone, new = set(), self.unknown(shards)
        for path in new:
            try:
                os.utime(path)
            except FileNotFoundError:
                gone.add(path)
        if kept := new - gone:
            with self.listing.open("a", encoding="utf-8") as stream:
                stream.writelines(f"{path.parent.name}/{path.name}\n" for path in sorted(kept))
            self._held |= kept
        return gone

    def close(self) -> None:
        """Give the shards up."""
        self.listing.unlink(missing_ok=True)
        with suppress(OSError):
            Path(self.lock.lock_file).unlink(missing_ok=True)
        self.lock.release()


def remove_unlocked(folder: Path) -> None:
    """Delete lock files that nobody holds."""
    from filelock import FileLock, Timeout

    for path in folder.glob("*.lock"):
        lock = FileLock(path, thread_local=False)
        with suppress(Timeout):
            lock.acquire(blocking=False)
            path.unlink(missing_ok=True)
            lock.release()
