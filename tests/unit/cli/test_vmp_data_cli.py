"""``coefvq vmp get | scan | export | changes | compact | forget`` over a small state."""

from __future__ import annotations

import csv
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from coefvq.cli.vmp import app
from coefvq.errors import ConfigError, DataError
from coefvq.vmp.records import Event, SinkRow
from coefvq.vmp.state import open_state
from tests.vmp_world import NOW, promote

TITLE = 'a "quoted", title\x1b[2J\u2028and more'


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Three videos; every second one was removed."""
    with open_state(tmp_path / "vmp") as (log, index):
        log.publish([Event(name, uri=f"/{name}.mp4", sha256=name, title=TITLE) for name in "abc"])
        epoch = promote(index, 1, "1-ab")
        rows = [
            SinkRow(number, name, 1, epoch, 2, "icd=1-ab", "live", "removed" if number == 2 else "live", "r",
                    json.dumps({"title": TITLE}), NOW.isoformat(), name)
            for number, name in enumerate("abc", start=1)
        ]  # fmt: skip
        index.apply(rows, "vmp", 3)
    return tmp_path / "vmp"


def run(state: Path, *words: object) -> Any:
    shown = CliRunner().invoke(app, [*map(str, words), "--state", str(state)])
    if shown.exception is not None:
        raise shown.exception
    return json.loads(shown.stdout) if "--json" in words else shown.stdout


def test_scan_pages_filters_and_prints_csv(state: Path) -> None:
    first = run(state, "scan", "--limit", 2, "--json")
    assert ([entry["video_id"] for entry in first["entries"]], first["after"]) == (["a", "b"], "b")
    second = run(state, "scan", "--limit", 2, "--after", first["after"], "--json")
    assert ([entry["video_id"] for entry in second["entries"]], second["after"]) == (["c"], None)
    assert [entry["state"] for entry in run(state, "scan", "--in", "removed", "--json")["entries"]] == ["removed"]
    printed = run(state, "scan", "--csv")
    assert "\x1b" not in printed  # a title does not steer the terminal
    table = list(csv.DictReader(printed.splitlines()))
    assert [(row["video_id"], row["state"]) for row in table] == [("a", "live"), ("b", "removed"), ("c", "live")]
    assert "removed" in run(state, "scan")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_export_then_changes(state: Path, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"index{suffix}"
    made = run(state, "export", target, "--json")
    assert (made["rows"], made["cursor"]) == (3, 3)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with target.open(encoding="utf-8", newline="") as stream:
        if suffix == ".csv":
            rows = [json.loads(row["value"]) for row in csv.DictReader(stream)]
        else:
            rows = [json.loads(line)["value"] for line in stream.read().split("\n")[:-1]]
    assert [row["title"] for row in rows] == [TITLE] * 3
    assert run(state, "changes", "--since", made["cursor"], "--json") == {"changes": [], "cursor": 3, "more": False}
    run(state, "override", "b", "--verdict", "live", "--by", "ana", "--reason", "satire")
    found = run(state, "changes", "--since", made["cursor"], "--json")
    assert [(change["number"], change["entry"]["video_id"]) for change in found["changes"]] == [(4, "b")]
    page = run(state, "changes", "--limit", 2, "--json")
    assert ([change["number"] for change in page["changes"]], page["cursor"], page["more"]) == ([1, 3], 3, True)
    assert "more follow" in run(state, "changes", "--limit", 2)
    with pytest.raises(DataError, match="cursor 99 is ahead of the feed"):
        run(state, "changes", "--since", 99)
    with pytest.raises(ConfigError, match=r"expected a name that ends in \.csv or \.jsonl"):
        run(state, "export", tmp_path / "index.txt")


def test_compact_and_forget(state: Path) -> None:
    assert run(state, "compact", "--audit-days", 0, "--json")["audit_rows"] >= 0
    assert run(state, "forget", "a", "c", "--json") == {"videos": 2, "events": 2, "audit_rows": 2}
    assert run(state, "get", "a", "--json")["state"] == "deleted"
    assert "2 videos forgotten" in run(state, "forget", "a", "c")
    assert "deletions dropped" in run(state, "compact")
    with pytest.raises(DataError, match="video 'x': neither in the log nor in the index"):
        run(state, "forget", "x")
