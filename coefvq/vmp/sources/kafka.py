"""A Kafka topic as a stream: a thread polls, the loop takes batches, and offsets are committed after the effect.

The thread does nothing but poll and commit, so that a slow batch never costs the membership of the group; no other
thread calls the consumer, since confluent-kafka lets one thread in at a time. It fills a bounded queue. Only where the
queue is full does it pause the partitions, and it goes on polling then: a pause throws away what librdkafka has
fetched, so it goes on at half the queue. Where each partition starts is asked of the index, not of Kafka
(``stores/positions.py``).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from coefvq.errors import CoefVQError, DataError
from coefvq.vmp.configuration import KafkaSource
from coefvq.vmp.loop import Stop
from coefvq.vmp.records import Event
from coefvq.vmp.sources.batches import Batch, Poison, Span, place
from coefvq.vmp.sources.kafka_client import (
    ANSWER_SECONDS,
    FATAL,
    Reports,
    client_settings,
    explained,
    library,
    made,
    partitions,
    what_of,
)
from coefvq.vmp.sources.messages import Reading

#: the queue's bytes: messages may be large
_QUEUE_BYTES = 64 * 2**20
_POLL_SECONDS = 0.1
_CHUNK = 100
#: a group that is forming, or taking over from a member that died
_ASSIGN_SECONDS = 120.0

#: partitions → the offset that each goes on from; it is called in the thread that polls
Positions = Callable[[Sequence[int]], Mapping[int, int]]


def consumer_settings(source: KafkaSource, reports: Reports) -> dict[str, Any]:
    """Settings of a member of the group.

    Raises:
        ConfigError: the password's environment variable is not set.
    """
    return {
        "queued.max.messages.kbytes": 16 * 1024,
        **client_settings(source, reports),
        "group.id": source.group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # where to start is said per partition; what is gone is an error, never a silent jump
        "auto.offset.reset": "error",
        "partition.assignment.strategy": "cooperative-sticky",
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "max.poll.interval.ms": round(source.max_poll_interval * 1000),
        "session.timeout.ms": round(source.session_timeout * 1000),
        # with as long a pause between two as a session lasts, each session would end
        "heartbeat.interval.ms": round(min(3.0, source.session_timeout / 3) * 1000),
    }


@dataclass
class _Shared:
    """What the polling thread and the loop share, under one lock."""

    queue: deque[Any] = field(default_factory=deque)
    bytes: int = 0
    #: partition → offset up to which this member has settled; the partitions are those assigned now
    reached: dict[int, int | None] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    #: partition → offset to commit: its messages have taken effect
    settled: dict[int, int] = field(default_factory=dict)
    joined: bool = False
    #: when partitions came or went
    changed_at: float = 0.0
    error: CoefVQError | None = None


class KafkaStream:
    """The stream of a topic; use it as a context manager."""

    def __init__(
        self,
        source: KafkaSource,
        reading: Reading,
        start: Positions,
        *,
        stop: Stop,
        once: bool = False,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Make the consumer; it joins the group when the context is entered.

        Args:
            source: the topic and how it is read.
            reading: makes events of messages.
            start: where partitions go on.
            stop: ends a wait for messages.
            once: wait until messages come or all partitions, those of others too, are read to their ends.
            say: tells a person one line.

        Raises:
            ConfigError: a setting does not fit.
            DataError: no broker answers, or the topic is not there.
        """
        self._source, self._reading, self._start = source, reading, start
        self._stop, self._once, self._say = stop, once, say
        self._reports = Reports()
        self._kafka = library()
        self._consumer = made("Consumer", consumer_settings(source, self._reports))
        self._shared, self._changed = _Shared(), threading.Condition()
        self._closing, self._paused, self._all_paused = threading.Event(), False, False
        self._thread = threading.Thread(target=self._poll_until_closed, name="coefvq-kafka", daemon=True)
        self._partitions: frozenset[int] = frozenset()
        self._asking: Any = None
        self._in_hand: Batch | None = None
        self._said = ""

    @property
    def name(self) -> str:
        """The topic."""
        return self._source.topic

    def __enter__(self) -> Self:
        try:
            self._partitions = frozenset(partitions(self._consumer, self._source, self._reports))
        except CoefVQError:
            self._consumer.close()
            raise
        self._consumer.subscribe(
            [self._source.topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()
        if self._asking is not None:
            self._asking.close()

    def take(self, limit: int) -> Batch | None:
        """Up to ``limit`` messages, without waiting for long but where ``once`` says so; the same until settled.

        Raises:
            DataError: the topic cannot be read on; the message says why.
        """
        if self._in_hand is not None:
            return self._in_hand
        messages = self._messages(limit)
        if messages:
            self._in_hand = self._batch(messages)
        return self._in_hand

    def settle(self) -> None:
        """The batch in hand has taken effect: its offsets may be committed."""
        assert self._in_hand is not None  # noqa: S101
        ends = {number: span.end for number, span in self._in_hand.spans.items()}
        self._in_hand = None
        with self._changed:
            for number in self._shared.reached.keys() & ends.keys():
                reached = max(ends[number], self._shared.reached[number] or 0)
                self._shared.reached[number] = self._shared.settled[number] = reached

    def _messages(self, limit: int) -> list[Any]:
        deadline = time.monotonic() + (_ASSIGN_SECONDS if self._once else _POLL_SECONDS)
        while True:
            with self._changed:
                if self._shared.error is not None:
                    raise self._shared.error
                if found := self._pop(limit):
                    return found
                joined = self._shared.joined
                # all that is ours was read to its end
                drained = joined and self._shared.ended >= set(self._shared.reached)
            if self._stop.is_set() or (self._once and drained and self._rest_is_read()):
                return []
            if time.monotonic() >= deadline and not (self._once and joined):
                break
            with self._changed:
                self._changed.wait(_POLL_SECONDS)
        if self._once:
            raise self._reports.tell(f"{what_of(self._source)}: no partition was assigned in {_ASSIGN_SECONDS:.0f} s")
        return []

    def _rest_is_read(self) -> bool:
        """Whether others have read the partitions that are not ours.

        Those of a member that died are given to us once its session is over. Whoever holds them after that is alive,
        and reads them.
        """
        with self._changed:
            rest = sorted(self._partitions - set(self._shared.reached))
            settled = time.monotonic() - self._shared.changed_at > 2 * self._source.session_timeout
        if not rest or settled:
            return True
        reached = self._start(rest)
        return all(reached.get(number, 0) >= self._watermarks(number)[1] for number in rest)

    def _watermarks(self, number: int) -> tuple[int, int]:
        """Begin and end of a partition, asked over a client of its own: the consumer is the other thread's."""
        if self._asking is None:
            self._asking = made("Consumer", consumer_settings(self._source, self._reports))
        try:
            found = self._asking.get_watermark_offsets(
                self._kafka.TopicPartition(self._source.topic, number), timeout=ANSWER_SECONDS
            )
        except self._kafka.KafkaException as error:
            raise self._reports.tell(what_of(self._source), error.args[0]) from error
        return int(found[0]), int(found[1])

    def _pop(self, limit: int) -> list[Any]:
        found: list[Any] = []
        while self._shared.queue and len(found) < limit:
            message = self._shared.queue.popleft()
            self._shared.bytes -= _size(message)
            if message.offset() >= (self._shared.reached.get(message.partition()) or 0):
                found.append(message)
        return found

    def _batch(self, messages: Sequence[Any]) -> Batch:
        events: list[Event] = []
        poison: list[Poison] = []
        spans: dict[int, Span] = {}
        for message in messages:
            number, offset = message.partition(), message.offset()
            made_of = self._event(message)
            (events if isinstance(made_of, Event) else poison).append(made_of)  # type: ignore[arg-type]
            start = spans[number].start if number in spans else self._shared.reached.get(number)
            spans[number] = Span(start, offset + 1)
        return Batch(tuple(events), tuple(poison), spans)

    def _event(self, message: Any) -> Event | Poison:
        number, offset, headers = message.partition(), message.offset(), tuple(message.headers() or ())
        try:
            return self._reading.event(message.key(), message.value(), headers, place(number, offset))
        except DataError as error:
            kind, stamp = message.timestamp()
            produced = None if kind == self._kafka.TIMESTAMP_NOT_AVAILABLE else stamp / 1000
            return Poison(
                message.topic(), number, offset, str(error), message.key(), message.value(), headers, produced
            )

    # from here on: the thread that polls

    def _poll_until_closed(self) -> None:
        try:
            while not self._closing.is_set():
                self._receive(self._consumer.consume(_CHUNK, _POLL_SECONDS))
                self._commit()
                self._throttle()
                self._check_reports()
        except CoefVQError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001  # whatever ends this thread has to end the run
            self._fail(DataError(f"{what_of(self._source)}: {error}; run it again"))
        finally:
            self._commit()
            self._consumer.close()

    def _commit(self) -> None:
        """Commit what has taken effect, for Kafka's tools; if that fails nothing is lost, the index has it."""
        with self._changed:
            settled, self._shared.settled = self._shared.settled, {}
        topic = self._source.topic
        if settled:
            offsets = [self._kafka.TopicPartition(topic, number, end) for number, end in settled.items()]
            # without waiting: a coordinator that is away must not keep this thread from polling
            self._consumer.commit(offsets=offsets, asynchronous=True)

    def _fail(self, error: CoefVQError) -> None:
        with self._changed:
            self._shared.error = self._shared.error or error
            self._changed.notify_all()

    def _receive(self, messages: Sequence[Any]) -> None:
        with self._changed:
            for message in messages:
                error = message.error()
                if error is None:
                    self._shared.queue.append(message)
                    self._shared.bytes += _size(message)
                    self._shared.ended.discard(message.partition())
                elif error.code() == self._kafka.KafkaError._PARTITION_EOF:
                    self._shared.ended.add(message.partition())
                elif error.fatal() or error.name() in FATAL:
                    raise explained(what_of(self._source), error.name(), error.str())
                else:
                    self._tell(f"{what_of(self._source)}: {error.str()}; trying again")
            if messages:
                self._said = ""
                self._changed.notify_all()

    def _throttle(self) -> None:
        with self._changed:
            count, size = len(self._shared.queue), self._shared.bytes
        full = count >= self._source.queue or size >= _QUEUE_BYTES
        if full and not (self._paused and self._all_paused):
            self._consumer.pause(self._consumer.assignment())
            self._paused = self._all_paused = True
        elif self._paused and count <= self._source.queue // 2 and size <= _QUEUE_BYTES // 2:
            self._consumer.resume(self._consumer.assignment())
            self._paused = False

    def _check_reports(self) -> None:
        name = self._reports.fatal()
        if name is not None:
            raise explained(what_of(self._source), name, self._reports.heard[name])
        if self._reports.heard:
            self._tell(f"{what_of(self._source)}: {next(iter(self._reports.heard.values()))}; trying again")
            self._reports.heard.clear()

    def _tell(self, line: str) -> None:
        """Say it once, until messages come again."""
        if line != self._said:
            self._said = line
            self._say(line)

    def _assigned(self, consumer: Any, given: Sequence[Any]) -> None:
        """Begin each partition where the index stands."""
        try:
            reached = self._start([one.partition for one in given]) if given else {}
            for one in given:
                one.offset = self._checked_start(consumer, one, reached.get(one.partition))
        except CoefVQError as error:
            self._fail(error)
            return
        with self._changed:
            for one in given:
                self._shared.reached[one.partition] = reached.get(one.partition)
            self._shared.joined, self._shared.changed_at = True, time.monotonic()
            self._changed.notify_all()
        consumer.incremental_assign(given)
        # what was paused before stays so, what comes now is not
        self._all_paused = False

    def _checked_start(self, consumer: Any, one: Any, at: int | None) -> int:
        """Where to start.

        Raises:
            DataError: messages between the index and the topic are gone, or the topic is another one.
        """
        if at is None:
            return int(self._kafka.OFFSET_BEGINNING)
        try:
            low, high = consumer.get_watermark_offsets(one, timeout=ANSWER_SECONDS)
        except self._kafka.KafkaException as error:
            raise self._reports.tell(what_of(self._source), error.args[0]) from error
        what = f"{what_of(self._source)}, partition {one.partition}"
        if at > high:
            raise DataError(
                f"{what}: the index has read up to offset {at}, but the topic ends at {high}: it was made anew or cut; "
                "restore it, or start a new state"
            )
        if at < low:
            raise DataError(
                f"{what}: the index has read up to offset {at}, but the topic begins at {low} (retention): messages "
                "that were not read are gone; start a new state and publish again, and keep them longer"
            )
        return at

    def _revoked(self, consumer: Any, taken: Sequence[Any]) -> None:
        """Another member reads these on from what the index holds; a batch in hand meets the moved positions."""
        gone = {one.partition for one in taken}
        with self._changed:
            for number in gone:
                self._shared.reached.pop(number, None)
                self._shared.settled.pop(number, None)
            self._shared.ended -= gone
            self._shared.changed_at = time.monotonic()
            kept = [message for message in self._shared.queue if message.partition() not in gone]
            self._shared.queue.clear()
            self._shared.queue.extend(kept)
            self._shared.bytes = sum(map(_size, kept))
            self._changed.notify_all()


def _size(message: Any) -> int:
    return len(message.value() or b"") + len(message.key() or b"")
