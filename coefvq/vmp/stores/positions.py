"""How far a consumer has read each partition of a stream, stored in the transaction of what it has read.

Kafka's own committed offsets follow behind, for its tools. Where the two differ, what stands here is right: an index
that was restored from an older copy reads on from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from coefvq.errors import DataError
from coefvq.vmp.database import Connection
from coefvq.vmp.sources.batches import Span

_WRITE = """
    INSERT INTO stream_positions (consumer, stream, partition, next) VALUES (?, ?, ?, ?)
    ON CONFLICT (consumer, stream, partition) DO UPDATE SET next = excluded.next
    WHERE excluded.next > stream_positions.next"""
_WRITE_MARK = """
    INSERT INTO stream_marks (consumer, stream, partition, mark) VALUES (?, ?, ?, ?)
    ON CONFLICT (consumer, stream, partition) DO UPDATE SET mark = excluded.mark"""


class OvertakenError(Exception):
    """Another worker has stored what this batch holds; look again at what is left of it."""


def read(connection: Connection, consumer: str, stream: str, partitions: Iterable[int] | None = None) -> dict[int, int]:
    """Partition → offset of the next message to read; partitions that were never read are left out."""
    rows = connection.execute(
        "SELECT partition, next FROM stream_positions WHERE consumer = ? AND stream = ?", (consumer, stream)
    ).fetchall()
    wanted = None if partitions is None else set(partitions)
    return {partition: at for partition, at in rows if wanted is None or partition in wanted}


def read_mark(connection: Connection, consumer: str, stream: str) -> tuple[int, str]:
    """The position of a table's one partition, and the mark that was stored with it; 0 and "" before the first."""
    # in this order: if another worker stores between the two, the position does not fit, and the batch is void
    reached = read(connection, consumer, stream).get(0, 0)
    row = connection.execute(
        "SELECT mark FROM stream_marks WHERE consumer = ? AND stream = ? AND partition = 0", (consumer, stream)
    ).fetchone()
    return reached, "" if row is None else str(row[0])


def advance(
    connection: Connection, consumer: str, stream: str, spans: Mapping[int, Span], expected: Mapping[int, int]
) -> None:
    """Store the ends of a batch, within its transaction.

    Raises:
        OvertakenError: the positions are not the ``expected`` ones any more.
    """
    if read(connection, consumer, stream, spans) != dict(expected):
        raise OvertakenError
    connection.executemany(_WRITE, [(consumer, stream, number, span.end) for number, span in spans.items()])
    for number, span in spans.items():
        if span.mark is not None:
            connection.execute(_WRITE_MARK, (consumer, stream, number, span.mark))


def check_no_gap(stream: str, spans: Mapping[int, Span], reached: Mapping[int, int]) -> None:
    """Refuse a batch that would leave messages out.

    Raises:
        DataError: the index has read less of a partition than this worker: it was replaced by an older copy.
    """
    for number, span in spans.items():
        if span.start is not None and reached.get(number, 0) < span.start:
            raise DataError(
                f"{stream} partition {number}: the index has read up to offset {reached.get(number, 0)}, this run up "
                f"to {span.start}: it was replaced meanwhile; start the run again, it reads on from the index"
            )
