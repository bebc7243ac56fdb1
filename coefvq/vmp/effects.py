"""What a batch writes into the index, within one transaction: entries, audit rows, tasks of the MLLM, dead letters.

An entry is only replaced by a newer version (``schema.WRITE_ENTRY``), so rows that are written twice or out of order
end alike. ``IndexStore`` (coefvq/vmp/index.py) opens the transaction and moves the consumer's offset in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from coefvq.vmp import feed, schema
from coefvq.vmp.database import Connection
from coefvq.vmp.epochs import check_fence
from coefvq.vmp.keys import tenant_of
from coefvq.vmp.pending import effective_threshold, write_task
from coefvq.vmp.records import BatchReport, SinkRow

#: tables with a row of few videos, which a newer verdict may end
_NOTES = ("overrides", "dead_letters", "pending", "recheck", "due")
_IDS_PER_QUERY = 64
_MARKS = ", ".join("?" * _IDS_PER_QUERY)


def apply_rows(connection: Connection, rows: Sequence[SinkRow], consumer: str) -> list[bool]:
    """Write all rows in the open transaction; which of them changed their entry.

    Raises:
        FencedError: a rollback withdrew a deployment that judged one of the rows.
    """
    if not rows:
        return []
    check_fence(connection, min(row.epoch for row in rows))
    tenants = dict.fromkeys(tenant_of(row.video_id) for row in rows)
    effective = {tenant: effective_threshold(connection, tenant) for tenant in tenants}
    notes = _notes(connection, rows)
    return [_apply_row(connection, row, consumer, effective[tenant_of(row.video_id)], notes) for row in rows]


def _notes(connection: Connection, rows: Sequence[SinkRow]) -> dict[str, set[str]]:
    """Per table of notes the videos of a batch that may have one: most have none, and nothing has to be ended there.

    A video that comes twice may get a note from its first row. Call it under the writers' lock.
    """
    counts = Counter(row.video_id for row in rows)
    twice, ids = {video_id for video_id, count in counts.items() if count > 1}, list(counts)
    found = {table: set(twice) for table in _NOTES}
    for start in range(0, len(ids), _IDS_PER_QUERY):
        part = ids[start : start + _IDS_PER_QUERY]
        # always as many parameters, so that it is one statement to the database
        values = part + [part[0]] * (_IDS_PER_QUERY - len(part))
        for table, videos in found.items():
            sql = f"SELECT video_id FROM {table} WHERE video_id IN ({_MARKS})"  # noqa: S608
            videos.update(video_id for (video_id,) in connection.execute(sql, values))
    return found


def _apply_row(
    connection: Connection, row: SinkRow, consumer: str, effective: float | None, notes: Mapping[str, Collection[str]]
) -> bool:
    """Write entry, audit row, MLLM task and dead letter of one event; True if the entry changed."""
    version = (row.video_id, row.source_version, row.epoch)
    connection.execute(schema.SEE_VIDEO, (row.video_id, row.source_version, row.views))
    ended = row.video_id in notes["overrides"] and _end_override(connection, row)
    changed = row.state is not None and _write_entry(connection, row)
    connection.execute(
        schema.WRITE_EFFECT,
        (consumer, row.offset, *version, row.rank, row.bundle_version, row.outcome, row.rule, changed, row.error,
         row.routes, effective, row.waited),
    )  # fmt: skip
    if row.error is not None:
        connection.execute(
            schema.WRITE_DEAD_LETTER,
            (row.video_id, row.offset, row.source_version, row.epoch, row.uri, row.error, row.degraded, row.views),
        )
    elif row.judged and row.task is None and row.video_id in notes["dead_letters"]:
        connection.execute(schema.SETTLE_DEAD_LETTER, version)
    if row.judged:
        _write_task(connection, row, row.video_id in notes["pending"])
        _write_recheck(connection, row, row.video_id in notes["recheck"])
    if row.video_id in notes["due"]:
        connection.execute(schema.END_DUE, (row.video_id,))
    connection.execute(schema.SET_DUE, (row.video_id,))
    if changed or ended:
        feed.mark(connection, [row.video_id])
    return changed


def _write_entry(connection: Connection, row: SinkRow) -> bool:
    cursor = connection.execute(
        schema.WRITE_ENTRY,
        (row.video_id, row.state, row.rule, row.source_version, row.epoch, row.rank, row.views, row.bundle_version,
         row.value, row.decided_at, row.held),
    )  # fmt: skip
    return cursor.rowcount == 1


def _end_override(connection: Connection, row: SinkRow) -> bool:
    return connection.execute(schema.END_OVERRIDE, (row.video_id, row.content, row.source_version)).rowcount > 0


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


def report_of(rows: Sequence[SinkRow], written: Sequence[bool], offset: int) -> BatchReport:
    """Count the outcomes of a batch that ended at ``offset``; ``written`` says which rows changed their entry."""
    outcomes = Counter(row.outcome for row in rows)
    return BatchReport(
        offset=offset,
        events=len(rows),
        live=outcomes["live"],
        removed=outcomes["removed"],
        ignored=outcomes["ignored"],
        dead=sum(row.error is not None for row in rows),
        stale=sum(row.state is not None and not new for row, new in zip(rows, written, strict=True)),
    )
