"""Sink: the index of video candidates in SQLite or PostgreSQL, the stand-in for the Index Service.

Delivery is at least once; the effect is exactly once, for two reasons. The entries of a batch, its audit
rows, its dead letters and the consumer's offset are one transaction, so a crash leaves all or none of
them. And an entry is only replaced by a newer version, so reading the log again in any order ends alike.
Removed and deleted videos stay as tombstones; without them an old event would bring the video back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coefvq.errors import DataError
from coefvq.vmp import schema, served, stored
from coefvq.vmp.database import Connection, Database, open_database
from coefvq.vmp.effects import apply_rows, report_of
from coefvq.vmp.epochs import issued
from coefvq.vmp.inserts import chosen
from coefvq.vmp.keys import DEFAULT, shown, split, tenant_of, within
from coefvq.vmp.records import BatchReport, DeadLetter, IndexEntry, Known, SinkRow, Verdict
from coefvq.vmp.schema_steps import ENTRY_OF_VIDEO, SCHEMA

_PAGE = 5000  # values read at once: about a kilobyte each


@dataclass(frozen=True)
class IndexStore:
    """The index; open it with ``open_state``, or with ``open_index`` where there is no log.

    ``digest_at`` gives the content digest of the log's event at an offset. It is stored with each committed
    offset, so that a log with other events at that place is found out.
    """

    database: Database
    digest_at: Callable[[int], str | None] = field(default=lambda offset: None)
    _memory: stored.Memory = field(default_factory=stored.Memory, repr=False, compare=False)

    def apply(self, rows: Sequence[SinkRow], consumer: str, offset: int) -> BatchReport:
        """Store ``rows`` and move ``consumer`` to ``offset`` in one transaction.

        Rows at or below the consumer's committed offset were applied before and are passed over, so two
        runs of the same consumer repeat work but never an effect.

        Raises:
            FencedError: a rollback withdrew the deployment that judged the rows; nothing is stored.
        """
        with self.database.transaction() as connection:
            look = stored.look(connection, consumer)
            committed = 0 if look.committed is None else self.database.whole(look.committed, "an offset")
            fresh = [row for row in rows if row.offset > committed]
            applied = apply_rows(connection, fresh, consumer, look, self._memory)
            connection.execute(schema.WRITE_OFFSET, (consumer, offset, self.digest_at(offset)))
            # before the commit, which waits for the disk: the rows are in the processor's cache still
            report = report_of(fresh, applied, offset)
        return report

    def revise(
        self,
        rows: Sequence[SinkRow],
        reason: str,
        passed: Iterable[tuple[str, int | None]] = (),
        also: Callable[[Connection, list[bool]], None] = lambda connection, written: None,
    ) -> BatchReport:
        """Store verdicts that no new event asked for; ``reason`` stands in the audit rows as their consumer.

        ``passed`` names videos, and the views looked at, whose verdict stands. ``also`` runs in the same transaction
        and gets which rows changed their entry.

        Raises:
            FencedError: as ``apply``.
        """
        with self.database.transaction() as connection:
            applied = apply_rows(connection, rows, reason, stored.look(connection), self._memory)
            if kept := list(passed):
                connection.executemany(schema.KEEP_VERDICT, kept)
            also(connection, applied.written)
        return report_of(rows, applied, max((row.offset for row in rows), default=0))

    def committed(self, consumer: str) -> int:
        """Offset up to which ``consumer`` has taken effect, 0 before its first batch."""
        rows = self.database.query("SELECT offset FROM offsets WHERE consumer = ?", (consumer,))
        return self.database.whole(rows[0][0], "an offset") if rows else 0

    def get(self, video_id: str) -> IndexEntry | None:
        """Return the entry or tombstone of a video as a reader sees it, None if the index never had one."""
        return served.get(self.database, video_id)

    def known(self, video_ids: Iterable[str]) -> dict[str, Known]:
        """What is stored of each video that was seen before."""
        sql = (
            "SELECT v.video_id, v.seen_version, v.views, v.change, e.value, e.state, e.source_version, e.epoch, "
            "e.rank, e.views, e.decided_at FROM videos v LEFT JOIN entries e ON e.change = v.change WHERE v."
        )
        found, before = {}, dict.fromkeys(video_ids, stored.NOTHING)
        with self.database.reading() as connection:
            # within a transaction a rollback would take back what is read here
            mark = None if connection.in_transaction else stored.mark_of(connection)
            for condition, values in chosen("video_id", list(before)):
                rows = connection.execute(sql + condition, values).fetchall()
                for video_id, seen, views, change, text, *cells in rows:
                    verdict = None if text is None else self._verdict(video_id, text, cells)
                    found[video_id] = Known(self.database.whole(seen, "a source version"), views, verdict)
                    state, source_version, epoch, rank, most, at = cells
                    version = (source_version, epoch, most, rank, at)
                    before[video_id] = stored.stored_of(seen, views, change, state, *version)
        self._memory.keep(mark, before)
        return found

    def _verdict(self, video_id: str, text: str, cells: Sequence[Any]) -> Verdict:
        state, source_version, epoch, rank, views, decided_at = cells
        for number, name in ((source_version, "a source version"), (epoch, "an epoch"), (rank, "a rank")):
            self.database.whole(number, name)
        place = f"{self.database.place} entry {shown(video_id)}"
        try:
            when = None if decided_at is None else datetime.fromisoformat(decided_at)
        except (TypeError, ValueError) as error:
            what = f"{place}: decided_at is {decided_at!r:.60}"
            raise DataError(f"{what}: expected ISO 8601; restore the index from a copy") from error
        return Verdict(state, source_version, epoch, rank, views, when, text, place)

    def models(self) -> dict[int, dict[str, str]]:
        """Per epoch and issue the hash of what scores were made with; empty where an older schema did not say."""
        return {item.epoch: item.models for item in issued(self.database)}

    def has_due(self, now: float) -> tuple[bool, bool]:
        """Whether ``due``, and whether ``aged``, may name a video: one question in place of two after each batch."""
        sql = "SELECT EXISTS (SELECT 1 FROM due), EXISTS (SELECT 1 FROM recheck WHERE at <= ?)"
        watched, aged = self.database.query(sql, (now,))[0]
        return bool(watched), bool(aged)

    def due(self, limit: int) -> list[str]:
        """Videos that were watched more often than at their verdict; dead letters are retried as such."""
        sql = (
            "SELECT video_id FROM due WHERE video_id NOT IN (SELECT video_id FROM dead_letters) "
            # its task will be answered at the views of then
            "AND video_id NOT IN (SELECT video_id FROM pending) ORDER BY video_id LIMIT ?"
        )
        return [name for (name,) in self.database.query(sql, (limit,))]

    def aged(self, now: float, limit: int) -> list[str]:
        """Videos whose verdict a rule on their age may change by ``now`` (unix time), longest due first."""
        sql = (
            "SELECT video_id FROM recheck WHERE at <= ? AND video_id NOT IN (SELECT video_id FROM pending) "
            "ORDER BY at, video_id LIMIT ?"
        )
        return [name for (name,) in self.database.query(sql, (now, limit))]

    def scores(
        self, issue: str, since: datetime | None = None, until: datetime | None = None, tenant: str = DEFAULT
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Key and scores of one issue, per video of a tenant that is live or was removed by a rule.

        ``since`` and ``until`` (not included) bound the time of the verdict.
        """
        for video_id, value in self.verdicts("value", (), since, until, tenant, _PAGE):
            found = served.value_of(self.database, value, video_id).get("scores", {}).get(issue)
            if found is not None:
                yield str(video_id), found

    def verdicts(
        self,
        columns: str,
        parameters: Sequence[Any],
        since: datetime | None,
        until: datetime | None,
        tenant: str,
        page: int,
    ) -> Iterator[tuple[Any, ...]]:
        """Key and ``columns`` (SQL that takes ``parameters``) of the entries that ``scores`` is about, by key.

        They come page by page: the stored values of a whole index are gigabytes, and writers are not held up.
        """
        low = "" if since is None else since.astimezone(UTC).isoformat()
        high = "9999" if until is None else until.astimezone(UTC).isoformat()
        mine, values = within(tenant, "v.video_id")
        sql = (
            f"SELECT v.video_id, {columns} FROM {ENTRY_OF_VIDEO} "  # noqa: S608
            "WHERE v.video_id > ? AND e.state != 'deleted' AND coalesce(e.decided_at, '') >= ? "
            f"AND coalesce(e.decided_at, '') < ? AND {mine} ORDER BY v.video_id LIMIT ?"
        )
        after = ""
        while rows := self.database.query(sql, (*parameters, after, low, high, *values, page)):
            after = str(rows[-1][0])
            yield from rows

    def dead_letters(self, tenant: str | None = None) -> list[DeadLetter]:
        """Videos, of one tenant or of all, whose newest event could not be scored, oldest failure first."""
        mine, values = _of(tenant)
        rows = self.database.query(
            "SELECT video_id, offset, source_version, uri, reason, failed_at, held FROM dead_letters "  # noqa: S608
            f"WHERE {mine} ORDER BY offset, video_id",
            values,
        )
        return [
            DeadLetter(split(video_id)[1], offset, version, uri, reason, failed_at, bool(held), tenant_of(video_id))
            for video_id, offset, version, uri, reason, failed_at, held in rows
        ]

    def drop_dead_letters(self, video_ids: Iterable[str]) -> None:
        """Forget that these videos, by their keys, could not be scored."""
        with self.database.transaction() as connection:
            connection.executemany("DELETE FROM dead_letters WHERE video_id = ?", [(one,) for one in video_ids])

    def states(self, tenant: str | None = None) -> dict[str, int]:
        """Count entries per state, as readers see it, of one tenant or of all."""
        mine, values = _of(tenant)
        sql = f"SELECT state, count(*) FROM served WHERE {mine} GROUP BY state ORDER BY state"  # noqa: S608
        return dict(self.database.query(sql, values))

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
def open_index(place: Path | str, create: bool = True) -> Iterator[IndexStore]:
    """Open the index in a SQLite file, or in PostgreSQL where ``place`` is a URL.

    Raises:
        DataError: see ``open_database`` and ``open_postgres``.
    """
    opened = open_database(place, SCHEMA, create) if isinstance(place, Path) else _postgres(place)
    with opened as database:
        yield IndexStore(database)


def _postgres(url: str) -> AbstractContextManager[Database]:
    from coefvq.vmp.postgres import open_postgres

    return open_postgres(url, SCHEMA)


def _of(tenant: str | None) -> tuple[str, tuple[str, ...]]:
    return ("1 = 1", ()) if tenant is None else within(tenant, "video_id")
