"""vmp.yaml is strict: each key that does not fit is named, with what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from coefvq.errors import ConfigError
from coefvq.vmp.configuration import KafkaSource, TableSource, load_configuration, password
from coefvq.vmp.index import open_index
from coefvq.vmp.sources.engines import place_store
from coefvq.vmp.sources.kafka_client import Reports, consumer_settings
from coefvq.vmp.state import index_place

KAFKA = "source: {kind: kafka, brokers: ['127.0.0.1:9092'], topic: videos, root: clips%s}\n"
TABLE = "source: {kind: table, url: 'sqlite:///app.sqlite', root: clips, version: revision, updated_at: changed_at%s}\n"
SASL = ", security: {protocol: SASL_SSL, username: u, password_env: VMP_PASSWORD}"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "vmp.yaml"
    path.write_text(text)
    return path


def test_paths_start_in_the_folder_of_the_file(tmp_path: Path) -> None:
    found = load_configuration(write(tmp_path, KAFKA % "" + "rules: r.yaml\nstore: {state: here}\n"))
    assert isinstance(found.source, KafkaSource)
    assert (found.source.root, found.rules, found.store.state) == (
        tmp_path / "clips", tmp_path / "r.yaml", tmp_path / "here",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("sqlite:///app.sqlite", "sqlite:///HERE/app.sqlite"),
        ("sqlite:////data/app.sqlite", "sqlite:////data/app.sqlite"),
        ("postgresql://host/database", "postgresql://host/database"),
    ],
)
def test_a_table_in_a_file_starts_in_the_folder_too(tmp_path: Path, url: str, found: str) -> None:
    text = (TABLE % ", table: app.videos").replace("sqlite:///app.sqlite", url)
    source = load_configuration(write(tmp_path, text)).source
    assert isinstance(source, TableSource)
    assert (source.url, source.root) == (found.replace("HERE", str(tmp_path)), tmp_path / "clips")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected a mapping of sections, got list"),
        ("store: {}", "source: missing key"),
        ("source: {kind: pulsar}", "source"),
        (KAFKA % ", topik: x", "topik: unknown key"),
        (KAFKA % ", queue: 0", "queue = 0"),
        (KAFKA % ", queue: '5'", "queue"),
        (KAFKA.replace("127.0.0.1:9092", "nowhere") % "", "brokers"),
        (KAFKA.replace("videos", "a b") % "", "topic"),
        (KAFKA % ", session_timeout: 400.0", "at most max_poll_interval"),
        (KAFKA % ", settings: {group.id: x}", "group.id is set by coefvq"),
        (KAFKA % ", security: {protocol: SASL_SSL}", "username and password_env are needed"),
        (KAFKA % ", decoder: avro", "no installed package registers it in coefvq.decoders"),
        (TABLE % "", "name a table or a query"),
        (TABLE % ", table: a, query: SELECT 1", "name a table or a query"),
        (TABLE % ", table: 'a; DROP TABLE b'", "table"),
        (TABLE % ", table: a, columns: {likes: x}", "columns.likes: unknown key"),
        (TABLE % ", table: a, settle: -1", "settle = -1"),
        (TABLE.replace("sqlite:///", "oracle://h/") % ", table: a", "url"),
        (TABLE.replace(", version: revision", "") % ", table: a", "version: missing key"),
        (TABLE % ", table: a" + "dead_letters: {topic: dead}", "dead_letters.topic is for source.kind kafka"),
        (KAFKA % "" + "budget: {calls: many}", "budget.calls"),
        (KAFKA % "" + "store: {url: 'mysql://x'}", "store.url"),
        (KAFKA % "" + "dead_letters: {max_share: 20}", "dead_letters.max_share = 20"),
        (KAFKA % "" + "serve: {kind: redis, url: 'http://h'}", "serve.url"),
        (KAFKA % "" + "serve: {kind: redis, url: 'redis://h', prefix: 'a*'}", "serve.prefix"),
        (KAFKA % "" + "serve: {kind: memcached, url: 'redis://h'}", "serve"),
        (KAFKA % "" + "features: {likes: {}}\n", "features"),
        (KAFKA % "" + "tenants: {acme: {budget: 5/s}}\n", "tenants.acme.budget: unknown key"),
        (KAFKA % "" + "tenants: {'a b': {}}\n", "tenants"),
        (KAFKA % "" + "tenants: {default: {rules: {rules: [], default: live}}}\n", "default.rules"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_configuration(write(tmp_path, text))
    assert message in str(error.value)
    assert "vmp.yaml" in str(error.value)


def test_a_password_stands_in_the_environment_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = load_configuration(write(tmp_path, KAFKA % SASL))
    assert isinstance(found.source, KafkaSource)
    monkeypatch.delenv("VMP_PASSWORD", raising=False)
    with pytest.raises(ConfigError, match="the environment has no VMP_PASSWORD"):
        password(found.source.security)
    monkeypatch.setenv("VMP_PASSWORD", "x")
    assert password(found.source.security) == "x"


def test_a_store_with_a_url_is_found_by_all_commands_and_replaces_no_other(tmp_path: Path) -> None:
    store = load_configuration(write(tmp_path, KAFKA % "" + "store: {url: 'postgresql://h/one'}\n")).store
    assert place_store(store) == "postgresql://h/one"
    assert index_place(store.state) == place_store(store) == "postgresql://h/one"
    with pytest.raises(ConfigError, match="names another index than"):
        place_store(store.model_copy(update={"url": "postgresql://h/two"}))
    other = store.model_copy(update={"state": tmp_path / "other"})
    (tmp_path / "other").mkdir()
    with open_index(tmp_path / "other" / "index.sqlite"):
        pass
    with pytest.raises(ConfigError, match="an index is there"):
        place_store(other)


@pytest.mark.parametrize("session", [1.0, 3.0, 45.0])
def test_a_member_beats_several_times_within_its_session(tmp_path: Path, session: float) -> None:
    found = load_configuration(write(tmp_path, KAFKA % f", session_timeout: {session}"))
    assert isinstance(found.source, KafkaSource)
    settings = consumer_settings(found.source, Reports())
    assert 0 < settings["heartbeat.interval.ms"] <= settings["session.timeout.ms"] / 3
    assert settings["heartbeat.interval.ms"] <= 3000
