"""Two loops over one topic: the platform's, and a bare consumer that upserts a row per message.

Each runs alone: a consumer fetches ahead in threads of its own, so in turns the one that waits would have its messages
fetched in the other's time.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.vmp_loops import BATCH, CHUNK, OFFSET, UPSERT, Stores, null
from coefvq.vmp import loop
from coefvq.vmp.configuration import Configuration, KafkaSource, Store
from coefvq.vmp.database import Database
from coefvq.vmp.deployment import Deployment
from coefvq.vmp.index import IndexStore, open_index
from coefvq.vmp.records import Event
from coefvq.vmp.sources.engines import open_kafka
from coefvq.vmp.sources.inbox import Inbox
from coefvq.vmp.sources.kafka_producer import publish
from coefvq.vmp.stores.tables import make_tables
from tests import kafka
from tests.vmp_world import NOW, FixedDeployment, deployment


@dataclass
class UpTo:
    """The inbox until a turn has read so many events."""

    inbox: Inbox
    left: int

    def poll(self, after: int, max_n: int) -> list[Event]:
        """The next events, however long they take; none at the end of the turn."""
        found: list[Event] = []
        while self.left and not found:
            found = self.inbox.poll(after, min(max_n, self.left))
        self.left -= len(found)
        return found


@contextmanager
def filled_topic(folder: Path, events: int) -> Iterator[tuple[str, KafkaSource]]:
    """What the broker is, and a source over a topic of one partition with so many events."""
    is_real = kafka.is_there()
    with kafka.apache(folder) if is_real else kafka.mock() as address:
        source = kafka.source(address, kafka.topic(address, 1), folder)
        # a file that is missing would be looked for in every spelling of its name
        (folder / "clip.mp4").touch()
        publish(source, (Event(f"v{number}", uri="clip.mp4", title=f"title {number}", views=number % 900,
                               source_version=1) for number in range(events)))  # fmt: skip
        yield "Apache Kafka" if is_real else "librdkafka's mock", source


@contextmanager
def platform_inbox(source: KafkaSource, folder: Path, index: IndexStore) -> Iterator[Inbox]:
    """The inbox as `coefvq vmp run --config` opens it; ``folder`` holds the index."""
    make_tables(index.database)
    configuration = Configuration(source=source, store=Store(state=folder))
    with open_kafka(configuration, source, index, stop=threading.Event(), once=False, say=lambda line: None,
                    on_poison=lambda report: None) as inbox:  # fmt: skip
        yield inbox


def run(inbox: Inbox, used: Deployment, count: int) -> None:
    """A turn of the platform."""
    loop.run(UpTo(inbox, count), FixedDeployment(used), inbox, stop=threading.Event(), on_batch=lambda report: None,
             batch_size=BATCH, once=True, clock=lambda: NOW)  # fmt: skip


@contextmanager
def bare_consumer(source: KafkaSource) -> Iterator[Any]:
    """A plain consumer with a group of its own."""
    from confluent_kafka import Consumer

    consumer = Consumer({"bootstrap.servers": ",".join(source.brokers), "group.id": f"bare-{source.group}",
                         "enable.auto.commit": False, "auto.offset.reset": "earliest"})  # fmt: skip
    consumer.subscribe([source.topic])
    try:
        yield consumer
    finally:
        consumer.close()


def run_bare(consumer: Any, database: Database, count: int) -> None:
    """A turn of the bare loop: a transaction per batch, then the commit of its offsets."""
    while count > 0:
        messages = [one for one in consumer.consume(min(BATCH, count), 1.0) if one.error() is None]
        if not messages:
            continue
        with database.transaction() as connection:
            for message in messages:
                event = json.loads(message.value())
                value = json.dumps({name: event[name] for name in ("uri", "title", "views")})
                connection.execute(UPSERT, (event["video_id"], event["source_version"], value))
            connection.execute(OFFSET, (messages[-1].offset() + 1,))
        consumer.commit(asynchronous=True)
        count -= len(messages)


def platform_alone(source: KafkaSource, where: Stores, name: str, count: int) -> tuple[float, float]:
    """Wall and own CPU seconds of the platform over a topic of so many events, without its first ``CHUNK``."""
    state, used = where.folder / name, deployment(null)
    state.mkdir()
    place = state / "index.sqlite" if where.url is None else where.place(name)
    with open_index(place) as index:
        if isinstance(place, str):
            (state / "state.yaml").write_text(f"index: {place}\n")
        with platform_inbox(source, state, index) as inbox:
            spent = _after_warm_up(lambda events: run(inbox, used, events), count)
        assert sum(index.states().values()) == count  # noqa: S101
    return spent


def bare_alone(source: KafkaSource, where: Stores, name: str, count: int) -> tuple[float, float]:
    """The same of the bare consumer."""
    with where.bare(name) as database, bare_consumer(source) as consumer:
        return _after_warm_up(lambda events: run_bare(consumer, database, events), count)


def _after_warm_up(drain: Callable[[int], None], count: int) -> tuple[float, float]:
    drain(CHUNK)  # a group is formed, files are opened
    wall, own = time.perf_counter(), time.process_time()
    drain(count - CHUNK)
    return time.perf_counter() - wall, time.process_time() - own
