"""What probing found out about each clip, kept so that the next run looks at new and changed clips only.

One SQLite file (WAL) in the cache folder. Key: a place (path, URL or content hash) and the settings it
was probed with; beside it a stamp (size and time of change, or what the store calls the version) that
must still be the same. Each result is written as it arrives, so a killed run resumes where it was;
several processes may share the file. Deleting it costs time only.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from coefvq.errors import DataError
from coefvq.files import private_file

_FILE = "probes.sqlite"
_TABLE = """CREATE TABLE IF NOT EXISTS probes (
    place TEXT, settings TEXT, stamp TEXT NOT NULL, facts TEXT NOT NULL, PRIMARY KEY (place, settings)
) WITHOUT ROWID"""
_PUT = "INSERT OR REPLACE INTO probes VALUES (?, ?, ?, ?)"
# a damaged row has none
_HASHES_OF = """SELECT place, stamp, CASE WHEN json_valid(facts) THEN json_extract(facts, '$.sha256') END AS sha256
    FROM probes WHERE place IN ({}) AND typeof(sha256) = 'text' AND length(sha256) = 64"""
_FACTS = json.JSONEncoder(allow_nan=False)
_WAIT_SECONDS = 60.0
_PLACES_PER_QUERY = 500

Facts = dict[str, Any]


class ProbeCache:
    """Facts by place, for one set of ``settings`` (limits and code version)."""

    def __init__(self, path: Path, connection: sqlite3.Connection, settings: str) -> None:
        self._path, self._db, self._settings = path, connection, settings

    def get(self, place: str) -> tuple[str, Facts] | None:
        """Stamp and facts of a place, if it was probed with these settings."""
        return self.get_all([place]).get(place)

    def get_all(self, places: Sequence[str]) -> dict[str, tuple[str, Facts]]:
        """``get`` of many places; those that are not known are left out."""
        found: dict[str, tuple[str, Facts]] = {}
        for start in range(0, len(places), _PLACES_PER_QUERY):
            part = places[start : start + _PLACES_PER_QUERY]
            marks = ", ".join("?" * len(part))
            query = f"SELECT place, stamp, facts FROM probes WHERE settings = ? AND place IN ({marks})"  # noqa: S608
            for place, stamp, facts in self._run(query, self._settings, *part):
                with suppress(ValueError):  # damaged: the clip is probed again, and the row replaced
                    found[str(place)] = (str(stamp), json.loads(facts))
        return found

    def sha256_of_files(self, places: Sequence[str]) -> dict[str, dict[str, str]]:
        """Hashes of files by place and stamp, whatever they were looked at for; those that are not known are left out.

        Files that have two hashes under one stamp count as not known.
        """
        found: dict[str, dict[str, str]] = {}
        for start in range(0, len(places), _PLACES_PER_QUERY):
            part = places[start : start + _PLACES_PER_QUERY]
            for place, stamp, sha256 in self._run(_HASHES_OF.format(", ".join("?" * len(part))), *part):
                hashes = found.setdefault(place, {})
                hashes[stamp] = sha256 if hashes.get(stamp, sha256) == sha256 else ""
        return found

    def put(self, place: str, stamp: str, facts: Mapping[str, Any]) -> None:
        """Keep the facts of a place, instead of earlier ones; written when this returns."""
        self._run(_PUT, place, self._settings, stamp, _FACTS.encode(facts))

    def put_all(self, rows: Iterable[tuple[str, str, Mapping[str, Any]]]) -> None:
        """``put`` of many (place, stamp, facts), in one transaction."""
        cells = ((place, self._settings, stamp, _FACTS.encode(facts)) for place, stamp, facts in rows)
        self._run("BEGIN IMMEDIATE")
        try:
            self._db.executemany(_PUT, cells)
        except sqlite3.Error as error:
            raise _unusable(self._path, error) from error
        finally:
            self._run("COMMIT")

    def _run(self, query: str, *values: str) -> sqlite3.Cursor:
        try:
            return self._db.execute(query, values)
        except sqlite3.Error as error:
            raise _unusable(self._path, error) from error


@contextmanager
def open_cache(folder: Path, settings: str) -> Iterator[ProbeCache]:
    """Open the cache of a folder, making it if needed.

    Raises:
        DataError: the folder cannot be written or the file is no SQLite database.
    """
    path = folder / _FILE
    try:
        private_file(path)
        connection = sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None)
    except (sqlite3.Error, OSError) as error:
        raise _unusable(path, error) from error
    with closing(connection):
        cache = ProbeCache(path, connection, settings)
        # NORMAL survives a killed process; a crash of the machine may lose the last results, never the file
        for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL", _TABLE):
            cache._run(statement)
        yield cache


def peek(folder: Path, settings: str, place: str) -> Facts | None:
    """Facts of a place whatever its stamp, read from a worker process; None if there are none to be had."""
    path = folder / _FILE
    try:
        # a worker only reads, and must not make the file where it is not
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=_WAIT_SECONDS)) as db:
            found = ProbeCache(path, db, settings).get(place)
    except (sqlite3.Error, DataError):
        return None  # only a saving: the clip is then probed
    return None if found is None else found[1]


def _unusable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: cannot be used as cache ({error}); delete it or set COEFVQ_CACHE to another folder")
