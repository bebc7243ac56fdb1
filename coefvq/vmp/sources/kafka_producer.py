"""What is written to Kafka: events that are published, dead events that go on to a topic, replays of these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coefvq.errors import DataError
from coefvq.redaction import redact
from coefvq.vmp.configuration import KafkaSource
from coefvq.vmp.keys import shown
from coefvq.vmp.records import Event
from coefvq.vmp.sources.batches import Poison
from coefvq.vmp.sources.kafka_client import Reports, client_settings, explained, library, made, partitions
from coefvq.vmp.sources.messages import Headers, encode, message_key

#: seconds in which a message has to reach the brokers
DELIVERY_SECONDS = 30.0


@dataclass
class Outbox:
    """An idempotent producer; ``finish`` says whether all arrived."""

    source: KafkaSource
    delivery_seconds: float = DELIVERY_SECONDS
    _reports: Reports = field(default_factory=Reports, repr=False)
    _failed: list[tuple[str, str]] = field(default_factory=list, repr=False)
    _producer: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._producer = made(
            "Producer",
            {
                "linger.ms": 20,
                **client_settings(self.source, self._reports),
                "enable.idempotence": True,
                "acks": "all",
                # the default of Java's clients: all writers put a key into the same partition
                "partitioner": "murmur2_random",
                "delivery.timeout.ms": round(self.delivery_seconds * 1000),
            },
        )

    def check(self, topic: str | None = None) -> int:
        """How many partitions the topic has.

        Raises:
            DataError: no broker answers, or there is no such topic.
        """
        return len(partitions(self._producer, self.source, self._reports, topic))

    def send(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers = ()) -> None:
        """Hand a message over; it waits while too many are under way.

        Raises:
            DataError: it is too large, or an earlier one did not arrive.
        """
        kafka = library()
        while True:
            self._raise_failure(topic)
            try:
                self._producer.produce(topic, value, key, headers=list(headers), on_delivery=self._delivered)
            except BufferError:
                self._producer.poll(1.0)
            except kafka.KafkaException as error:
                raise explained(f"topic {topic}, key {key!r:.80}", error.args[0].name(), error.args[0].str()) from error
            else:
                self._producer.poll(0)
                return

    def finish(self, topic: str) -> None:
        """Wait until all arrived.

        Raises:
            DataError: one did not.
        """
        left = self._producer.flush(self.delivery_seconds + 5.0)
        self._raise_failure(topic)
        if left:
            raise self._reports.tell(f"topic {topic} on {','.join(self.source.brokers)}: {left} messages not delivered")

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self._failed.append((error.name(), error.str()))

    def _raise_failure(self, topic: str) -> None:
        if self._failed:
            raise explained(f"topic {topic} on {','.join(self.source.brokers)}", *self._failed[0])


def publish(source: KafkaSource, events: Iterable[Event]) -> int:
    """Send events of a table to the source's topic; how many.

    Raises:
        DataError: an event has no version or a file outside the root, or a message does not arrive. Those before may
            have arrived; sending them again changes nothing.
    """
    outbox, root, sent = Outbox(source), source.root.resolve(), 0
    outbox.check()
    for event in events:
        value = encode(event, _below(event, root))
        if event.source_version < 1:
            raise DataError(
                f"video '{shown(event.video_id)}': no source_version; a topic needs a column source_version, a whole "
                "number that grows with each change of the video"
            )
        if len(value) > source.max_bytes:
            raise DataError(f"video '{shown(event.video_id)}': {len(value)} bytes, at most {source.max_bytes} are "
                            "read; shorten its texts or raise source.max_bytes")  # fmt: skip
        outbox.send(source.topic, message_key(event.video_id), value)
        sent += 1
    outbox.finish(source.topic)
    return sent


def _below(event: Event, root: Path) -> str:
    if not event.uri:
        return ""
    path = Path(event.uri)
    if path.is_absolute() and not path.is_relative_to(root):
        raise DataError(f"video '{shown(event.video_id)}': {redact(event.uri)} is not below source.root, {root}")
    return str(path.relative_to(root) if path.is_absolute() else path)


@dataclass(frozen=True)
class DeadLetterTopic:
    """A topic that gets each dead event with its place and reason, before the batch is acknowledged."""

    outbox: Outbox
    topic: str

    def __call__(self, found: Sequence[Poison]) -> None:
        """Send and wait.

        Raises:
            DataError: one does not arrive; the run stops, and reads the batch again later.
        """
        for one in found:
            place = f"{one.topic}/{one.partition}/{one.offset}".encode()
            added = (("coefvq.place", place), ("coefvq.reason", one.reason.encode()))
            self.outbox.send(self.topic, one.key, one.value, (*one.headers, *added))
        self.outbox.finish(self.topic)


def replay(outbox: Outbox, found: Sequence[Poison]) -> None:
    """Send messages to the topic that they came from, byte for byte: an event keeps the version that it states.

    Raises:
        DataError: one does not arrive.
    """
    for one in found:
        outbox.send(one.topic, one.key, one.value, one.headers)
    for topic in {one.topic for one in found}:
        outbox.finish(topic)
