"""A worker whose cable to PostgreSQL or Kafka is pulled within a batch: another one goes on, and it comes back late."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from coefvq.vmp.records import Event
from coefvq.vmp.state import open_state
from tests import kafka, network, postgres
from tests.feature_stores import free_port
from tests.reliability import link_child
from tests.reliability.test_kafka_faults import check, drained, steps
from tests.reliability.test_kafka_kill import Child, History, configure, end, finish, go_on, start, step_of
from tests.reliability.test_kafka_kill import expected_state as expected

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

VIDEOS = 120
EVENTS = int(os.environ.get("RELIABILITY_EVENTS", "1200"))
#: what a worker may grow by while it waits
MEMORY = 30 * 2**20


@pytest.fixture(scope="module")
def link() -> Iterator[network.Link]:
    with network.link() as made:
        yield made


def worker(state: Path, within: tuple[str, ...] = ()) -> Child:
    words = [*within, sys.executable, "-m", link_child.__name__, str(state)]
    with (state / "errors").open("ab") as errors:
        return subprocess.Popen(words, text=True, bufsize=1, cwd=Path(__file__).parents[2], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=errors)  # fmt: skip


def publish(state: Path, url: str) -> dict[str, Event]:
    """Two versions of each video, some deleted, and what has to be in the index."""
    (state / "state.yaml").write_text(f"index: {url}\n")
    names = [f"v{number}" for number in range(VIDEOS)]
    first = [Event(name, uri=f"/{name}", title=f"{name} 1", sha256="1") for name in names]
    second = [Event(name, "delete") if number % 5 == 0 else Event(name, uri=f"/{name}", title=f"{name} 2", sha256="2")
              for number, name in enumerate(names)]  # fmt: skip
    with open_state(state) as (log, _):
        log.publish(first)
        log.publish(second)
        return log.newest(names)


@pytest.mark.parametrize("step", ["BEGIN", "COMMIT"])
def test_a_worker_that_lost_postgresql(step: str, link: network.Link, tmp_path: Path) -> None:
    port, state = free_port(), tmp_path / "vmp"
    state.mkdir()
    with postgres.server(network.SERVICE, port) as local:
        url = postgres.schema_of(local, "link")
        options = url.partition("&options=")[2]
        far = f"postgresql://coefvq@{network.SERVICE}:{port}/postgres?options={options}"
        newest = publish(state, far)
        lost = worker(state, link.within)
        for _ in range(5):
            while step_of(lost) != step:
                go_on(lost)
            go_on(lost)
        while step_of(lost) != step:
            go_on(lost)
        before = psutil.Process(lost.pid).memory_info().rss
        link.pull()
        go_on(lost)  # its words reach nobody; at COMMIT it holds the lock of all writers
        other = worker(state)
        while step_of(other):
            go_on(other)
        end(other, killed=False)
        grown = psutil.Process(lost.pid).memory_info().rss - before
        assert lost.poll() is None, "it waits for the server"
        assert grown < MEMORY
        link.plug_in()
        while step_of(lost):
            go_on(lost)
        assert lost.stdin is not None
        assert lost.stdout is not None
        lost.stdin.close()
        lost.stdout.close()
        code, words = lost.wait(300), (state / "errors").read_text()
        # it goes on and finds that all is done; or the server ended its transaction, for others waited for its lock
        assert (code == 0) == (step == "BEGIN"), words
        assert ("DataError" in words) == (step == "COMMIT")
        with open_state(state, create=False) as (_, index):
            wrong = []
            for name, event in newest.items():
                entry, state_of = index.get(name), expected(event)
                shown = entry.state if entry is not None and entry.source_version == event.source_version else None
                if shown != state_of:
                    wrong.append(f"{name}: {shown}, expected {state_of}")
            assert wrong == []
            sql = "SELECT count(*), count(DISTINCT offset) FROM effects"
            assert index.database.query(sql) == [(2 * VIDEOS, 2 * VIDEOS)]


def test_a_worker_that_lost_kafka(link: network.Link, tmp_path: Path) -> None:
    port = kafka.free_port()
    settings = (f"listeners=BROKER://0.0.0.0:{port},CONTROLLER://127.0.0.1:{port + 1}",
                f"advertised.listeners=BROKER://{network.SERVICE}:{port}")  # fmt: skip
    with kafka.broker(tmp_path, *settings, port=port):
        address = f"{network.SERVICE}:{port}"
        topic = kafka.topic(address, 4)
        history = History(12, EVENTS)
        history.send(address, topic)
        config = configure(tmp_path, address, topic)
        lost = start(config, within=link.within)
        steps(lost, 3)
        link.pull()
        finish(config)  # its session ends, and another one takes its partitions over
        check(config, history)
        link.plug_in()
        drained(lost)
        check(config, history)
