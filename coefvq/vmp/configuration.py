"""vmp.yaml: source, store, copy, rules, features, budget and tenants (docs/engines.md). Strict, like params.yaml."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from coefvq.config.reading import validated
from coefvq.config.values import Count, Fraction, Positive, Section
from coefvq.errors import ConfigError
from coefvq.extensions import DECODERS, registered
from coefvq.files import read_yaml
from coefvq.vmp.budget import parse_rate
from coefvq.vmp.features.settings import FeatureSettings
from coefvq.vmp.readonly import url_below
from coefvq.vmp.tenants import TenantName, Tenants, TenantSettings

_Place = Annotated[str, Field(pattern=r"^[A-Za-z0-9.\-\[\]:_]+:\d{1,5}$")]
_Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._\-]{1,249}$")]
_Named = Annotated[str, Field(min_length=1, max_length=200)]
_WORD = r"[A-Za-z_][A-Za-z0-9_]{0,62}"
_Column = Annotated[str, Field(pattern=f"^{_WORD}$")]
#: what the source sets itself: another value would break a guarantee, or print a secret
_OURS = frozenset(
    {"bootstrap.servers", "group.id", "enable.auto.commit", "enable.auto.offset.store", "auto.offset.reset",
     "partition.assignment.strategy", "enable.partition.eof", "isolation.level", "partitioner", "enable.idempotence",
     "security.protocol", "sasl.mechanism", "sasl.mechanisms", "sasl.username", "sasl.password", "max.poll.interval.ms",
     "session.timeout.ms", "heartbeat.interval.ms", "acks", "debug"}
)  # fmt: skip


class Security(Section):
    """How the brokers know us. The password itself stands in an environment variable, never in the file."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    username: _Named | None = None
    password_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    ca: Path | None = None

    @model_validator(mode="after")
    def _user_where_needed(self) -> Self:
        if self.protocol.startswith("SASL") and (self.username is None or self.password_env is None):
            raise ValueError("with SASL, username and password_env are needed")
        return self


class LogSource(Section):
    """The log in the state's folder, as without a file."""

    kind: Literal["log"]


class KafkaSource(Section):
    """A topic, read as a member of ``group``; files of events lie below ``root``."""

    kind: Literal["kafka"]
    brokers: Annotated[tuple[_Place, ...], Field(min_length=1)]
    topic: _Topic
    root: Path
    group: _Named = "vmp"
    decoder: _Named = "json"
    max_bytes: Count = 2**20
    queue: Count = 1000
    max_poll_interval: Positive = 300.0
    session_timeout: Positive = 45.0
    security: Security = Security()
    settings: Mapping[str, str | int | float | bool] = Field(default_factory=dict)

    @field_validator("decoder")
    @classmethod
    def _known_decoder(cls, name: str) -> str:
        known = ["json", *registered(DECODERS)]
        if name not in known:
            raise ValueError(f"{name!r}: no installed package registers it in {DECODERS}; known: {', '.join(known)}")
        return name

    @field_validator("settings")
    @classmethod
    def _not_ours(cls, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        if taken := sorted(_OURS & set(settings)):
            raise ValueError(f"{taken[0]} is set by coefvq or has a key of its own; remove it")
        return settings

    @model_validator(mode="after")
    def _session_within_poll(self) -> Self:
        if self.session_timeout > self.max_poll_interval:
            raise ValueError("session_timeout: at most max_poll_interval")
        return self


class Columns(Section):
    """Field of an event → column; what is left out is not in the table."""

    video_id: _Column = "video_id"
    uri: _Column = "uri"
    tenant: _Column | None = None
    title: _Column | None = None
    stickers: _Column | None = None
    views: _Column | None = None
    sha256: _Column | None = None
    published_at: _Column | None = None
    creator_id: _Column | None = None
    duration_s: _Column | None = None


class TableSource(Section):
    """A table that holds each video once, as it is now; files lie below ``root``.

    ``version`` names a column of whole numbers that grow with each change, ``updated_at`` one with the time of the
    change (without an offset: UTC), ``deleted_at`` one that is set where a video was deleted. No transaction that
    writes the table lasts longer than ``settle`` seconds, the differences of the writers' clocks included.
    """

    kind: Literal["table"]
    url: Annotated[str, Field(pattern=r"^(postgresql|sqlite|mysql|mariadb)://")]
    root: Path
    version: _Column
    updated_at: _Column
    table: Annotated[str, Field(pattern=rf"^{_WORD}(\.{_WORD})?$")] | None = None
    query: Annotated[str, Field(min_length=1, max_length=100_000)] | None = None
    columns: Columns = Columns()
    deleted_at: _Column | None = None
    settle: Annotated[float, Field(ge=0.0, le=86_400.0)] = 30.0
    group: _Named = "vmp"
    max_bytes: Count = 2**20

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.table is None) == (self.query is None):
            raise ValueError("name a table or a query, one of the two")
        return self

    def below(self, folder: Path) -> Self:
        """The same with its paths below a folder, the file of SQLite included."""
        return self.model_copy(update={"root": folder / self.root, "url": url_below(self.url, folder)})


class Store(Section):
    """Folder of the state; with ``url`` the index is in that PostgreSQL database."""

    state: Path = Path("vmp")
    url: Annotated[str, Field(pattern=r"^postgres(ql)?://")] | None = None


class RedisIndex(Section):
    """A copy of the index for readers, in hashes under ``prefix``; `coefvq vmp mirror` keeps it.

    ``durable``: the server must not lose what it took (appendfsync always). Where it may, the mirror writes it again.
    """

    kind: Literal["redis"]
    url: Annotated[str, Field(pattern="^(redis|rediss|unix)://")]
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:\-]{1,100}$")] = "coefvq:index:"
    durable: bool = True


class Budget(Section):
    """As ``--mllm-budget``, ``--mllm-burst`` and ``--mllm-max-wait``."""

    calls: str
    burst: Count = 8
    max_wait: Annotated[float, Field(ge=1.0)] = 1800.0

    @field_validator("calls")
    @classmethod
    def _a_rate(cls, text: str) -> str:
        if text != "none":
            try:
                parse_rate(text)
            except ConfigError as error:
                raise ValueError(str(error)) from error
        return text


class DeadLetters(Section):
    """When bad messages stop the run, and a topic that gets them too."""

    max_share: Fraction = 0.2
    window: Count = 200
    topic: _Topic | None = None


class Configuration(Section):
    """The whole file. Relative paths start in its folder."""

    source: Annotated[LogSource | KafkaSource | TableSource, Field(discriminator="kind")]
    store: Store = Store()
    serve: RedisIndex | None = None
    rules: Path | None = None
    budget: Budget | None = None
    dead_letters: DeadLetters = DeadLetters()
    features: FeatureSettings | None = None
    tenants: Mapping[TenantName, TenantSettings] = Field(default_factory=dict)

    @field_validator("tenants")
    @classmethod
    def _default_has_no_rules(cls, tenants: Mapping[str, TenantSettings]) -> Mapping[str, TenantSettings]:
        return Tenants(tenants=dict(tenants)).tenants

    @model_validator(mode="after")
    def _topic_of_brokers(self) -> Self:
        if self.dead_letters.topic is not None and self.source.kind != "kafka":
            raise ValueError("dead_letters.topic is for source.kind kafka; leave it out: `coefvq vmp dlq` shows them")
        return self


def load_configuration(path: Path) -> Configuration:
    """Read and check a vmp.yaml; its paths are absolute afterwards.

    Raises:
        ConfigError: the file is missing, is not YAML, or a key does not fit.
    """
    remedy = "docs/engines.md has an example"
    raw = read_yaml(path, missing=remedy, remedy=remedy)
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, got {type(raw).__name__}; {remedy}")
    found = validated(Configuration, raw, str(path), remedy)
    folder = path.parent.resolve()
    store = found.store.model_copy(update={"state": folder / found.store.state})
    tenants = {name: one.resolved(folder) for name, one in found.tenants.items()}
    changes: dict[str, Any] = {"store": store, "tenants": tenants}
    if found.features is not None:
        changes["features"] = found.features.below(folder)
    if found.rules is not None:
        changes["rules"] = folder / found.rules
    if isinstance(found.source, KafkaSource):
        changes["source"] = found.source.model_copy(update={"root": folder / found.source.root})
    elif isinstance(found.source, TableSource):
        changes["source"] = found.source.below(folder)
    return found.model_copy(update=changes)


def password(security: Security) -> str | None:
    """The password that the environment holds.

    Raises:
        ConfigError: the variable is not set.
    """
    if security.password_env is None:
        return None
    value = os.environ.get(security.password_env)
    if not value:
        raise ConfigError(f"source.security: the environment has no {security.password_env}; set it to the password")
    return value
