"""A real Apache Kafka does what the mock does not: polls that are late, retention, transactions, passwords."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from coefvq.errors import DataError
from coefvq.vmp.configuration import KafkaSource, Security
from coefvq.vmp.records import Event
from coefvq.vmp.sources.batches import Batch
from coefvq.vmp.sources.engines import reading_of
from coefvq.vmp.sources.kafka import KafkaStream
from coefvq.vmp.sources.kafka_client import Reports, made, partitions
from coefvq.vmp.sources.kafka_producer import Outbox, publish
from coefvq.vmp.sources.messages import encode, message_key
from tests import kafka

pytestmark = pytest.mark.long
LONG = 60.0


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with kafka.apache(tmp_path_factory.mktemp("kafka")) as found:
        yield found


def events(*names: str) -> list[Event]:
    return [Event(name, uri=f"{name}.mp4", source_version=1) for name in names]


def stream(
    source: KafkaSource, start: Callable[[Sequence[int]], Mapping[int, int]] = lambda numbers: {}, once: bool = False
) -> KafkaStream:
    return KafkaStream(source, reading_of(source), start, stop=threading.Event(), once=once)


def taken(reader: KafkaStream) -> Batch:
    """The next batch, however long it takes."""
    while (batch := reader.take(10)) is None:
        pass
    return batch


def test_a_slow_batch_keeps_its_assignment(address: str, tmp_path: Path) -> None:
    """8 s of work with max.poll.interval 6 s; a plain loop, the control, loses its partition over it."""
    from confluent_kafka import Consumer, KafkaError

    source = kafka.source(address, kafka.topic(address, 1), tmp_path, max_poll_interval=6.0)
    publish(source, events("a", "b"))
    assigned: list[Sequence[int]] = []

    def start(numbers: Sequence[int]) -> dict[int, int]:
        assigned.append(numbers)
        return {}

    work = threading.Event()
    with stream(source, start) as reader:
        first = taken(reader)
        assert [event.video_id for event in first.events] == ["a", "b"]
        work.wait(8.0)
        reader.settle()
        publish(source, events("c"))
        assert [event.video_id for event in taken(reader).events] == ["c"]
        reader.settle()
    assert assigned == [[0]]

    plain = Consumer({"bootstrap.servers": address, "group.id": "plain", "max.poll.interval.ms": 6000,
                      "session.timeout.ms": 6000, "auto.offset.reset": "earliest"})  # fmt: skip
    plain.subscribe([source.topic])
    assert plain.consume(1, LONG)[0].error() is None
    work.wait(8.0)
    errors = [message.error() for message in plain.consume(3, LONG) if message.error() is not None]
    plain.close()
    assert errors[0].code() == KafkaError._MAX_POLL_EXCEEDED


def test_kafka_knows_the_offsets_of_what_took_effect(address: str, tmp_path: Path) -> None:
    from confluent_kafka import Consumer, TopicPartition

    source = kafka.source(address, kafka.topic(address, 1), tmp_path)
    publish(source, events("a", "b", "c"))
    with stream(source, once=True) as reader:
        assert taken(reader) is reader.take(10)
        reader.settle()
        assert reader.take(10) is None
        publish(source, events("d"))
        taken(reader)  # not settled
    asking = Consumer({"bootstrap.servers": address, "group.id": source.group})
    assert asking.committed([TopicPartition(source.topic, 0)], timeout=LONG)[0].offset == 3
    asking.close()


def test_messages_that_are_gone_and_a_topic_made_anew_stop_the_run(address: str, tmp_path: Path) -> None:
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    source = kafka.source(address, kafka.topic(address, 1), tmp_path)
    publish(source, events(*"abcdefgh"))
    admin = AdminClient({"bootstrap.servers": address})
    for future in admin.delete_records([TopicPartition(source.topic, 0, 6)]).values():
        future.result(LONG)
    for at, said in ((3, "messages that were not read are gone"), (9, "it was made anew or cut")):
        with stream(source, lambda numbers, at=at: {0: at}) as reader, pytest.raises(DataError, match=said):
            taken(reader)
    with stream(source, lambda numbers: {0: 6}) as reader:
        assert [event.video_id for event in taken(reader).events] == ["g", "h"]


def test_aborted_transactions_of_others_are_not_read(address: str, tmp_path: Path) -> None:
    from confluent_kafka import Producer

    source = kafka.source(address, kafka.topic(address, 1), tmp_path)
    producer = Producer({"bootstrap.servers": address, "transactional.id": f"t-{source.topic}"})
    producer.init_transactions(LONG)
    for name, commits in (("a", True), ("b", False), ("c", True)):
        producer.begin_transaction()
        (event,) = events(name)
        producer.produce(source.topic, encode(event, event.uri), message_key(name))
        producer.flush(LONG)
        producer.commit_transaction(LONG) if commits else producer.abort_transaction(LONG)
    read = []
    with stream(source, once=True) as reader:
        while (batch := reader.take(10)) is not None:
            read += [event.video_id for event in batch.events]
            reader.settle()
    assert read == ["a", "c"]


def test_a_topic_that_is_not_there_and_tls_on_a_plain_port_are_told(address: str, tmp_path: Path) -> None:
    source = kafka.source(address, "nowhere", tmp_path)
    with pytest.raises(DataError, match=r"nowhere.*: create it, or correct source.topic"), stream(source):
        pass
    secure = kafka.source(address, "nowhere", tmp_path, security=Security(protocol="SSL"))
    with pytest.raises(DataError, match=r"SSL.*correct .*source\.security\.protocol"), stream(secure):
        pass


def test_a_wrong_password_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = (
        "listener.security.protocol.map=BROKER:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
        "sasl.enabled.mechanisms=PLAIN",
        "sasl.mechanism.inter.broker.protocol=PLAIN",
        "listener.name.broker.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required "
        'username="vmp" password="test-only" user_vmp="test-only";',
    )
    security = Security(protocol="SASL_PLAINTEXT", username="vmp", password_env="VMP_PASSWORD")  # noqa: S106
    with kafka.broker(tmp_path, *settings) as running:
        source = kafka.source(running.address, "videos", tmp_path, security=security)
        monkeypatch.setenv("VMP_PASSWORD", "test-only")
        with pytest.raises(DataError, match="create it"):  # let in
            Outbox(source).check()
        monkeypatch.setenv("VMP_PASSWORD", "wrong")
        with pytest.raises(DataError, match="the brokers refuse user or password") as error:
            Outbox(source).check()
        assert "wrong" not in str(error.value)


def test_a_reader_without_brokers_says_so() -> None:
    source = KafkaSource(kind="kafka", brokers=("127.0.0.1:9",), topic="videos", root=Path())
    reports = Reports()
    client = made("Producer", {"bootstrap.servers": "127.0.0.1:9", "error_cb": reports.hear})
    with pytest.raises(DataError, match=r"Connection refused .*; start the brokers"):
        partitions(client, source, reports)
