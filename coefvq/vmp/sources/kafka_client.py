"""Clients of Kafka: their settings, the errors that brokers report aside, and what makes a person able to act on them.

librdkafka reports a wrong password or a TLS port to a callback, while the call itself only times out. ``Reports`` keeps
what the callback heard, so that the message names the cause.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from coefvq.errors import ConfigError, DataError
from coefvq.vmp.configuration import KafkaSource, password

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

#: seconds until a broker that does not answer is an error, for questions about the cluster
ANSWER_SECONDS = 10.0
_REMEDIES = {
    "_AUTHENTICATION": "the brokers refuse user or password: correct source.security or its environment variable",
    "_SSL": "TLS failed: correct source.security.protocol and ca",
    "_RESOLVE": "the name is not known: correct source.brokers",
    "UNKNOWN_TOPIC_OR_PART": "the topic is not there: create it, or correct source.topic",
    "_UNKNOWN_TOPIC": "the topic is not there: create it, or correct source.topic",
    "_UNKNOWN_PARTITION": "the topic lost a partition: was it created anew? Restore it, or start a new state",
    "TOPIC_AUTHORIZATION_FAILED": "the user may not read the topic: grant READ and DESCRIBE",
    "GROUP_AUTHORIZATION_FAILED": "the user may not join the group: grant READ on it, or correct source.group",
    "CLUSTER_AUTHORIZATION_FAILED": "the user may not write: grant WRITE and IDEMPOTENT_WRITE",
    "_AUTO_OFFSET_RESET": "messages that were not read yet are gone (retention): publish them again to a new state",
    "MSG_SIZE_TOO_LARGE": "the message is larger than the topic takes: shorten it, or raise max.message.bytes",
}
#: what more waiting does not heal
FATAL = frozenset(_REMEDIES) - {"_RESOLVE"}
_UNREACHABLE = "start the brokers, or correct source.brokers and source.security.protocol"


def library() -> Any:
    """confluent_kafka, imported where it is used.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import confluent_kafka
    except ImportError as error:
        raise ConfigError("source.kind kafka needs confluent-kafka: pip install 'coefvq[kafka]'") from error
    return confluent_kafka


@dataclass
class Reports:
    """Errors that the client reported aside, by name; the first text of each."""

    heard: dict[str, str] = field(default_factory=dict)

    def hear(self, error: KafkaError) -> None:
        """Callback of a client: errors of brokers and connections."""
        self.heard.setdefault(error.name(), error.str())

    def fatal(self) -> str | None:
        """Name of a reported error that no waiting heals."""
        return next((name for name in self.heard if name in FATAL), None)

    def tell(self, what: str, error: KafkaError | None = None) -> DataError:
        """The error that a person can act on: a fatal report first, then ``error``, then any report."""
        heard = self.fatal()
        if heard is not None:
            return explained(what, heard, self.heard[heard])
        if error is not None and error.name() in _REMEDIES:
            return explained(what, error.name(), error.str())
        name, text = next(iter(self.heard.items()), ("", ""))
        if not text and error is not None:
            name, text = error.name(), error.str()
        return explained(what, name, text or "no broker answers")


def explained(what: str, name: str, text: str) -> DataError:
    """An error of Kafka in one line with its remedy."""
    first = text.splitlines()[0] if text else name
    return DataError(f"{what}: {first}; {_REMEDIES.get(name, _UNREACHABLE)}")


def what_of(source: KafkaSource) -> str:
    """How messages name the source."""
    return f"topic {source.topic} on {','.join(source.brokers)}"


def client_settings(source: KafkaSource, reports: Reports) -> dict[str, Any]:
    """Settings that consumers, producers and admin clients share.

    Raises:
        ConfigError: the password's environment variable is not set.
    """
    security = source.security
    settings: dict[str, Any] = {
        **source.settings,
        "bootstrap.servers": ",".join(source.brokers),
        "security.protocol": security.protocol,
        "error_cb": reports.hear,
        # what librdkafka would write to stderr
        "logger": _silent(),
    }
    if security.protocol.startswith("SASL"):
        settings |= {
            "sasl.mechanism": security.mechanism,
            "sasl.username": security.username,
            "sasl.password": password(security),
        }
    if security.ca is not None:
        settings["ssl.ca.location"] = str(security.ca)
    return settings


def consumer_settings(source: KafkaSource, reports: Reports) -> dict[str, Any]:
    """Settings of a member of the group.

    Raises:
        ConfigError: the password's environment variable is not set.
    """
    return {
        "queued.max.messages.kbytes": 16 * 1024,
        **client_settings(source, reports),
        "group.id": source.group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # where to start is said per partition; what is gone is an error, never a silent jump
        "auto.offset.reset": "error",
        "partition.assignment.strategy": "cooperative-sticky",
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "max.poll.interval.ms": round(source.max_poll_interval * 1000),
        "session.timeout.ms": round(source.session_timeout * 1000),
        # with as long a pause between two as a session lasts, each session would end
        "heartbeat.interval.ms": round(min(3.0, source.session_timeout / 3) * 1000),
    }


def made(kind: str, settings: Mapping[str, Any]) -> Any:
    """A client of this kind.

    Raises:
        ConfigError: librdkafka refuses a setting.
    """
    kafka = library()
    makers = {"Consumer": kafka.Consumer, "Producer": kafka.Producer}
    try:
        return makers[kind](dict(settings))
    except kafka.KafkaException as error:
        raise ConfigError(f"source: {error.args[0].str()}; correct source.settings or source.security") from error


def partitions(client: Any, source: KafkaSource, reports: Reports, topic: str | None = None) -> Sequence[int]:
    """Numbers of a topic's partitions; by default the source's.

    Raises:
        DataError: no broker answers, or there is no such topic.
    """
    kafka, name = library(), topic or source.topic
    what = f"topic {name} on {','.join(source.brokers)}"
    try:
        found = client.list_topics(name, timeout=ANSWER_SECONDS).topics[name]
    except kafka.KafkaException as error:
        client.poll(0)  # lets the callback hear
        raise reports.tell(what, error.args[0]) from error
    if found.error is not None:
        raise explained(what, found.error.name(), found.error.str())
    return sorted(found.partitions)


def _silent() -> logging.Logger:
    logger = logging.getLogger("coefvq.kafka")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger
