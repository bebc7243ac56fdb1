"""A member of a Kafka consumer group: a thread that polls and commits, and the queue that it fills for the loop.

The thread does nothing else, so that a slow batch never costs the membership of the group; no other thread calls the
consumer, since confluent-kafka lets one thread in at a time. Where the queue is full it waits for the loop to empty
half of it. Only a loop that is slow makes it pause the partitions and go on polling: a pause throws away what
librdkafka has fetched. Where each partition starts is asked of the index, not of Kafka (``stores/positions.py``).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coefvq.errors import CoefVQError, DataError
from coefvq.vmp.configuration import KafkaSource
from coefvq.vmp.sources.kafka_client import (
    ANSWER_SECONDS,
    FATAL,
    Reports,
    consumer_settings,
    explained,
    library,
    made,
    partitions,
    what_of,
)

#: how long one poll waits
POLL_SECONDS = 0.1
_CHUNK = 100
#: how long a full queue may keep the thread from polling
_ROOM_SECONDS = 1.0
#: the queue's bytes: messages may be large
_QUEUE_BYTES = 64 * 2**20

#: partitions → the offset that each goes on from; it is called in the thread that polls
Positions = Callable[[Sequence[int]], Mapping[int, int]]


@dataclass
class Shared:
    """What the polling thread and the loop share, under one lock: that of ``changed``.

    ``limit`` is how many messages the queue holds before the thread stops to fill it.
    """

    limit: int
    changed: threading.Condition = field(default_factory=threading.Condition)
    #: messages with their sizes in bytes
    queue: deque[tuple[Any, int]] = field(default_factory=deque)
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

    def put(self, message: Any) -> None:
        """Append a message."""
        size = len(message.value() or b"") + len(message.key() or b"")
        self.queue.append((message, size))
        self.bytes += size

    def pop(self, limit: int) -> list[Any]:
        """Take up to ``limit`` messages that have not taken effect yet."""
        found: list[Any] = []
        while self.queue and len(found) < limit:
            message, size = self.queue.popleft()
            self.bytes -= size
            if message.offset() >= (self.reached.get(message.partition()) or 0):
                found.append(message)
        if self.has_room:
            self.changed.notify_all()
        return found

    @property
    def is_full(self) -> bool:
        """Whether no more messages should come."""
        return len(self.queue) >= self.limit or self.bytes >= _QUEUE_BYTES

    @property
    def has_room(self) -> bool:
        """Whether at least half of the queue is free."""
        return len(self.queue) <= self.limit // 2 and self.bytes <= _QUEUE_BYTES // 2

    def drop(self, numbers: Collection[int]) -> None:
        """Throw away the messages of these partitions."""
        kept = [(message, size) for message, size in self.queue if message.partition() not in numbers]
        self.queue.clear()
        self.queue.extend(kept)
        self.bytes = sum(size for _, size in kept)


class Member:
    """The member and its thread; what it received is in ``shared``."""

    def __init__(self, source: KafkaSource, start: Positions, reports: Reports, say: Callable[[str], None]) -> None:
        """Make the consumer; it is in the group from ``join`` to ``leave``.

        Args:
            source: the topic and how it is read.
            start: where partitions go on.
            reports: gets what the brokers report aside.
            say: tells a person one line.

        Raises:
            ConfigError: a setting does not fit.
        """
        self.shared = Shared(source.queue)
        self._source, self._start, self._reports, self._say = source, start, reports, say
        self._kafka = library()
        self._consumer = made("Consumer", consumer_settings(source, reports))
        self._closing, self._paused, self._all_paused = threading.Event(), False, False
        self._thread = threading.Thread(target=self._poll_until_closed, name="coefvq-kafka", daemon=True)
        self._said = ""

    def join(self) -> frozenset[int]:
        """Subscribe and start the thread; all partitions of the topic.

        Raises:
            DataError: no broker answers, or the topic is not there.
        """
        try:
            found = frozenset(partitions(self._consumer, self._source, self._reports))
        except CoefVQError:
            self._consumer.close()
            raise
        self._consumer.subscribe(
            [self._source.topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
        )
        self._thread.start()
        return found

    def leave(self) -> None:
        """Commit what is settled, leave the group and end the thread."""
        self._closing.set()
        with self.shared.changed:
            self.shared.changed.notify_all()
        self._thread.join()

    def _poll_until_closed(self) -> None:
        try:
            while not self._closing.is_set():
                self._receive(self._consumer.consume(_CHUNK, POLL_SECONDS))
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
        with self.shared.changed:
            settled, self.shared.settled = self.shared.settled, {}
        topic = self._source.topic
        if settled:
            offsets = [self._kafka.TopicPartition(topic, number, end) for number, end in settled.items()]
            # without waiting: a coordinator that is away must not keep this thread from polling
            self._consumer.commit(offsets=offsets, asynchronous=True)

    def _fail(self, error: CoefVQError) -> None:
        with self.shared.changed:
            self.shared.error = self.shared.error or error
            self.shared.changed.notify_all()

    def _receive(self, messages: Sequence[Any]) -> None:
        with self.shared.changed:
            for message in messages:
                error = message.error()
                if error is None:
                    self.shared.put(message)
                    if self.shared.ended:
                        self.shared.ended.discard(message.partition())
                elif error.code() == self._kafka.KafkaError._PARTITION_EOF:
                    self.shared.ended.add(message.partition())
                elif error.fatal() or error.name() in FATAL:
                    raise explained(what_of(self._source), error.name(), error.str())
                else:
                    self._tell(f"{what_of(self._source)}: {error.str()}; trying again")
            if messages:
                self._said = ""
                self.shared.changed.notify_all()

    def _throttle(self) -> None:
        shared = self.shared
        with shared.changed:
            if shared.is_full and not self._paused:
                # the group takes a thread that does not poll for dead after ``max_poll_interval``
                patience = min(_ROOM_SECONDS, self._source.max_poll_interval / 3)
                shared.changed.wait_for(lambda: shared.has_room or self._closing.is_set(), patience)
            full, has_room = shared.is_full, shared.has_room
        if full and not (self._paused and self._all_paused):
            self._consumer.pause(self._consumer.assignment())
            self._paused = self._all_paused = True
        elif self._paused and has_room:
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
        with self.shared.changed:
            for one in given:
                self.shared.reached[one.partition] = reached.get(one.partition)
            self.shared.joined, self.shared.changed_at = True, time.monotonic()
            self.shared.changed.notify_all()
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
        with self.shared.changed:
            for number in gone:
                self.shared.reached.pop(number, None)
                self.shared.settled.pop(number, None)
            self.shared.ended -= gone
            self.shared.changed_at = time.monotonic()
            self.shared.drop(gone)
            self.shared.changed.notify_all()
