"""kill -9 of workers on a real Apache Kafka: the index is an oracle's, poison is kept, nothing takes effect twice.

``RELIABILITY_EVENTS`` and ``RELIABILITY_KILLS`` set the size; `make reliability` takes 20,000 and 50.
"""

from __future__ import annotations

import os
import random
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from coefvq.records import VideoInput
from coefvq.vmp.index import IndexStore
from coefvq.vmp.records import Event
from coefvq.vmp.sources.messages import encode, message_key
from coefvq.vmp.state import open_state
from coefvq.vmp.stores import contents, poison
from tests import kafka
from tests.postgres import schema_of
from tests.redis_index import DURABLE, PREFIX, World, as_read, of_index, world
from tests.reliability import kafka_child
from tests.reliability.vmp_child import scorer

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

EVENTS = int(os.environ.get("RELIABILITY_EVENTS", "4000"))
KILLS = int(os.environ.get("RELIABILITY_KILLS", "8"))
PARTITIONS = 4
Child = subprocess.Popen[str]


class History:
    """A seeded mix of new, changed and deleted videos, in and out of order, some twice, and poison between them."""

    def __init__(self, seed: int, count: int) -> None:
        rng = random.Random(seed)
        newest: dict[str, int] = {}
        self.messages: list[tuple[bytes, bytes]] = []
        self.oracle: dict[str, Event] = {}
        self.poison = 0
        late: list[tuple[bytes, bytes]] = []
        while len(self.messages) < count:
            if rng.random() < 0.02:
                self.poison += 1
                self.messages.append((b"default/poison", rng.choice([b"{bad", b'{"schema": 9}', b"\xff\x00"])))
                continue
            name = f"v{rng.randrange(max(1, count // 8))}"
            newest[name] = newest.get(name, 0) + 1
            kind = "delete" if newest[name] > 1 and rng.random() < 0.1 else "upsert"
            title = f"title {rng.randrange(1000)}"
            event = Event(name, kind, f"{name}.mp4", title, source_version=newest[name])
            self.oracle[name] = event
            message = (message_key(name), encode(event, event.uri))
            chance = rng.random()
            if chance < 0.1:
                late.append(message)  # it comes after newer ones
            else:
                self.messages.append(message)
            if chance > 0.95:
                self.messages.append(message)
            if late and rng.random() < 0.1:
                self.messages.append(late.pop(rng.randrange(len(late))))
        self.messages += late

    def send(self, address: str, topic: str, part: slice = slice(None)) -> None:
        from confluent_kafka import Producer

        producer = Producer({"bootstrap.servers": address, "enable.idempotence": True})
        for key, value in self.messages[part]:
            producer.produce(topic, value, key)
            producer.poll(0)
        assert producer.flush(60) == 0


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with kafka.apache(tmp_path_factory.mktemp("kafka")) as found:
        yield found


@pytest.fixture(scope="module")
def redis() -> Iterator[World]:
    with world(*DURABLE, durable=True) as made:
        yield made


def configure(folder: Path, address: str, topic: str, url: str | None = None, redis: str | None = None) -> Path:
    path = folder / "vmp.yaml"
    serve = f"serve: {{kind: redis, url: '{redis}', prefix: '{PREFIX}'}}\n" if redis else ""
    store = f"store: {{url: '{url}'}}\n" if url else ""
    path.write_text(
        f"source: {{kind: kafka, brokers: ['{address}'], topic: {topic}, root: '.', group: g-{topic}, "
        f"session_timeout: 3.0}}\n{store}{serve}"
    )
    return path


def start(config: Path, first: str = "effect", within: Sequence[str] = ()) -> Child:
    """A worker; ``within`` is a command that starts it, as in another network."""
    words = [*within, sys.executable, "-m", kafka_child.__name__, str(config), first]
    return subprocess.Popen(words, text=True, bufsize=1, cwd=Path(__file__).parents[2], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE)  # fmt: skip


def go_on(process: Child) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")


def end(process: Child, *, killed: bool) -> None:
    """Wait for a child that was killed, or ended well."""
    if killed:
        process.kill()
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    process.stdout.close()
    assert process.wait(120) == (-signal.SIGKILL if killed else 0)


def step_of(process: Child) -> str:
    """What a child says next; empty where it ended."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def finish(config: Path, first: str = "effect") -> None:
    process = start(config, first)
    while step_of(process):
        go_on(process)
    end(process, killed=False)


class Mirror:
    """`coefvq vmp mirror` beside the workers; killed whenever one of them was, and started again."""

    def __init__(self, config: Path | None) -> None:
        self.command = [
            sys.executable,
            "-m",
            "coefvq",
            "vmp",
            "mirror",
            "--config",
            str(config),
            "--poll-interval",
            "0.05",
        ]
        self.child = None if config is None else self.start()
        self.kills = 0

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*self.command, *more], cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)  # fmt: skip

    def kill(self) -> None:
        """kill -9, wherever it is."""
        if self.child is not None:
            self.child.kill()
            self.kills += self.child.wait() == -signal.SIGKILL
            self.child = self.start()

    def finish(self) -> None:
        """Kill the last one, and bring the copy up to date."""
        if self.child is not None:
            self.child.kill()
            self.child.wait()
            assert self.start("--once").wait(300) == 0


def run_with_kills(config: Path, kills: int, mirror: Mirror) -> int:
    """Two workers; after a few steps whoever is at one is killed there or, racing, just as it goes on."""
    rng = random.Random(17)
    done, steps = 0, rng.randrange(1, 6)
    with selectors.DefaultSelector() as waiting:
        for _ in range(2):
            worker = start(config)
            waiting.register(worker.stdout, selectors.EVENT_READ, worker)
        while done < kills:
            worker = waiting.select()[0][0].data
            step = step_of(worker)
            steps -= bool(step)
            if step and steps:
                go_on(worker)
                continue
            waiting.unregister(worker.stdout)
            if step:
                if rng.random() < 0.5:
                    go_on(worker)
                done, steps = done + 1, rng.randrange(1, 6)
                mirror.kill()
            end(worker, killed=bool(step))
            if not step and len(waiting.get_map()) == 0:
                break  # both have drained the topic
            again = start(config)
            waiting.register(again.stdout, selectors.EVENT_READ, again)
        left = [key.data for key in waiting.get_map().values()]
    for worker in left:
        end(worker, killed=True)
    return done


def expected_state(event: Event) -> str | None:
    """What the scorer and the shipped rules make of an event; None where an error keeps it out of the index."""
    if event.kind == "delete":
        return "deleted"
    rows = scorer([VideoInput(event.video_id, Path(event.uri), event.title)])
    if any(row.positive for row in rows):
        return "removed"
    return None if any(row.error for row in rows) else "live"


def differences(index: IndexStore, history: History) -> list[str]:
    """Videos that differ from the oracle: the newest version of each, judged alone."""
    known, found = index.known(history.oracle), contents.newest(index.database, history.oracle)
    wrong = []
    for name, event in history.oracle.items():
        state, entry = expected_state(event), index.get(name)
        seen = known[name].seen_version if name in known else 0
        content = (found[name].source_version, found[name].kind) if name in found else None
        shown = entry.state if entry is not None and entry.source_version == event.source_version else None
        if (seen, content, shown) != (event.source_version, (event.source_version, event.kind), state):
            wrong.append(f"{name}: {seen} {content} {shown}, expected {event.source_version} {event.kind} {state}")
    return wrong


def doubles(index: IndexStore) -> int:
    """Effects of one message that were stored twice: a message has one place."""
    sql = "SELECT count(*) FROM (SELECT offset FROM effects GROUP BY offset HAVING count(*) > 1) AS twice"
    return int(index.database.query(sql)[0][0])


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_kills_lose_nothing_and_double_nothing(
    store: str, tmp_path: Path, address: str, request: pytest.FixtureRequest
) -> None:
    url = schema_of(request.getfixturevalue("postgres_url"), "kills") if store == "postgres" else None
    redis = request.getfixturevalue("redis") if store == "postgres" else None
    topic = kafka.topic(address, PARTITIONS)
    history = History(5, EVENTS)
    history.send(address, topic)
    config = configure(tmp_path, address, topic, url, redis and redis.url)
    mirror = Mirror(config if redis else None)
    killed = run_with_kills(config, KILLS, mirror)
    finish(config)
    mirror.finish()
    with open_state(tmp_path / "vmp", create=False) as (_, index):
        assert differences(index, history) == []
        assert doubles(index) == 0
        assert index.database.query("SELECT count(*) FROM effects") == [(len(history.messages) - history.poison,)]
        assert poison.count(index.database) == history.poison > 0
        if redis:
            assert as_read(redis.rows()) == of_index(index) != {}
            assert mirror.kills == killed
            print(f"mirror: {mirror.kills} kills, {len(redis.rows())} videos in Redis as in the index")
    assert killed == KILLS
    print(f"{store}: {len(history.messages)} messages, {killed} kills, {history.poison} poison, 0 lost, 0 double")


def test_the_harness_sees_what_a_commit_before_the_effect_loses(tmp_path: Path, address: str) -> None:
    topic = kafka.topic(address, 1)
    history = History(6, 1000)
    history.send(address, topic)
    config = configure(tmp_path, address, topic)
    for steps in (4, 20):  # the second time near the end, where no newer version hides a loss
        process = start(config, "commit")
        for _ in range(steps):
            assert step_of(process) in ("taken", "stored")
            go_on(process)
        assert step_of(process) == "taken"
        end(process, killed=True)
    finish(config, "commit")
    with open_state(tmp_path / "vmp", create=False) as (_, index):
        effects = index.database.query("SELECT count(*) FROM effects")[0][0] + poison.count(index.database)
        lost = len(history.messages) - effects
        wrong = len(differences(index, history))
    print(f"{lost} of {len(history.messages)} messages lost, {wrong} videos differ from the oracle")
    assert lost > 0


def test_the_oracle_is_not_empty_handed() -> None:
    history = History(5, EVENTS)
    states = {expected_state(event) for event in history.oracle.values()}
    assert states == {"live", "removed", "deleted", None}
