"""``--config vmp.yaml``: publish to a topic, check it, run on it, and the dead letters of messages."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coefvq.errors import ConfigError
from coefvq.vmp.records import Event
from coefvq.vmp.sources import kafka_client
from tests import kafka
from tests.scanned_table import scanned_table
from tests.unit.cli.test_vmp_cli import Cli, FakeRegistry, cli, ok, registry

__all__ = ["cli", "registry"]  # fixtures

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with kafka.mock() as found:
        yield found


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.mp4").write_bytes(name.encode() * 10)
    (folder / "metadata.csv").write_text("file_name,title,source_version,deleted\na.mp4,fine,4,\nb.mp4,bad,7,false\n")
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a vmp.yaml over a topic."""

    def written(brokers: str, topic: str, more: str = "") -> Path:
        path = tmp_path / "vmp.yaml"
        path.write_text(
            f"source:\n  kind: kafka\n  brokers: ['{brokers}']\n  topic: {topic}\n  root: clips\n"
            f"  session_timeout: 6.0\n{more}"
        )
        return path

    return written


def test_a_topic_from_table_to_index_and_its_dead_letters(
    cli: Cli, clips: Path, registry: FakeRegistry, write: Write, address: str
) -> None:
    topic, dead = kafka.topic(address), kafka.topic(address)
    config = write(address, topic, f"dead_letters: {{max_share: 1.0, topic: {dead}}}\n")
    assert ok(cli("publish", clips, "--config", config, "--json")) == {"events": 2, "topic": topic}
    kafka.send(address, topic, b"{bad", key=b"k", partition=0, headers=[("trace", b"7")])
    checked = ok(cli("check", "--config", config, "--json"))["parts"]
    assert [part["part"] for part in checked] == ["store", "files", "source", "dead letters", "rules", "models"]
    assert "4 partitions, 3 messages to read" in checked[2]["line"]

    done = ok(cli("run", "--once", "--config", config, "--json"))
    assert {name: done[name] for name in ("events", "live", "removed", "dead")} == {
        "events": 3, "live": 1, "removed": 1, "dead": 1,
    }  # fmt: skip
    entry = ok(cli("get", "a", "--json"))
    assert (entry["state"], entry["source_version"]) == ("live", 4)
    assert "0 messages to read" in ok(cli("check", "--config", config, "--json"))["parts"][2]["line"]

    (letter,) = ok(cli("dlq", "list", "--json"))["messages"]
    assert letter["name"].startswith(f"{topic}/0/")
    assert "not JSON" in letter["reason"]
    shown = ok(cli("dlq", "show", letter["name"], "--json"))
    assert (shown["value"], shown["key"], shown["headers"]) == ("{bad", "k", {"trace": "7"})
    copy = kafka.read(address, dead)
    assert (copy.key(), copy.value()) == (b"k", b"{bad")
    assert dict(copy.headers()) == {
        "trace": b"7", "coefvq.place": letter["name"].encode(), "coefvq.reason": letter["reason"].encode(),
    }  # fmt: skip
    assert "name the file of its topic" in str(cli("dlq", "replay", letter["name"]).exception)
    assert ok(cli("dlq", "replay", "--config", config, "--json")) == {"videos": 0, "messages": 1}
    assert ok(cli("dlq", "list", "--json"))["messages"] == []
    assert "1 messages to read" in ok(cli("check", "--config", config, "--json"))["parts"][2]["line"]


def test_a_video_that_could_not_be_scored_is_replayed_with_its_version(
    cli: Cli, clips: Path, registry: FakeRegistry, write: Write, address: str
) -> None:
    config = write(address, kafka.topic(address))
    (clips / "metadata.csv").write_text("file_name,title,source_version\na.mp4,fine,4\nb.mp4,fine,7\n")
    ok(cli("publish", clips, "--config", config, "--json"))
    (clips / "b.mp4").rename(clips / "away.mp4")
    ok(cli("run", "--once", "--config", config, "--json"))
    assert [letter["video_id"] for letter in ok(cli("dlq", "list", "--json"))["videos"]] == ["b"]
    (clips / "away.mp4").rename(clips / "b.mp4")
    assert ok(cli("dlq", "replay", "b", "--config", config, "--json")) == {"videos": 1, "messages": 0}
    ok(cli("run", "--once", "--config", config, "--json"))
    entry = ok(cli("get", "b", "--json"))
    assert (entry["state"], entry["source_version"]) == ("live", 7)
    assert ok(cli("dlq", "list", "--json"))["videos"] == []


def test_dead_letters_of_the_log_are_listed_replayed_and_dropped(cli: Cli, clips: Path, registry: FakeRegistry) -> None:
    ok(cli("publish", clips, "--json"))
    (clips / "a.mp4").unlink()
    (clips / "b.mp4").unlink()
    ok(cli("run", "--once", "--json"))
    listed = ok(cli("dlq", "list", "--json"))
    assert ([letter["video_id"] for letter in listed["videos"]], listed["messages"]) == (["a", "b"], [])
    assert ok(cli("dlq", "show", "a", "--json"))["reason"] == "icd: missing"
    assert ok(cli("dlq", "replay", "a", "--json")) == {"videos": 1, "messages": 0}
    assert ok(cli("dlq", "drop", "b", "--json")) == {"videos": 1, "messages": 0}
    assert [letter["video_id"] for letter in ok(cli("dlq", "list", "--json"))["videos"]] == ["a"]
    assert "no dead letter of that name" in str(cli("dlq", "drop", "b").exception)


def test_check_names_each_part_that_is_wrong_and_what_to_do(
    cli: Cli, registry: FakeRegistry, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_client, "ANSWER_SECONDS", 1.0)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        config = write(f"127.0.0.1:{nobody.getsockname()[1]}", "videos", "rules: none.yaml\n")
        result = cli("check", "--config", config, "--json")
    assert result.exit_code == ConfigError.exit_code
    parts = {part["part"]: part for part in json.loads(result.stdout)["parts"]}
    assert {name for name, part in parts.items() if not part["ok"]} == {"files", "source", "rules"}
    assert "no such folder" in parts["files"]["line"]
    assert "start the brokers, or correct source.brokers" in parts["source"]["line"]
    assert "none.yaml" in parts["rules"]["line"]


def test_a_table_without_versions_or_with_files_elsewhere_is_not_sent(
    cli: Cli, clips: Path, registry: FakeRegistry, write: Write, address: str, tmp_path: Path
) -> None:
    config = write(address, kafka.topic(address))
    (clips / "metadata.csv").write_text("file_name,title\na.mp4,fine\n")
    assert "row 2: source_version = None: a topic needs" in str(cli("publish", clips, "--config", config).exception)
    other = tmp_path / "other"
    clips.rename(other)
    clips.mkdir()
    (other / "metadata.csv").write_text("file_name,title,source_version\na.mp4,fine,1\n")
    refused = cli("publish", other, "--root", other, "--config", config).exception
    assert "is not below source.root" in str(refused)
    assert "takes a table alone" in str(cli("publish", "--delete", "a", "--config", config).exception)


def test_a_state_whose_log_has_events_takes_no_topic(
    cli: Cli, clips: Path, registry: FakeRegistry, write: Write, address: str
) -> None:
    ok(cli("publish", clips, "--json"))
    result = cli("run", "--once", "--config", write(address, kafka.topic(address)), "--json")
    assert "its log has events, numbered by the log; a topic needs a state of its own" in str(result.exception)
    twice = cli("run", "--once", "--config", "vmp.yaml", "--state", "vmp")
    assert "--state: vmp.yaml says that" in str(twice.exception)


def test_a_table_from_check_to_replay(cli: Cli, clips: Path, registry: FakeRegistry, tmp_path: Path) -> None:
    config = tmp_path / "vmp.yaml"
    config.write_text(
        "source: {kind: table, url: 'sqlite:///app.sqlite', table: videos, root: clips, version: revision,\n"
        "  updated_at: changed_at, columns: {video_id: id, uri: path, title: title}}\n"
    )
    with scanned_table(f"sqlite:///{tmp_path / 'app.sqlite'}") as table:
        table.put(Event("a", uri="a.mp4", title="fine", source_version=4))
        table.put(Event("b", uri="b.mp4", title="fine", source_version=7))
        table.put(Event("c", uri="../c.mp4", source_version=1))
    (clips / "b.mp4").rename(clips / "away.mp4")
    parts = ok(cli("check", "--config", config, "--json"))["parts"]
    assert [part["part"] for part in parts] == ["store", "files", "source", "rules", "models"]
    assert "2 of 2 rows looked at are new to group vmp" in parts[2]["line"]
    assert "change the rows of the table itself" in str(cli("publish", clips, "--config", config).exception)

    ok(cli("run", "--once", "--config", config, "--json"))
    assert ok(cli("get", "a", "--json"))["source_version"] == 4
    letters = ok(cli("dlq", "list", "--json"))
    assert [one["video_id"] for one in letters["videos"]] == ["b"]
    assert [one["name"] for one in letters["messages"]] == ["table:videos/0/2"]
    assert '"../c.mp4"' in ok(cli("dlq", "show", "table:videos/0/2", "--json"))["value"]
    (clips / "away.mp4").rename(clips / "b.mp4")
    refused = cli("dlq", "replay", "table:videos/0/2", "--config", config).exception
    assert "a row of the table: correct it there" in str(refused)
    assert ok(cli("dlq", "replay", "--config", config, "--json")) == {"videos": 1, "messages": 0}
    ok(cli("run", "--once", "--config", config, "--json"))
    assert (ok(cli("get", "b", "--json"))["state"], ok(cli("dlq", "list", "--json"))["videos"]) == ("live", [])
