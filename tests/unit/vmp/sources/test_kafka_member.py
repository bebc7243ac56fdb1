"""A full queue: the thread that polls waits for room, and pauses the partitions only where the loop is slow."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from coefvq.vmp.records import Event
from coefvq.vmp.sources import kafka_member
from coefvq.vmp.sources.engines import reading_of
from coefvq.vmp.sources.kafka import KafkaStream
from coefvq.vmp.sources.kafka_producer import publish
from tests import kafka

EVENTS = 300
LONG = 60.0


class Recorded:
    """A consumer that notes when its partitions are paused and go on."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self.paused, self.resumed = threading.Event(), threading.Event()

    def pause(self, given: Any) -> None:
        self._consumer.pause(given)
        self.paused.set()

    def resume(self, given: Any) -> None:
        self._consumer.resume(given)
        self.resumed.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)


@contextmanager
def filled(folder: Path) -> Iterator[tuple[KafkaStream, Recorded]]:
    """A stream over a topic that holds more events than the queue does."""
    with kafka.mock() as address:
        source = kafka.source(address, kafka.topic(address), folder, queue=50)
        publish(source, [Event(f"v{number}", uri="v.mp4", source_version=1) for number in range(EVENTS)])
        stream = KafkaStream(source, reading_of(source), lambda numbers: {}, stop=threading.Event(), once=True)
        recorded = Recorded(stream._member._consumer)
        stream._member._consumer = recorded
        with stream:
            yield stream, recorded


def read(stream: KafkaStream) -> set[str]:
    """The videos of all events."""
    found: set[str] = set()
    while (batch := stream.take(32)) is not None:
        found |= {event.video_id for event in batch.events}
        stream.settle()
    return found


def test_a_quick_loop_makes_room_and_nothing_is_paused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_member, "_ROOM_SECONDS", 3000.0)
    with filled(tmp_path) as (stream, recorded):
        assert len(read(stream)) == EVENTS
        assert not recorded.paused.is_set()


def test_a_slow_loop_pauses_the_partitions_and_they_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_member, "_ROOM_SECONDS", 0.0)
    with filled(tmp_path) as (stream, recorded):
        assert recorded.paused.wait(LONG)
        assert len(read(stream)) == EVENTS
        assert recorded.resumed.is_set()
