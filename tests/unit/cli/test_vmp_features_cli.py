"""``coefvq vmp run --features`` and ``--log``: from a table of creators to the rule, the index and the lines."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from textwrap import indent

import pytest

from coefvq.errors import ConfigError
from coefvq.vmp.features.values import HeldError
from tests.unit.cli.test_vmp_cli import Cli, FakeRegistry, cli, clips, ok, registry

__all__ = ["cli", "clips", "registry"]  # fixtures

RULES = """
rules:
  - {name: distrusted, when: [{field: creators.reputation, op: "<", value: 0.3}], then: removed}
default: live
"""


@pytest.fixture
def stores(tmp_path: Path, clips: Path) -> Path:
    """Rules, a table of creators, the settings that name it; clip ``a`` is Ana's, ``c`` is Bo's."""
    (clips / "metadata.csv").write_text("file_name,title,creator_id\na.mp4,fine,ana\nc.mp4,slow,bo\n")
    (tmp_path / "own.yaml").write_text(RULES)
    with closing(sqlite3.connect(tmp_path / "creators.sqlite")) as connection:
        connection.execute("CREATE TABLE creators (who TEXT, reputation REAL)")
        connection.executemany("INSERT INTO creators VALUES (?, ?)", [("ana", 0.1), ("bo", 0.9)])
        connection.commit()
    path = tmp_path / "features.yaml"
    path.write_text(
        "stores:\n  - name: creators\n    key: creator_id\n    fields: {reputation: number}\n    deadline_s: 30.0\n"
        f"    source: {{kind: sql, url: 'sqlite:///{tmp_path}/creators.sqlite', table: creators, key_column: who}}\n"
    )
    return path


def test_a_rule_on_a_feature_decides(
    cli: Cli, clips: Path, registry: FakeRegistry, stores: Path, tmp_path: Path
) -> None:
    cli("publish", clips)
    run = cli("run", "--once", "--rules", "own.yaml", "--features", stores, "--mllm", "workers", "--log", "json",
              "--json")  # fmt: skip
    assert ok(run)["events"] == 2
    first, *rest = (json.loads(line) for line in run.stderr.splitlines())
    assert rest == []
    assert (first["event"], first["consumer"], first["offset"], first["removed"]) == ("batch", "vmp", 2, 1)
    removed = ok(cli("get", "a", "--json"))
    assert (removed["state"], removed["rule"]) == ("removed", "distrusted")
    assert removed["value"]["features"] == {"creators": {"status": "found", "reputation": 0.1}}
    config = tmp_path / "vmp.yaml"
    config.write_text("source: {kind: log}\nfeatures:\n" + indent(stores.read_text(), "  "))
    again = cli("mllm", "--once", "--config", config, "--features", stores).exception
    assert isinstance(again, ConfigError)
    assert str(again).startswith(f"--features: {config} says that")
    served = cli("mllm", "--once", "--config", config, "--json")
    assert ok(served)["answered"] == 1
    assert ok(cli("get", "c", "--json"))["value"]["features"]["creators"]["reputation"] == 0.9


def test_rules_on_features_need_their_stores_and_are_not_kept_without(
    cli: Cli, clips: Path, registry: FakeRegistry, stores: Path, tmp_path: Path
) -> None:
    cli("publish", clips)
    error = cli("run", "--once", "--rules", "own.yaml").exception
    assert isinstance(error, ConfigError)
    assert str(error) == (
        "rule 'distrusted': no store gives creators.reputation (there are: none; name the stores with --features FILE)"
    )
    assert not (tmp_path / "vmp" / "rules.yaml").exists()
    assert isinstance(cli("run", "--once", "--features", "none.yaml").exception, ConfigError)
    assert registry.calls == []


def test_a_store_that_is_waited_for_stops_a_run_that_is_to_end(
    cli: Cli, clips: Path, registry: FakeRegistry, stores: Path, tmp_path: Path
) -> None:
    cli("publish", clips)
    stores.write_text(stores.read_text() + "    missing: hold\n")
    (tmp_path / "creators.sqlite").unlink()
    error = cli("run", "--once", "--features", stores, "--log", "console").exception
    assert isinstance(error, HeldError)
    assert error.exit_code == 3
    assert "unable to open database file; nothing of the batch was stored" in str(error)
    assert ok(cli("status", "--json"))["consumers"] == {}
