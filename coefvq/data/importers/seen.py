"""Keys met before, on disk or as a few bytes each, so that millions of rows can be compared."""

from __future__ import annotations

import hashlib
import sqlite3
from array import array
from collections.abc import Iterable, Sequence

import numpy as np


class Seen:
    """A table of key -> text in a temporary SQLite file that ends with the process; keys are 16-byte digests."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)  # any thread may collect it
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA cache_size = -16384")  # KiB
        self._db.execute("CREATE TABLE seen (key BLOB PRIMARY KEY, first TEXT) WITHOUT ROWID")
        self._db.execute("BEGIN")

    def first(self, kind: str, key: str, value: str) -> str | None:
        """The value that came with ``key`` when it was first met; None if this is the first time."""
        if self._db.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (_digest(kind, key), value)).rowcount:
            return None
        return self.get(kind, key)

    def add_all(self, kind: str, keys: Sequence[str], texts: Sequence[str]) -> int:
        """Keep the texts of the keys that were not met before; how many these are."""
        rows = [(_digest(kind, key), text) for key, text in zip(keys, texts, strict=True)]
        return self._db.executemany("INSERT OR IGNORE INTO seen VALUES (?, ?)", rows).rowcount

    def get(self, kind: str, key: str) -> str | None:
        """The value of ``key``; None if it was never met."""
        found = self._db.execute("SELECT first FROM seen WHERE key = ?", (_digest(kind, key),)).fetchone()
        return None if found is None else str(found[0])

    def put(self, kind: str, key: str, value: str) -> None:
        """Set the value of ``key``, whatever it was."""
        self._db.execute("INSERT OR REPLACE INTO seen VALUES (?, ?)", (_digest(kind, key), value))

    def __del__(self) -> None:
        self._db.close()


class Fingerprints:
    """64 bits of each key, in eight bytes of memory: whether two keys may be equal."""

    def __init__(self) -> None:
        self._bits = array("q")

    def add_all(self, keys: Iterable[str]) -> None:
        """Take keys into account."""
        self._bits.extend(map(hash, keys))

    def may_repeat(self) -> bool:
        """Whether a key may have come twice; by chance once in ten million tables of a million different keys."""
        bits = np.frombuffer(self._bits, np.int64) if self._bits else np.zeros(0, np.int64)
        bits.sort()
        return bool((bits[1:] == bits[:-1]).any())


def _digest(kind: str, key: str) -> bytes:
    return hashlib.blake2b(f"{kind} {key}".encode(), digest_size=16).digest()
