"""``--tenant`` and ``--tenants`` on the command line: whose videos a command reads and changes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from coefvq.cli.vmp import app
from coefvq.errors import ConfigError, DataError
from coefvq.vmp.keys import key
from coefvq.vmp.records import Event
from coefvq.vmp.state import open_state
from tests.unit.cli.test_vmp_cli import Cli, FakeRegistry, cli, clips, ok, registry

__all__ = ["cli", "clips", "registry"]  # fixtures


@pytest.fixture
def published(cli: Cli, clips: Path, registry: FakeRegistry, tmp_path: Path) -> Path:
    """The same three clips of the default tenant and of acme, whose rules ignore what is watched; all decided."""
    (tmp_path / "acme.yaml").write_text(
        'rules: [{name: seen, when: [{field: views, op: ">", value: 5}], then: ignored}]\ndefault: live\n'
    )
    (tmp_path / "tenants.yaml").write_text("tenants: {acme: {rules: acme.yaml, mllm_budget: 1/s}}\n")
    cli("publish", clips)
    assert ok(cli("publish", clips, "--tenant", "acme", "--json"))["events"] == 3
    assert ok(cli("publish", clips, "--tenant", "acme", "--json"))["unchanged"] == 3
    ok(cli("run", "--once", "--tenants", "tenants.yaml", "--json"))
    return tmp_path


def test_every_reading_command_shows_one_tenant(cli: Cli, published: Path) -> None:
    assert ok(cli("get", "a", "--json"))["rule"] == "default"
    assert "video 'acme/a': not in the index" in str(cli("get", "a", "--tenant", "acme").exception)
    assert ok(cli("get", "b", "--tenant", "acme", "--json"))["video_id"] == "b"
    for tenant, names in (("default", ["a", "b", "c"]), ("acme", ["b", "c"]), ("globex", [])):
        option = ("--tenant", tenant)
        assert [entry["video_id"] for entry in ok(cli("scan", *option, "--json"))["entries"]] == names
        changes = ok(cli("changes", *option, "--json"))["changes"]
        assert [change["entry"]["video_id"] for change in changes] == names
        assert ok(cli("export", "index.csv", *option, "--json"))["rows"] == len(names)
        rows = list(csv.DictReader(Path("index.csv").read_text().splitlines()))
        assert [row["video_id"] for row in rows] == names
        assert sum(ok(cli("status", *option, "--json"))["index"].values()) == len(names)
    assert sum(ok(cli("status", "--json"))["index"].values()) == 5
    assert ok(cli("status", "--tenant", "acme", "--json"))["mllm"]["rate"] == 1.0
    (published / "mine.yaml").write_text("rules: []\ndefault: removed\n")
    assert ok(cli("rules", "test", "mine.yaml", "--tenant", "acme", "--json"))["videos"] == 2


def test_every_writing_command_changes_one_tenant(cli: Cli, published: Path) -> None:
    said = ("--verdict", "removed", "--by", "ana", "--reason", "why")
    ok(cli("override", "c", *said, "--tenant", "acme", "--json"))
    assert ok(cli("get", "c", "--json"))["state"] == "live"
    ok(cli("publish", "--delete", "b", "--tenant", "acme", "--json"))
    ok(cli("run", "--once", "--json"))  # the tenants were kept
    assert ok(cli("get", "b", "--tenant", "acme", "--json"))["state"] == "deleted"
    ok(cli("forget", "c", "--tenant", "acme", "--json"))
    assert [ok(cli("get", name, "--json"))["state"] for name in "abc"] == ["live", "removed", "live"]
    assert ok(cli("get", "c", "--tenant", "acme", "--json"))["state"] == "deleted"


def test_an_unknown_tenant_s_videos_are_dead_letters(cli: Cli, published: Path, clips: Path) -> None:
    cli("publish", clips, "--tenant", "initech")
    assert ok(cli("run", "--once", "--json"))["dead"] == 3
    shown = cli("dlq", "list").stdout
    assert "initech/a" in shown
    assert "tenant 'initech' is not configured" in " ".join(shown.split())
    letters = ok(cli("dlq", "list", "--tenant", "initech", "--json"))["videos"]
    assert [(letter["video_id"], letter["tenant"]) for letter in letters] == [(name, "initech") for name in "abc"]
    assert ok(cli("dlq", "list", "--tenant", "acme", "--json"))["videos"] == []
    (published / "tenants.yaml").write_text("tenants: {acme: {}, initech: {}}")
    assert ok(cli("dlq", "replay", "--json"))["videos"] == 3
    ok(cli("run", "--once", "--tenants", "tenants.yaml", "--json"))
    assert ok(cli("status", "--tenant", "initech", "--json"))["index"] == {"live": 2, "removed": 1}
    # without tenants again: who asks is told, and what is there stays
    (clips / "a.mp4").write_bytes(b"new content")
    cli("publish", clips, "--tenant", "initech")
    assert ok(cli("run", "--once", "--tenants", "none", "--json"))["dead"] == 1
    assert ok(cli("status", "--tenant", "initech", "--json"))["index"] == {"live": 2, "removed": 1}


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a\x1fb", "\x1b[2J", "x" * 65, "-x"])
def test_a_name_that_is_none_is_refused(cli: Cli, name: str) -> None:
    result = cli("status", "--tenant", name)
    assert result.exit_code == 2
    assert "\x1b" not in result.output


def test_a_file_that_does_not_fit_stops_before_any_event(cli: Cli, published: Path, registry: FakeRegistry) -> None:
    (published / "bad.yaml").write_text("tenants: {acme: {budget: 1/s}}")
    calls = list(registry.calls)
    for command in ("run", "mllm"):
        error = cli(command, "--once", "--tenants", "bad.yaml").exception
        assert isinstance(error, ConfigError)
        assert "tenants.acme.budget: unknown key" in str(error)
    assert registry.calls == calls


def test_labels_of_a_draw_are_a_tenant_s(tmp_path: Path) -> None:
    """The same ids in two tenants: the labels of one do not count for the other."""
    state = tmp_path / "vmp"

    def run(*words: object) -> Any:
        shown = CliRunner().invoke(app, [*map(str, words), "--state", str(state)])
        if shown.exception is not None:
            raise shown.exception
        return json.loads(shown.stdout) if "--json" in words else shown.stdout

    with open_state(state) as (log, index):
        names = [key(tenant, f"v{number}") for tenant in ("default", "acme") for number in range(4)]
        log.publish([Event(name, uri=f"/{number}") for number, name in enumerate(names)])
        score = {"base_score": 0.1, "mllm_score": 0.9, "positive": True, "bundle_version": "1-ab"}
        for number, name in enumerate(names):
            one = {**score, "audit_probability": 0.5} if number % 2 else score
            index.database.connection.execute(
                "INSERT INTO videos (video_id, seen_version, change) VALUES (?, 1, ?)", (name, number)
            )
            index.database.connection.execute(
                "INSERT INTO entries (change, video_id, state, rule, source_version, bundle_version, value, "
                "decided_at) VALUES (?, ?, 'live', 'r', 1, 'icd=1-ab', ?, '2026-01-01')",
                (number, name, json.dumps({"scores": {"icd": one}})),
            )
    out = tmp_path / "label.csv"
    made = run("audit", "draw", "--issue", "icd", "--labels", 4, "--out", out, "--tenant", "acme", "--json")
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["video_id"] for row in rows] == [row["video_id"] for row in made["drawn"]] == ["v0", "v1", "v2", "v3"]
    assert {row["uri"] for row in rows} == {"/4", "/5", "/6", "/7"}
    out.write_text("video_id,label\n" + "".join(f"v{number},{number % 2}\n" for number in range(4)))
    with pytest.raises(DataError, match="no audit draw 1"):
        run("audit", "import", "--draw", 1, "--labels", out)
    batch = tmp_path / "batch.csv"
    run("audit", "import", "--draw", 1, "--labels", out, "--tenant", "acme", "--batch", batch)
    assert [row["video_id"] for row in csv.DictReader(batch.read_text().splitlines())] == ["v0", "v1", "v2", "v3"]
    assert "draw 1" in run("audit", "estimates", "--tenant", "acme")
    assert run("audit", "estimates") == "no draw has its labels yet\n"
    with pytest.raises(ConfigError, match="write --tenant acme behind draw"):
        run("audit", "--tenant", "acme", "draw", "--issue", "icd", "--labels", 4, "--out", out)
