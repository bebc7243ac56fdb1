"""What can only be said over all rows: ids are distinct, offsets are of one kind, label values occur."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from coefvq.data.importers.labels import LabelCheck, Labels
from coefvq.data.importers.rows import Row
from coefvq.data.importers.sources import Source
from coefvq.data.remote import is_url
from coefvq.errors import DataError

_MAX_COLUMNS = 1000


class Survey:
    """One look at all rows before any clip is touched; grows on disk, not in memory."""

    def __init__(self, source: Source, labels: Labels) -> None:
        self._origin, self._labels = source.origin, labels
        self._check = LabelCheck(source.origin, labels)
        self._seen = _Seen()
        self._columns: dict[str, None] = {}  # in the order met
        self._first: dict[str, str] = {}  # what was met first where, e.g. "with id" -> place
        self.count = 0
        self.plain_stems = True

    def add(self, row: Row) -> None:
        """Take one row into account.

        Raises:
            DataError: it contradicts an earlier one.
        """
        self.count += 1
        self._columns.update(dict.fromkeys(row.raw))
        if len(self._columns) > _MAX_COLUMNS:
            raise DataError(f"{row.place}: more than {_MAX_COLUMNS} different columns so far; use the same in each row")
        self._check_id(row)
        self._check_offset(row)
        for issue, source in self._labels.items():
            self._check.add(issue, row.raw.get(source.column))

    @property
    def columns(self) -> tuple[str, ...]:
        """The user's columns in the order met."""
        return tuple(self._columns)

    def finish(self) -> None:
        """Say what is wrong with the whole.

        Raises:
            DataError: no rows, or a label column or positive value that never occurs.
        """
        if not self.count:
            raise DataError(f"{self._origin}: no rows; add at least one video")
        for issue in self._labels:
            self._check.finish(issue, self.columns)

    def _check_id(self, row: Row) -> None:
        given, uri = row.words["video_id"], row.words["uri"]
        self._no_mixture(row.place, given is not None, "a video_id", "none", "give every row one, or no row")
        video_id = stem(uri) if given is None else given
        first = self._seen.first("row", uri if given is None else given, row.place)
        if first is not None:
            where = first.removeprefix(row.place.rpartition(" row ")[0] + " ")
            raise DataError(
                f"{row.place}: duplicate video_id '{video_id[:80]}' (first in {where}); "
                "give each video its own id or delete one row"
            )
        if given is None and self.plain_stems:
            self.plain_stems = self._seen.first("stem", video_id, uri) is None

    def _check_offset(self, row: Row) -> None:
        if row.zoned is not None:
            remedy = "write all published_at with an offset, or all without (then read as UTC)"
            self._no_mixture(row.place, row.zoned, "an offset in published_at", "no offset", remedy)

    def _no_mixture(self, place: str, present: bool, yes: str, no: str, remedy: str) -> None:
        self._first.setdefault(yes if present else f"not {yes}", place)
        other = self._first.get(f"not {yes}" if present else yes)
        if other is not None:
            this = yes if present else no
            that = no if present else yes
            raise DataError(f"{place}: {this}, but {that} in {other}; {remedy}")


class _Seen:
    """Keys met before, as 16-byte digests in a temporary SQLite file that ends with the process."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA cache_size = -16384")  # KiB
        self._db.execute("CREATE TABLE seen (key BLOB PRIMARY KEY, first TEXT) WITHOUT ROWID")
        self._db.execute("BEGIN")

    def first(self, kind: str, key: str, value: str) -> str | None:
        """The value that came with ``key`` when it was first met; None if this is the first time."""
        digest = hashlib.blake2b(f"{kind} {key}".encode(), digest_size=16).digest()
        if self._db.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (digest, value)).rowcount:
            return None
        return str(self._db.execute("SELECT first FROM seen WHERE key = ?", (digest,)).fetchone()[0])

    def __del__(self) -> None:
        self._db.close()


def stem(uri: str) -> str:
    """File name without suffix of a path or URL."""
    return PurePosixPath(urlsplit(uri).path if is_url(uri) else uri).stem


def id_from_path(uri: str, plain: bool) -> str:
    """The stem; with a hash of the whole path where stems repeat."""
    return stem(uri) if plain else f"{stem(uri)}-{hashlib.sha256(uri.encode()).hexdigest()[:16]}"
