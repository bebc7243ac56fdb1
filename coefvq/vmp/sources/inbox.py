"""A stream as the loop's Source and Sink: rows, positions, contents and dead events are one transaction.

Only then is a batch acknowledged to the stream. A crash before that repeats the batch; a worker that lost a partition
to another one meanwhile finds that the positions moved, and stores nothing twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime

from coefvq.errors import DataError
from coefvq.vmp.database import Connection
from coefvq.vmp.index import IndexStore
from coefvq.vmp.records import BatchReport, Event, Known, SinkRow
from coefvq.vmp.sources.batches import Batch, Poison, Stream, partition_and_offset
from coefvq.vmp.stores import contents, poison, positions
from coefvq.vmp.stores.positions import OvertakenError

#: looks at positions that others move, before a run gives up
_ATTEMPTS = 10
#: a share of fewer messages says nothing
_LEAST = 50


@dataclass
class PoisonShare:
    """Stops a run whose messages are no events: a wrong topic or decoder would turn all of them into dead letters."""

    limit: float = 0.2
    window: int = 200
    _seen: deque[tuple[int, int]] = field(default_factory=deque, repr=False)

    def add(self, name: str, batch: Batch) -> None:
        """Count a batch before it is stored.

        Raises:
            DataError: more than ``limit`` of the last ``window`` messages are no events.
        """
        messages = len(batch.events) + len(batch.poison)
        if not messages:
            return
        self._seen.append((messages, len(batch.poison)))
        while len(self._seen) > 1 and sum(seen for seen, _ in self._seen) - self._seen[0][0] >= self.window:
            self._seen.popleft()
        total, bad = (sum(column) for column in zip(*self._seen, strict=True))
        if total >= min(_LEAST, self.window) and bad > self.limit * total:
            raise DataError(
                f"{name}: {bad} of the last {total} messages are no events (limit: {self.limit:.0%}), such as "
                f"{_example(batch.poison)}; this batch is not acknowledged: correct the producer, the decoder or the "
                "topic, or raise dead_letters.max_share, then run again"
            )


def _example(found: Sequence[Poison]) -> str:
    return (
        f"offset {found[-1].offset} of partition {found[-1].partition}: {found[-1].reason}" if found else "earlier ones"
    )


@dataclass
class Inbox:
    """The loop's Source and Sink over a stream and an index.

    ``forward`` gets dead events before they are stored, such as a producer of a dead-letter topic; it returns when they
    are safe, or raises. ``consumer`` is whose positions count, whatever the loop calls itself. ``on_poison`` hears of
    batches that hold no event at all.
    """

    stream: Stream
    index: IndexStore
    consumer: str
    now: Callable[[], datetime]
    share: PoisonShare = field(default_factory=PoisonShare)
    forward: Callable[[Sequence[Poison]], None] = lambda found: None
    on_poison: Callable[[BatchReport], None] = lambda report: None
    _batch: Batch | None = None

    def poll(self, after: int, max_n: int) -> list[Event]:
        """Events of the next batch; ``after`` is not looked at, positions are kept per partition."""
        while (batch := self.stream.take(max_n)) is not None:
            if batch is not self._batch:
                self.share.add(self.stream.name, batch)
                self._batch = batch
            if batch.events:
                return list(batch.events)
            report = self.apply([], self.consumer, 0)
            if batch.poison:
                self.on_poison(report)
        return []

    def committed(self, consumer: str) -> int:
        """Nothing: see ``poll``."""
        return 0

    def known(self, video_ids: Iterable[str]) -> dict[str, Known]:
        """What the index knows of each video."""
        return self.index.known(video_ids)

    def apply(self, rows: Sequence[SinkRow], consumer: str, offset: int) -> BatchReport:
        """Store the rows of the batch that ``poll`` gave, then acknowledge it.

        Raises:
            FencedError: as ``IndexStore.apply``; the batch will be polled again.
            DataError: dead events cannot be forwarded, or the index was replaced meanwhile.
        """
        batch = self._batch
        assert batch is not None  # noqa: S101
        if batch.poison:
            self.forward(batch.poison)
        report = self._stored(batch, rows)
        self._batch = None
        self.stream.settle()
        return report

    def _stored(self, batch: Batch, rows: Sequence[SinkRow]) -> BatchReport:
        # a partition has one reader, so the index stands where the batch begins; the transaction looks all the same
        if all(span.start and span.mark is None for span in batch.spans.values()):
            starts = {number: span.start or 0 for number, span in batch.spans.items()}
            with suppress(OvertakenError):
                return self._store(batch, rows, starts)
        for _ in range(_ATTEMPTS):
            with suppress(OvertakenError):
                return self._store_what_is_new(batch, rows)
        raise DataError(f"{self.stream.name}: {_ATTEMPTS} times another worker was faster; run this one again")

    def _store_what_is_new(self, batch: Batch, rows: Sequence[SinkRow]) -> BatchReport:
        with self.index.database.reading() as connection:
            reached = positions.read(connection, self.consumer, self.stream.name, batch.spans)
        positions.check_no_gap(self.stream.name, batch.spans, reached)
        return self._store(batch, rows, reached)

    def _store(self, batch: Batch, rows: Sequence[SinkRow], reached: Mapping[int, int]) -> BatchReport:
        """One transaction over what nobody stored before, where the index has read up to ``reached``.

        Raises:
            OvertakenError: it has not, or not any more.
        """
        name, consumer = self.stream.name, self.consumer
        first = {number: span.first_new(reached.get(number, 0)) for number, span in batch.spans.items()}
        spans = {number: span for number, span in batch.spans.items() if first[number] < span.end}
        expected = {number: at for number, at in reached.items() if number in spans}

        def is_new(partition: int, offset: int) -> bool:
            return offset >= first[partition]

        fresh, events, dead = rows, batch.events, batch.poison
        if any(first[number] != span.start for number, span in batch.spans.items()):
            fresh = [row for row in rows if is_new(*partition_and_offset(row.offset))]
            events = tuple(event for event in batch.events if is_new(*partition_and_offset(event.offset)))
            dead = tuple(one for one in batch.poison if is_new(one.partition, one.offset))

        def also(connection: Connection, written: Sequence[bool]) -> None:
            positions.advance(connection, consumer, name, spans, expected)
            contents.write(connection, events)
            if dead:
                poison.write(connection, dead, self.now())

        report = self.index.revise(fresh, consumer, also=also)
        return replace(report, offset=0, events=report.events + len(dead), dead=report.dead + len(dead))
