"""Sink: the index of video candidates in SQLite, the embedded stand-in for the Index Service.

Delivery is at least once; the effect is exactly once, for two reasons. The entries of a batch, its audit
rows, its dead letters and the consumer's offset are one transaction, so a crash leaves all or none of
them. And an entry is only replaced by a newer version, so reading the log again in any order ends alike.
Removed and deleted videos stay as tombstones; without them an old event would bring the video back.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coefvq.documents import parse_json
from coefvq.vmp.database import Database, open_database
from coefvq.vmp.records import BatchReport, DeadLetter, IndexEntry, SinkRow

_NOW = "TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))"
_SCHEMA = (
    (
        """CREATE TABLE entries (
            video_id TEXT PRIMARY KEY, state TEXT NOT NULL CHECK (state IN ('live', 'removed', 'deleted')),
            rule TEXT NOT NULL, source_version INTEGER NOT NULL, bundle_order INTEGER NOT NULL,
            bundle_version TEXT NOT NULL, value TEXT NOT NULL)""",
        "CREATE TABLE offsets (consumer TEXT PRIMARY KEY, offset INTEGER NOT NULL)",
        # append-only: who decided what, when and by which rule; also what the crash tests count
        f"""CREATE TABLE effects (
            number INTEGER PRIMARY KEY AUTOINCREMENT, consumer TEXT NOT NULL, offset INTEGER NOT NULL,
            video_id TEXT NOT NULL, source_version INTEGER NOT NULL, bundle_version TEXT NOT NULL,
            outcome TEXT NOT NULL, rule TEXT NOT NULL, written INTEGER NOT NULL, error TEXT, applied_at {_NOW})""",
        "CREATE INDEX effects_by_video ON effects (video_id, source_version)",
        f"""CREATE TABLE dead_letters (
            video_id TEXT PRIMARY KEY, offset INTEGER NOT NULL, source_version INTEGER NOT NULL,
            uri TEXT NOT NULL, reason TEXT NOT NULL, failed_at {_NOW})""",
    ),
    (
        # one row at most: the id of the log, once the two were opened together
        "CREATE TABLE state (id TEXT NOT NULL)",
        "ALTER TABLE offsets ADD COLUMN digest TEXT",
    ),
)
_WRITE_ENTRY = """
    INSERT INTO entries (video_id, state, rule, source_version, bundle_order, bundle_version, value)
    VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (video_id) DO UPDATE SET
        state = excluded.state, rule = excluded.rule, source_version = excluded.source_version,
        bundle_order = excluded.bundle_order, bundle_version = excluded.bundle_version,
        value = excluded.value
    WHERE (excluded.source_version, excluded.bundle_order, excluded.bundle_version)
        > (entries.source_version, entries.bundle_order, entries.bundle_version)"""
_WRITE_EFFECT = """
    INSERT INTO effects (consumer, offset, video_id, source_version, bundle_version, outcome, rule, written,
        error)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_WRITE_DEAD_LETTER = """
    INSERT OR REPLACE INTO dead_letters (video_id, offset, source_version, uri, reason)
    SELECT ?1, ?2, ?3, ?4, ?5
    WHERE NOT EXISTS (SELECT 1 FROM effects WHERE video_id = ?1 AND source_version > ?3)"""
_SETTLE_DEAD_LETTER = "DELETE FROM dead_letters WHERE video_id = ? AND source_version <= ?"
_WRITE_OFFSET = """
    INSERT INTO offsets (consumer, offset, digest) VALUES (?, ?, ?)
    ON CONFLICT (consumer) DO UPDATE SET offset = excluded.offset, digest = excluded.digest
    WHERE excluded.offset > offsets.offset"""


@dataclass(frozen=True)
class IndexStore:
    """The index; open it with ``open_state``, or with ``open_index`` where there is no log.

    ``digest_at`` gives the content digest of the log's event at an offset. It is stored with each committed
    offset, so that a log with other events at that place is found out.
    """

    database: Database
    digest_at: Callable[[int], str | None] = field(default=lambda offset: None)

    def apply(self, rows: Sequence[SinkRow], consumer: str, offset: int) -> BatchReport:
        """Store ``rows`` and move ``consumer`` to ``offset`` in one transaction.

        Rows at or below the consumer's committed offset were applied before and are passed over, so two
        runs of the same consumer repeat work but never an effect.
        """
        with self.database.transaction() as connection:
            committed = self.committed(consumer)
            fresh = [row for row in rows if row.offset > committed]
            written = [_apply_row(connection, row, consumer) for row in fresh]
            connection.execute(_WRITE_OFFSET, (consumer, offset, self.digest_at(offset)))
        outcomes = Counter(row.outcome for row in fresh)
        return BatchReport(
            offset=offset,
            events=len(fresh),
            remained=outcomes["remained"],
            removed=outcomes["removed"],
            ignored=outcomes["ignored"],
            dead=sum(row.error is not None for row in fresh),
            stale=sum(row.state is not None and not new for row, new in zip(fresh, written, strict=True)),
        )

    def committed(self, consumer: str) -> int:
        """Offset up to which ``consumer`` has taken effect, 0 before its first batch."""
        rows = self.database.query("SELECT offset FROM offsets WHERE consumer = ?", (consumer,))
        return self.database.whole(rows[0][0], "an offset") if rows else 0

    def get(self, video_id: str) -> IndexEntry | None:
        """Return the entry or tombstone of a video, None if the index never had one."""
        rows = self.database.query(
            "SELECT video_id, state, rule, source_version, bundle_version, value FROM entries WHERE video_id = ?",
            (video_id,),
        )
        if not rows:
            return None
        key, state, rule, source_version, bundle_version, value = rows[0]
        return IndexEntry(key, state, rule, source_version, bundle_version, self._value(value, video_id))

    def scores(self, issue: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Video id and scores of one issue, per video that is live or was removed by a rule."""
        rows = self.database.query("SELECT video_id, value FROM entries WHERE state != 'deleted' ORDER BY video_id")
        for video_id, value in rows:
            found = self._value(value, video_id).get("scores", {}).get(issue)
            if found is not None:
                yield str(video_id), found

    def _value(self, text: str, video_id: str) -> Any:
        return parse_json(text, f"{self.database.path} entry {video_id}", "restore the index from a copy")

    def dead_letters(self) -> list[DeadLetter]:
        """Videos whose newest event could not be scored, oldest failure first."""
        columns = "video_id, offset, source_version, uri, reason, failed_at"
        rows = self.database.query(f"SELECT {columns} FROM dead_letters ORDER BY offset, video_id")  # noqa: S608
        return [DeadLetter(*row) for row in rows]

    def states(self) -> dict[str, int]:
        """Count entries per state."""
        return dict(self.database.query("SELECT state, count(*) FROM entries GROUP BY state ORDER BY state"))

    def consumers(self) -> dict[str, int]:
        """Committed offset of every consumer."""
        return dict(self.database.query("SELECT consumer, offset FROM offsets ORDER BY consumer"))

    def state_id(self) -> str | None:
        """Id of the log this index was made from; None before the two were first opened together."""
        rows = self.database.query("SELECT id FROM state")
        return str(rows[0][0]) if rows else None

    def positions(self) -> list[tuple[str, int, str | None]]:
        """Consumer, committed offset, and the digest of the event there (None: written by an older version)."""
        rows = self.database.query("SELECT consumer, offset, digest FROM offsets ORDER BY consumer")
        return [(str(name), self.database.whole(at, "an offset"), digest) for name, at, digest in rows]

    def applied_at(self, consumer: str, offset: int) -> tuple[str, int] | None:
        """Video id and source version of the event that ``consumer`` applied at ``offset``, by the audit rows."""
        rows = self.database.query(
            "SELECT video_id, source_version FROM effects WHERE consumer = ? AND offset = ?", (consumer, offset)
        )
        return (str(rows[0][0]), self.database.whole(rows[0][1], "a source version")) if rows else None


@contextmanager
def open_index(path: Path, create: bool = True) -> Iterator[IndexStore]:
    """Open the index at ``path``.

    Raises:
        DataError: see ``open_database``.
    """
    with open_database(path, _SCHEMA, create) as database:
        yield IndexStore(database)


def _apply_row(connection: sqlite3.Connection, row: SinkRow, consumer: str) -> bool:
    """Write entry, audit row and dead letter of one event; True if the entry changed."""
    changed = row.state is not None and _write_entry(connection, row)
    connection.execute(
        _WRITE_EFFECT,
        (consumer, row.offset, row.video_id, row.source_version, row.bundle_version, row.outcome, row.rule,
         changed, row.error),
    )  # fmt: skip
    if row.error is None:
        connection.execute(_SETTLE_DEAD_LETTER, (row.video_id, row.source_version))
    else:
        letter = (row.video_id, row.offset, row.source_version, row.uri, row.error)
        connection.execute(_WRITE_DEAD_LETTER, letter)
    return changed


def _write_entry(connection: sqlite3.Connection, row: SinkRow) -> bool:
    cursor = connection.execute(
        _WRITE_ENTRY,
        (row.video_id, row.state, row.rule, row.source_version, row.bundle_order, row.bundle_version, row.value),
    )
    return cursor.rowcount == 1
