"""A real Apache Kafka that fails, and workers that freeze, come and go: the index is an oracle's, nothing comes twice.

``RELIABILITY_EVENTS`` sets the size, as in test_kafka_kill.py.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coefvq.errors import DataError
from coefvq.records import VideoInput
from coefvq.vmp import loop
from coefvq.vmp.configuration import Configuration, Store
from coefvq.vmp.sources.engines import open_kafka
from coefvq.vmp.sources.kafka_producer import DeadLetterTopic, Outbox
from coefvq.vmp.state import open_state
from coefvq.vmp.stores import poison
from coefvq.vmp.stores.tables import make_tables
from tests import kafka
from tests.reliability.test_kafka_kill import (
    Child,
    History,
    configure,
    differences,
    doubles,
    end,
    finish,
    go_on,
    start,
    step_of,
)
from tests.reliability.vmp_child import scorer
from tests.vmp_world import NOW, fixed

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

EVENTS = int(os.environ.get("RELIABILITY_EVENTS", "1200"))
ROUNDS = 6


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kafka.Broker]:
    with kafka.broker(tmp_path_factory.mktemp("kafka")) as running:
        yield running


def check(config: Path, history: History) -> None:
    with open_state(config.parent / "vmp", create=False) as (_, index):
        assert differences(index, history) == []
        assert doubles(index) == 0
        assert index.database.query("SELECT count(*) FROM effects") == [(len(history.messages) - history.poison,)]
        assert poison.count(index.database) == history.poison > 0


def steps(process: Child, count: int) -> None:
    """Let a worker go on to its next ``count`` steps; it waits at the last one."""
    for number in range(count):
        assert step_of(process) in ("taken", "stored")
        if number + 1 < count:
            go_on(process)


def drained(process: Child) -> None:
    """Let a worker that waits at a step go on to its end."""
    go_on(process)
    while step_of(process):
        go_on(process)
    end(process, killed=False)


def test_a_broker_that_is_killed_and_started_again(broker: kafka.Broker, tmp_path: Path) -> None:
    topic = kafka.topic(broker.address, 4)
    history, half = History(7, EVENTS), EVENTS // 2
    history.send(broker.address, topic, slice(half))
    config = configure(tmp_path, broker.address, topic)
    worker = start(config)
    steps(worker, 3)
    broker.run("kill")
    go_on(worker)
    # what was fetched is worked on without a broker
    steps(worker, 1)
    broker.run("start")
    history.send(broker.address, topic, slice(half, None))
    drained(worker)
    finish(config)
    check(config, history)


def test_a_worker_that_freezes_past_its_session_stores_nothing_twice(broker: kafka.Broker, tmp_path: Path) -> None:
    topic = kafka.topic(broker.address, 4)
    history = History(9, EVENTS)
    history.send(broker.address, topic)
    config = configure(tmp_path, broker.address, topic)
    frozen = start(config)
    steps(frozen, 1)  # it has a batch in hand
    frozen.send_signal(signal.SIGSTOP)
    finish(config)  # another one takes its partitions over, and reads all
    check(config, history)
    frozen.send_signal(signal.SIGCONT)
    drained(frozen)
    check(config, history)


def test_members_that_come_and_go_lose_nothing(broker: kafka.Broker, tmp_path: Path) -> None:
    topic = kafka.topic(broker.address, 4)
    history = History(10, EVENTS)
    history.send(broker.address, topic)
    config = configure(tmp_path, broker.address, topic)
    rng = random.Random(3)
    stays = start(config)
    steps(stays, 1)
    for _ in range(ROUNDS):
        guest = start(config)
        if rng.random() < 0.3:  # before it is a member
            guest.terminate()
        for _ in range(rng.randrange(1, 3)):
            go_on(stays)
            steps(stays, 1)
        guest.terminate()
        leave(guest)
    drained(stays)
    finish(config)
    check(config, history)


def leave(process: Child) -> None:
    """A worker that was asked to end, wherever it is: at its start, at a step, or waiting for a partition."""
    while step_of(process):
        go_on(process)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdout.close()
    # asked before it listens to signals, it ends by the signal itself
    assert process.wait(120) in (0, -signal.SIGTERM)


def test_dead_letters_that_cannot_be_sent_stop_the_run_and_nothing_is_passed_over(
    broker: kafka.Broker, tmp_path: Path
) -> None:
    source = kafka.source(broker.address, kafka.topic(broker.address, 1), tmp_path)
    dead = kafka.topic(broker.address, 4)
    history = History(11, 60)
    kafka.send(broker.address, source.topic, b"{bad", key=b"default/poison")  # the first batch has it
    history.send(broker.address, source.topic)
    configuration = Configuration(source=source, store=Store(state=tmp_path / "vmp"))

    def run(before_store: Callable[[], None]) -> None:
        """A run whose copies of dead events have five seconds to arrive."""
        with (
            open_state(tmp_path / "vmp") as (_, index),
            open_kafka(configuration, source, index, stop=loop.SignalStop(), once=True, say=print,
                       on_poison=lambda report: None) as inbox,
        ):  # fmt: skip
            inbox.forward = DeadLetterTopic(Outbox(source, delivery_seconds=5.0), dead)

            def score(videos: list[VideoInput]) -> object:
                before_store()
                return scorer(videos)

            loop.run(inbox, fixed(score), inbox, stop=loop.SignalStop(), on_batch=lambda report: None, once=True,
                     batch_size=200, clock=lambda: NOW)  # fmt: skip

    with open_state(tmp_path / "vmp") as (_, index):
        make_tables(index.database)
    alive = [True]

    def kill() -> None:
        while alive:
            alive.pop()
            broker.run("kill")

    with pytest.raises(DataError, match=dead):
        run(kill)
    with open_state(tmp_path / "vmp", create=False) as (_, index):
        assert index.database.query("SELECT count(*) FROM effects") == [(0,)]
        assert (poison.count(index.database), index.database.query("SELECT * FROM stream_positions")) == (0, [])
    broker.run("start")
    run(lambda: None)
    with open_state(tmp_path / "vmp", create=False) as (_, index):
        assert differences(index, history) == []
        assert poison.count(index.database) == history.poison + 1
