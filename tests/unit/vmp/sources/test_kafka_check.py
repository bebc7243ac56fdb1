"""The check of a topic waits for a coordinator that is not ready yet, and for nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from coefvq.vmp.sources import checks

kafka = pytest.importorskip("confluent_kafka")


class Answers:
    """A consumer whose brokers answer with these error codes in turn, then with what was committed."""

    def __init__(self, *codes: int) -> None:
        self.codes, self.asked = list(codes), 0

    def committed(self, partitions: list[Any], timeout: float) -> list[Any]:
        self.asked += 1
        if self.codes:
            raise kafka.KafkaException(kafka.KafkaError(self.codes.pop(0)))
        return partitions


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_PAUSE_SECONDS", 0.0)


def test_brokers_that_just_started_are_asked_again() -> None:
    error = kafka.KafkaError
    consumer = Answers(error.COORDINATOR_LOAD_IN_PROGRESS, error.NOT_COORDINATOR, error.COORDINATOR_NOT_AVAILABLE)
    checks.ask_coordinator(consumer, [])
    assert consumer.asked == 4


def test_a_refusal_is_final() -> None:
    consumer = Answers(kafka.KafkaError.GROUP_AUTHORIZATION_FAILED)
    with pytest.raises(kafka.KafkaException):
        checks.ask_coordinator(consumer, [])
    assert consumer.asked == 1


def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "ANSWER_SECONDS", 0.0)
    with pytest.raises(kafka.KafkaException, match="NOT_COORDINATOR"):
        checks.ask_coordinator(Answers(*[kafka.KafkaError.NOT_COORDINATOR] * 3), [])
