"""Settings of feature stores: what is refused, with which words, and rules that name features."""

from __future__ import annotations

from pathlib import Path

import pytest

from coefvq.errors import ConfigError
from coefvq.vmp.features.settings import FeatureSettings, RedisSource, SqlSource, check_rules, load_features
from coefvq.vmp.rules import Rules, parse_rules

GOOD = """
stores:
  - name: creators
    source: {kind: redis, url: "redis://:s3cret@127.0.0.1/0", behind: {kind: thrift, port: 9090}}
    key: creator_id
    fields: {reputation: number, country: text, verified: flag}
    missing: hold
  - name: reports
    source: {kind: sql, url: "sqlite:///reports.sqlite", table: reports, key_column: video, columns: {times: n}}
    fields: {times: number}
"""


def load(tmp_path: Path, text: str) -> FeatureSettings:
    path = tmp_path / "features.yaml"
    path.write_text(text, encoding="utf-8")
    return load_features(path)


def rule(condition: str) -> Rules:
    return parse_rules(f"rules: [{{name: r, when: [{condition}], then: removed}}]\ndefault: live", "rules.yaml")


def test_a_file_that_fits(tmp_path: Path) -> None:
    found = load(tmp_path, GOOD)
    assert [store.name for store in found.stores] == ["creators", "reports"]
    assert found.kinds == {
        "creators.reputation": float,
        "creators.country": str,
        "creators.verified": bool,
        "creators.status": str,
        "reports.times": float,
        "reports.status": str,
    }


@pytest.mark.parametrize("behind", ["", "kind: redis, url: 'redis://h', behind: "])
@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:///a/reports.sqlite", "sqlite:///HERE/a/reports.sqlite"),
        ("sqlite+pysqlite:///reports.sqlite", "sqlite+pysqlite:///HERE/reports.sqlite"),
        ("sqlite:////data/reports.sqlite", "sqlite:////data/reports.sqlite"),
        ("sqlite:///file:reports.sqlite?uri=true", "sqlite:///file:reports.sqlite?uri=true"),
        ("mysql+pymysql://h/reports", "mysql+pymysql://h/reports"),
    ],
)
def test_a_file_of_sqlite_starts_in_the_folder_of_the_settings(
    tmp_path: Path, behind: str, url: str, expected: str
) -> None:
    table = f"{{kind: sql, url: '{url}', table: t, key_column: v}}"
    source = f"{{{behind}{table}}}" if behind else table
    (store,) = load(tmp_path, f"stores: [{{name: s, source: {source}, fields: {{n: number}}}}]").stores
    found = store.source.behind if isinstance(store.source, RedisSource) else store.source
    assert isinstance(found, SqlSource)
    assert found.url == expected.replace("HERE", str(tmp_path))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("missing: hold", "mising: hold", "stores.0.mising"),
        ("missing: hold", "missing: wait", "'mark', 'dead_letter' or 'hold'"),
        ("reputation: number", "reputation: float", "'flag', 'number' or 'text'"),
        ("reputation: number", "status: number", "says how the store answered"),
        ("reputation: number", "Reputation: number", "stores.0.fields.Reputation"),
        ("name: reports", "name: creators", "the name 'creators' is used twice"),
        ("port: 9090", "port: 0", "stores.0.source.redis.behind.thrift.port"),
        ("port: 9090", "port: '9090'", "valid integer"),
        ("kind: sql", "kind: csv", "expected tags: 'thrift', 'sql', 'redis'"),
        ("table: reports", 'table: "reports; DROP TABLE x"', "stores.1.source.sql.table"),
        ("fields: {times: number}", "fields: {}", "at least 1"),
        ("fields: {times: number}", "fields: {times: number}\n    deadline_s: .nan", "deadline_s"),
        ('"redis://:s3cret@127.0.0.1/0"', '"http://:s3cret@127.0.0.1/0"', "stores.0.source.redis.url"),
    ],
)
def test_what_does_not_fit_is_named_without_its_secret(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, GOOD.replace(old, new))
    said = str(caught.value)
    assert message in said
    assert "features.yaml: " in said
    assert "docs/engines.md" in said
    assert "s3cret" not in said


@pytest.mark.parametrize("text", ["", "[]", "stores: []", "stores: {}", "a: &a [*a]"])
def test_files_of_another_kind(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"features\.yaml"):
        load(tmp_path, text)


@pytest.mark.parametrize(
    "condition",
    [
        '{field: creators.reputation, op: "<", value: 0.3}',
        "{field: creators.reputation, op: in, value: [1, 2]}",
        "{field: creators.country, op: in, value: [DE, FR]}",
        '{field: creators.country, op: matches, value: "^D"}',
        '{field: creators.verified, op: "==", value: true}',
        '{field: reports.status, op: "!=", value: found}',
        "{field: reports.times, op: missing, value: true}",
        '{field: views, op: ">", value: 3}',
    ],
)
def test_conditions_on_features(tmp_path: Path, condition: str) -> None:
    check_rules(rule(condition), load(tmp_path, GOOD))


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ('{field: creators.reputation, op: "==", value: high}', "rule 'r': creators.reputation is a number"),
        ('{field: creators.verified, op: "==", value: 1}', "rule 'r': creators.verified is true or false"),
        ("{field: creators.country, op: in, value: [1]}", "rule 'r': creators.country is a text"),
        ('{field: creators.age, op: ">", value: 1}', "no store gives creators.age (there are: creators.country, "),
    ],
)
def test_conditions_that_no_store_can_meet(tmp_path: Path, condition: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_rules(rule(condition), load(tmp_path, GOOD))
    assert message in str(caught.value)


def test_features_without_stores_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"no store gives a\.b \(there are: none; name the stores with --features"):
        check_rules(rule("{field: a.b, op: missing, value: true}"), None)


@pytest.mark.parametrize(
    "condition",
    [
        '{field: creators.country, op: "<", value: DE}',
        "{field: creators.country, op: in, value: [DE, 1]}",
        "{field: creators.country, op: contains, value: DE}",
        '{field: Creators.country, op: "==", value: DE}',
        '{field: creators., op: "==", value: DE}',
    ],
)
def test_conditions_that_fit_no_feature(condition: str) -> None:
    with pytest.raises(ConfigError, match="rule 1"):
        rule(condition)
