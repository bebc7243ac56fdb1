"""Scores of clips, kept across runs: stream and `coefvq score` compute each once, bulk scoring adds its own.

A key is everything that a score depends on: the clip's bytes, the text, the model's files, how it is computed. Never
the policy: it is applied to scores, not stored in them. The file is a saving only. A damaged row is deleted and scored
again, a damaged file replaced, and one that cannot be written is done without.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from coefvq.documents import parse_json
from coefvq.errors import DataError
from coefvq.files import private_file, sha256_json
from coefvq.inference.scores import Scores
from coefvq.records import VideoInput
from coefvq.terminal import say

FILE = "scores.sqlite"
#: the oldest quarter goes when the file is larger
LARGEST_BYTES = 2**28
_WAIT_SECONDS = 20.0
_SCHEMA = (
    "PRAGMA auto_vacuum = INCREMENTAL",
    "PRAGMA journal_mode = WAL",
    # NORMAL survives a killed process; a crash of the machine may lose the last results, never the file
    "PRAGMA synchronous = NORMAL",
    """CREATE TABLE IF NOT EXISTS scores (
        number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, scores TEXT NOT NULL,
        digest TEXT NOT NULL)""",
)


def score_keys(model: str, videos: Sequence[VideoInput]) -> list[str | None]:
    """A key per video, None where its clip's hash is not known; ``model`` names files and settings."""
    from coefvq.models.dataset import text_of

    return [None if video.sha256 is None else sha256_json([model, video.sha256, text_of(video)]) for video in videos]


@dataclass
class ScoreCache:
    """Scores by key in a file of ``folder``; it opens the file for each batch, so any process may share it."""

    folder: Path
    largest_bytes: int = LARGEST_BYTES
    _unusable: bool = field(default=False, init=False)

    def fill(self, keys: Sequence[str | None], heads: int, compute: Callable[[list[int]], Scores]) -> Scores:
        """Scores [n, heads]: those that are known, and for the others what ``compute`` gives for their indices.

        Keys of None, and scores that are not finite, are not kept.
        """
        known = self._read([key for key in keys if key is not None], heads)
        scores = np.full((len(keys), heads), np.nan)
        missing = [index for index, key in enumerate(keys) if key is None or key not in known]
        for index, key in enumerate(keys):
            if key in known:
                scores[index] = known[key]
        if missing:
            scores[missing] = compute(missing)
            self.keep([keys[index] for index in missing], scores[missing])
        return scores

    def keep(self, keys: Sequence[str | None], scores: Scores) -> None:
        """Store scores [n, heads] that somebody computed, but for those without a key or not finite."""
        rows = zip(keys, scores, strict=True)
        self._write({key: row for key, row in rows if key is not None and np.isfinite(row).all()})

    def _read(self, keys: Sequence[str], heads: int) -> dict[str | None, Scores]:
        if not (self.folder / FILE).is_file():
            return {}

        def read(connection: sqlite3.Connection) -> dict[str | None, Scores]:
            found: dict[str | None, Scores] = {}
            for key in dict.fromkeys(keys):
                row = connection.execute("SELECT scores, digest FROM scores WHERE key = ?", (key,)).fetchone()
                scores = None if row is None else _checked(key, row[0], row[1], heads)
                if scores is not None:
                    found[key] = scores
                elif row is not None:
                    connection.execute("DELETE FROM scores WHERE key = ?", (key,))
            return found

        return self._run(read) or {}

    def _write(self, rows: dict[str, Scores]) -> None:
        def write(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT OR REPLACE INTO scores (key, scores, digest) VALUES (?, ?, ?)",
                [(key, text := json.dumps(row.tolist()), sha256_json([key, text])) for key, row in rows.items()],
            )
            connection.execute("COMMIT")
            self._prune(connection)

        if rows:
            self._run(write)

    def _prune(self, connection: sqlite3.Connection) -> None:
        while _bytes(connection) > self.largest_bytes:
            oldest, newest = connection.execute("SELECT min(number), max(number) FROM scores").fetchone()
            if oldest is None or oldest == newest:
                return
            connection.execute("DELETE FROM scores WHERE number <= ?", (oldest + (newest - oldest) // 4,))
            connection.execute("PRAGMA incremental_vacuum").fetchall()

    def _run(self, act: Callable[[sqlite3.Connection], Any]) -> Any:
        """``act`` on the open file; None where the file cannot be used."""
        path = self.folder / FILE
        for attempt in range(2):
            if self._unusable:
                return None
            try:
                private_file(path)
                with closing(sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None)) as connection:
                    for statement in _SCHEMA:
                        connection.execute(statement)
                    return act(connection)
            except (sqlite3.Error, OSError) as error:
                if type(error) is sqlite3.DatabaseError and attempt == 0:
                    _discard(path)  # no SQLite file, or torn pages: it costs time only
                    continue
                self._unusable = True
                say(f"{path}: cannot be used ({error}); clips are scored anew")
        return None


def _checked(key: str, text: Any, digest: Any, heads: int) -> Scores | None:
    """The scores of a row, None if they are not what was written."""
    if not isinstance(text, str) or sha256_json([key, text]) != digest:
        return None
    try:
        scores = np.asarray(parse_json(text, f"{FILE} {key}", "delete it"), np.float64)
    except (DataError, ValueError, TypeError):
        return None
    return scores if scores.shape == (heads,) and np.isfinite(scores).all() else None


def _bytes(connection: sqlite3.Connection) -> int:
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    return int(pages) * int(connection.execute("PRAGMA page_size").fetchone()[0])


def _discard(path: Path) -> None:
    for leftover in path.parent.glob(f"{path.name}*"):
        with suppress(OSError):
            leftover.unlink()
