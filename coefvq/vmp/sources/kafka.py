"""A Kafka topic as a stream: the loop takes batches of what a member of the group received.

A batch's offsets are committed after its effect. The member's thread polls meanwhile
(coefvq/vmp/sources/kafka_member.py); all that is here runs in the loop's thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Self

from coefvq.errors import DataError
from coefvq.vmp.configuration import KafkaSource
from coefvq.vmp.loop import Stop
from coefvq.vmp.records import Event
from coefvq.vmp.sources.batches import Batch, Poison, Span, place
from coefvq.vmp.sources.kafka_client import ANSWER_SECONDS, Reports, consumer_settings, library, made, what_of
from coefvq.vmp.sources.kafka_member import POLL_SECONDS, Member, Positions
from coefvq.vmp.sources.messages import Reading

#: a group that is forming, or taking over from a member that died
_ASSIGN_SECONDS = 120.0


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
        self._stop, self._once = stop, once
        self._reports = Reports()
        self._kafka = library()
        self._member = Member(source, start, self._reports, say)
        self._shared = self._member.shared
        self._partitions: frozenset[int] = frozenset()
        self._asking: Any = None
        self._in_hand: Batch | None = None

    @property
    def name(self) -> str:
        """The topic."""
        return self._source.topic

    def __enter__(self) -> Self:
        self._partitions = self._member.join()
        return self

    def __exit__(self, *_: object) -> None:
        self._member.leave()
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
        with self._shared.changed:
            for number in self._shared.reached.keys() & ends.keys():
                reached = max(ends[number], self._shared.reached[number] or 0)
                self._shared.reached[number] = self._shared.settled[number] = reached

    def _messages(self, limit: int) -> list[Any]:
        deadline = time.monotonic() + (_ASSIGN_SECONDS if self._once else POLL_SECONDS)
        while True:
            with self._shared.changed:
                if self._shared.error is not None:
                    raise self._shared.error
                if found := self._shared.pop(limit):
                    return found
                joined = self._shared.joined
                # all that is ours was read to its end
                drained = joined and self._shared.ended >= set(self._shared.reached)
            if self._stop.is_set() or (self._once and drained and self._rest_is_read()):
                return []
            if time.monotonic() >= deadline and not (self._once and joined):
                break
            with self._shared.changed:
                self._shared.changed.wait(POLL_SECONDS)
        if self._once:
            raise self._reports.tell(f"{what_of(self._source)}: no partition was assigned in {_ASSIGN_SECONDS:.0f} s")
        return []

    def _rest_is_read(self) -> bool:
        """Whether others have read the partitions that are not ours.

        Those of a member that died are given to us once its session is over. Whoever holds them after that is alive,
        and reads them.
        """
        with self._shared.changed:
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

    def _batch(self, messages: Sequence[Any]) -> Batch:
        events: list[Event] = []
        poison: list[Poison] = []
        starts: dict[int, int | None] = {}
        ends: dict[int, int] = {}
        for message in messages:
            number, offset = message.partition(), message.offset()
            made_of = self._event(message, number, offset)
            (events if isinstance(made_of, Event) else poison).append(made_of)  # type: ignore[arg-type]
            if number not in starts:
                starts[number] = self._shared.reached.get(number)
            ends[number] = offset + 1
        return Batch(tuple(events), tuple(poison), {number: Span(starts[number], end) for number, end in ends.items()})

    def _event(self, message: Any, number: int, offset: int) -> Event | Poison:
        headers = tuple(message.headers() or ())
        try:
            return self._reading.event(message.key(), message.value(), headers, place(number, offset))
        except DataError as error:
            kind, stamp = message.timestamp()
            produced = None if kind == self._kafka.TIMESTAMP_NOT_AVAILABLE else stamp / 1000
            return Poison(
                message.topic(), number, offset, str(error), message.key(), message.value(), headers, produced
            )
