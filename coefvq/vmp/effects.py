"""What a batch writes into the index, within one transaction: entries, audit rows, tasks of the MLLM, dead letters.

The rows are compared with what is stored (:mod:`coefvq.vmp.stored`), and each table gets its rows in one statement. An
entry is only replaced by a newer version, so rows that are written twice or out of order end alike. ``IndexStore``
(coefvq/vmp/index.py) opens the transaction and moves the consumer's offset in it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import compress
from operator import itemgetter
from typing import Any, NamedTuple

from coefvq.vmp import feed, schema, stored
from coefvq.vmp.database import Connection
from coefvq.vmp.epochs import check_fence
from coefvq.vmp.inserts import Insert, chosen
from coefvq.vmp.keys import tenant_of
from coefvq.vmp.log_rows import content_digest
from coefvq.vmp.pending import effective_threshold, write_task
from coefvq.vmp.records import BatchReport, SinkRow
from coefvq.vmp.stored import NOTHING, Look, Memory, Stored, compared


def _cells(*names: str) -> itemgetter[Any]:
    """Fields of a row by their places: attribute by attribute takes twice as long."""
    return itemgetter(*map(SinkRow._fields.index, names))


#: in the order of the columns
_ENTRY_OWN, _ENTRY_SHARED = _cells(*schema.WRITE_ENTRY.own[1:]), _cells(*schema.WRITE_ENTRY.shared)
_EFFECT_OWN, _EFFECT_SHARED = _cells(*schema.WRITE_EFFECT.own), _cells(*schema.EFFECT_OF_ROW)


class Applied(NamedTuple):
    """Which rows changed their entry; whether a verdict may be due now, and whether a task may wait for the MLLM."""

    written: list[bool]
    due: bool
    queued: bool


def apply_rows(connection: Connection, rows: Sequence[SinkRow], consumer: str, look: Look, memory: Memory) -> Applied:
    """Write all rows in the open transaction; ``memory`` may hold what was read of their videos.

    ``look`` was taken in this transaction, in which nothing is written yet.

    Raises:
        FencedError: a rollback withdrew a deployment that judged one of the rows.
    """
    if not rows:
        return Applied([], True, True)  # nobody looked
    check_fence(look.fence, min([row.epoch for row in rows]))
    tenants = dict.fromkeys([tenant_of(row.video_id) for row in rows])
    # where no task waits, all are served in time
    effective = {
        tenant: effective_threshold(connection, tenant) if "pending" in look.filled else None for tenant in tenants
    }
    parts: list[Applied] = []
    for part in _distinct(rows):
        parts.append(_apply(connection, part, consumer, effective, stored.look(connection) if parts else look, memory))
    # what an earlier part left, the last one has seen or written itself
    return Applied([new for part in parts for new in part.written], *parts[-1][1:])


def _distinct(rows: Sequence[SinkRow]) -> Iterator[list[SinkRow]]:
    """Cut where a video comes again: what its later row meets is what the earlier one left."""
    if len({row.video_id for row in rows}) == len(rows):
        yield list(rows)
        return
    part: dict[str, SinkRow] = {}
    for row in rows:
        if row.video_id in part:
            yield list(part.values())
            part = {}
        part[row.video_id] = row
    yield list(part.values())


def _columns(rows: Iterable[SinkRow]) -> Any:
    """A row whose fields are columns: column by column takes a third of the time of row by row."""
    return SinkRow._make(zip(*rows, strict=True))


def _apply(
    connection: Connection,
    rows: Sequence[SinkRow],
    consumer: str,
    effective: Mapping[str, float | None],
    look: Look,
    memory: Memory,
) -> Applied:
    """Write the rows of distinct videos into an index that reads as ``look`` says."""
    columns, change, filled = _columns(rows), look.change, look.filled
    ids = columns.video_id
    known, notes = memory.read(connection, ids), stored.notes(connection, ids, filled)
    noted = set().union(*notes.values())
    before = [known.get(video_id, NOTHING) for video_id in ids]
    ended = {row.video_id for row in rows if row.video_id in notes["overrides"] and _end_override(connection, row)}
    written, due = [], []
    seen: list[tuple[str, int, int | None, int | None]] = []
    for row, old in zip(rows, before, strict=True):
        most, new, is_due = compared(row, old)
        written.append(new)
        if new:
            change += 1
            seen.append((row.video_id, row.source_version, row.views, change))
        elif row.source_version > old.seen or most != old.views:
            seen.append((row.video_id, row.source_version, row.views, None))
        if is_due:
            due.append(row.video_id)
    schema.SEE_VIDEO.run(connection, seen)
    _end_entries(connection, compress(before, written))
    if change > look.change:
        _write_entries(connection, columns if all(written) else _columns(compress(rows, written)), look.change)
    for video_id, new in zip(ids, written, strict=True):
        if video_id in ended and not new:
            feed.mark(connection, video_id)  # it reads otherwise, although its verdict stands
    _write_effects(connection, columns, before, written, consumer, effective, look.at)
    rare = (columns.error, columns.task, columns.recheck_at)
    few = []
    if noted or any(column.count(None) < len(rows) for column in rare):
        few = [
            row
            for row in rows
            if row.error is not None or row.task is not None or row.recheck_at is not None or row.video_id in noted
        ]
    for row in few:
        _write_notes(connection, row, notes)
    _write_due(connection, due, notes["due"])
    return Applied(
        written,
        due=bool(due) or not filled.isdisjoint(("due", "recheck")) or any(row.recheck_at is not None for row in few),
        queued="pending" in filled or any(row.task is not None for row in few),
    )


def _end_entries(connection: Connection, replaced: Iterable[Stored]) -> None:
    gone = [old.change for old in replaced if old.change is not None]
    for condition, values in chosen("change", gone):
        connection.execute(schema.END_ENTRIES + condition, values)


def _write_entries(connection: Connection, columns: Any, change: int) -> None:
    """One entry each, at the numbers above ``change``."""
    own = (range(change + 1, change + 1 + len(columns.video_id)), *_ENTRY_OWN(columns))
    _write(connection, (schema.WRITE_ENTRY, schema.WRITE_MIXED_ENTRY), _ENTRY_SHARED(columns), own)


def _write_effects(
    connection: Connection,
    columns: Any,
    before: Sequence[Stored],
    written: Sequence[bool],
    consumer: str,
    effective: Mapping[str, float | None],
    at: str,
) -> None:
    """One audit row each, in the order of the rows."""
    errors, many = columns.error, len(written)
    if errors.count(None) < many:
        # why an overtaken event failed is not kept: its video may have been forgotten meanwhile
        errors = [None if old.seen > version else error
                  for error, version, old in zip(errors, columns.source_version, before, strict=True)]  # fmt: skip
    if len(effective) == 1:
        thresholds = [*effective.values()] * many
    else:
        thresholds = [effective[tenant_of(name)] for name in columns.video_id]
    of_batch = ([consumer] * many, [at] * many, [*map(int, written)], errors, thresholds)
    inserts = (schema.WRITE_EFFECT, schema.WRITE_MIXED_EFFECT)
    _write(connection, inserts, (*of_batch, *_EFFECT_SHARED(columns)), _EFFECT_OWN(columns))


def _write(
    connection: Connection,
    inserts: tuple[Insert, Insert],
    shared: Sequence[Sequence[Any]],
    own: Sequence[Sequence[Any]],
) -> None:
    """Write columns by the first statement where the ``shared`` ones hold one value each, else by the second."""
    if all(column.count(column[0]) == len(column) for column in shared):
        inserts[0].run(connection, list(zip(*own, strict=True)), [column[0] for column in shared])
    else:
        inserts[1].run(connection, list(zip(*shared, *own, strict=True)))


def _write_notes(connection: Connection, row: SinkRow, notes: Mapping[str, Collection[str]]) -> None:
    """Dead letter, MLLM task and time of the next look of one video: most have none."""
    if row.error is not None:
        connection.execute(
            schema.WRITE_DEAD_LETTER,
            (row.video_id, row.offset, row.source_version, row.epoch, row.uri, row.error, row.degraded, row.views),
        )
    elif row.judged and row.task is None and row.video_id in notes["dead_letters"]:
        connection.execute(schema.SETTLE_DEAD_LETTER, (row.video_id, row.source_version, row.epoch))
    if row.judged:
        _write_task(connection, row, row.video_id in notes["pending"])
        _write_recheck(connection, row, row.video_id in notes["recheck"])


def _write_due(connection: Connection, due: Sequence[str], noted: Collection[str]) -> None:
    schema.SET_DUE.run(connection, [(video_id,) for video_id in due if video_id not in noted])
    if noted:
        connection.executemany(schema.END_DUE, [(video_id,) for video_id in noted if video_id not in due])


def _end_override(connection: Connection, row: SinkRow) -> bool:
    content = row.content if isinstance(row.content, str) else content_digest(row.content)
    return connection.execute(schema.END_OVERRIDE, (row.video_id, content, row.source_version)).rowcount > 0


def _write_task(connection: Connection, row: SinkRow, waits: bool) -> None:
    """Store or end the MLLM's task, in the verdict's transaction; ``waits``: there may be one."""
    if waits:
        connection.execute(schema.CANCEL_TASK, (row.video_id, row.source_version))
    if row.task is not None:
        write_task(connection, row.task)
    elif row.final and waits:
        connection.execute(schema.END_TASK, (row.video_id, row.source_version, row.epoch, row.views))


def _write_recheck(connection: Connection, row: SinkRow, noted: bool) -> None:
    if row.recheck_at is None and noted:
        connection.execute(schema.END_RECHECK, (row.video_id, row.source_version))
    elif row.recheck_at is not None:
        connection.execute(schema.WRITE_RECHECK, (row.video_id, row.recheck_at, row.source_version))


def report_of(rows: Sequence[SinkRow], applied: Applied, offset: int) -> BatchReport:
    """Count the outcomes of a batch that ended at ``offset``."""
    outcomes, written = [row.outcome for row in rows], applied.written
    return BatchReport(
        offset=offset,
        events=len(rows),
        live=outcomes.count("live"),
        removed=outcomes.count("removed"),
        ignored=outcomes.count("ignored"),
        dead=len(rows) - [row.error for row in rows].count(None),
        stale=sum([row.state is not None for row, new in zip(rows, written, strict=True) if not new]),
        due=applied.due,
        queued=applied.queued,
    )
