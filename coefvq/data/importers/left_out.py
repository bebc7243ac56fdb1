"""What lies in a folder of clips and is not taken: counted and named, so that nothing is missing silently."""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np

from coefvq.data.importers.sources import Source, clips_below, files_below

_NAMED = 10


@dataclass(frozen=True)
class LeftOut:
    """Files by the reason why they are not taken, and the first few of them."""

    reasons: dict[str, int] = field(default_factory=dict)
    first: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many."""
        return sum(self.reasons.values())

    def line(self) -> str:
        """One line for people; empty if nothing was left out."""
        if not self.count:
            return ""
        more = ", …" if self.count > len(self.first) else ""
        return f"{self.count} file{'s' * (self.count > 1)} not taken: {', '.join(self.first)}{more}"

    def record(self) -> dict[str, object]:
        """As a report holds it."""
        return {"files": self.count, "reasons": self.reasons, "first": list(self.first)}


class ListedNames:
    """Which paths a table names, at eight bytes each: a hash is enough for a note."""

    def __init__(self) -> None:
        self._hashes = array("Q")

    def add(self, uri: str) -> None:
        """Remember a path."""
        self._hashes.append(_hash(uri))

    def missing(self, uris: Iterable[str]) -> Iterator[str]:
        """Those of ``uris`` that were never added."""
        known = np.unique(np.frombuffer(self._hashes, np.uint64)) if self._hashes else np.zeros(0, np.uint64)
        for uri in uris:
            found = np.uint64(_hash(uri))
            at = int(np.searchsorted(known, found))
            if at == len(known) or known[at] != found:
                yield uri


def not_taken(source: Source) -> LeftOut:
    """Files of a scanned folder that are no clips; nothing where a table says what to take."""
    if not source.is_scan:
        return LeftOut()
    found = ((path, problem) for path, problem in files_below(source.root) if problem is not None)
    return _left_out((_relative(path, source.root), problem) for path, problem in found)


def not_listed(source: Source, listed: ListedNames) -> LeftOut:
    """Clips of a folder that its own table does not name; a table given by itself says nothing of its folder."""
    if source.is_scan or not source.is_folder:
        return LeftOut()
    names = (_relative(path, source.root) for path in clips_below(source.root))
    return _left_out((name, "no row names it") for name in listed.missing(names))


def _left_out(found: Iterable[tuple[str, str]]) -> LeftOut:
    reasons: Counter[str] = Counter()
    first: list[str] = []
    for name, problem in found:
        reasons[problem] += 1
        if len(first) < _NAMED:
            first.append(f"{name} ({problem})")
    return LeftOut(dict(reasons), tuple(first))


def _relative(path: Path, root: Path) -> str:
    # a name may hold any bytes; those that are no UTF-8 are written as \xff
    return os.fsencode(path.relative_to(root)).decode("utf-8", "backslashreplace")


def _hash(uri: str) -> int:
    return int.from_bytes(blake2b(uri.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")
