"""``coefvq vmp`` and the reading of folders and tables, with a scorer that reads the title."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from coefvq.cascade.policy import CascadePolicy
from coefvq.cli.score import results_table
from coefvq.cli.vmp import app
from coefvq.data.importers.ids import id_from_path
from coefvq.errors import ConfigError, DataError, RegistryError
from coefvq.inference.decisions import Answers
from coefvq.records import ScoredVideo, VideoInput
from coefvq.registry import champions, tracking
from coefvq.registry.champions import Head
from coefvq.vmp.index import open_index
from coefvq.vmp.log import open_log
from coefvq.vmp.publications import read_events
from tests.vmp_world import POLICY

Cli = Callable[..., Result]


PARAMS = Path(__file__).parents[3] / "params.yaml"


class FakeRegistry:
    """Stands in for the registry: a scorer by title, and what was asked of it."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.before_scoring: Callable[[], object] = lambda: None
        self.record = Head(1, {"icd": "3-ab"}, frozenset())

    def configure(self, uri: str | None, experiment: str, create: bool) -> None:
        self.calls.append(("configure", uri, experiment))

    def head(self, issues: Sequence[str] | None) -> Head:
        self.calls.append(("head", issues))
        return self.record

    def load_head(self, head: Head, audit: Any = None) -> FakeRegistry:
        self.calls.append(("load_head", head.bundles))
        return self

    def models_of(self, head: Head) -> dict[str, str]:
        return {"icd": "models"}

    def policies_of(self, head: Head) -> dict[str, CascadePolicy]:
        return {"icd": POLICY}

    def base(self, videos: Sequence[VideoInput]) -> list[ScoredVideo]:
        """``slow`` waits for the MLLM, which finds it positive; all others are decided at once."""
        self.before_scoring()
        return [
            ScoredVideo(v.video_id, "icd", 0.7, None, None, "none", "3-ab", awaits="mllm")
            if "slow" in v.title
            else ScoredVideo(v.video_id, "icd", 0.5, 0.9, "bad" in v.title, "mllm", "3-ab")
            if v.path.is_file()
            else ScoredVideo(v.video_id, "icd", None, None, None, "none", "3-ab", error="missing")
            for v in videos
        ]

    def ask(self, wanted: Mapping[str, Sequence[VideoInput]]) -> dict[str, Answers]:
        return {issue: Answers(np.full(len(videos), 0.9), {}) for issue, videos in wanted.items()}


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeRegistry:
    fake = FakeRegistry()
    monkeypatch.setattr(tracking, "configure", fake.configure)
    for name in ("head", "load_head", "models_of", "policies_of"):
        monkeypatch.setattr(champions, name, getattr(fake, name))
    for source in (PARAMS, PARAMS.with_name("recipe.yaml")):
        shutil.copy(source, tmp_path)
    return fake


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / f"{name}.mp4").write_bytes(name.encode() * 10)
    (folder / "metadata.csv").write_text(
        "file_name,title,views,published_at,stickers\n"
        "a.mp4,fine,7,2026-01-31 08:00:00Z,\"[\"\"50 %\"\"]\"\n"
        "b.mp4,bad one,,2026-01-31T08:00:00+02:00,\n"
        "c.mp4,,1,,\n"
    )  # fmt: skip
    return folder


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.chdir(tmp_path)
    return lambda *args: CliRunner().invoke(app, [str(arg) for arg in args])


def ok(result: Result) -> Any:
    assert result.exit_code == 0, result.output + repr(result.exception)
    return json.loads(result.stdout)


def test_publish_run_get_status(cli: Cli, clips: Path, registry: FakeRegistry) -> None:
    assert ok(cli("publish", clips, "--json")) == {"events": 3, "unchanged": 0, "last_offset": 3}
    done = ok(cli("run", "--once", "--issue", "icd", "--batch-size", "2", "--json"))
    assert done == {
        "dead": 0, "events": 3, "ignored": 0, "offset": 3, "pending": 0, "live": 2, "removed": 1, "stale": 0,
    }  # fmt: skip
    assert registry.calls == [("configure", None, "coefvq"), ("head", ["icd"]), ("load_head", {"icd": "3-ab"})]
    live = ok(cli("get", "a", "--json"))
    assert (live["state"], live["rule"], live["bundle_version"]) == ("live", "default", "icd=3-ab")
    assert live["value"]["stickers"] == ["50 %"]
    assert live["value"]["published_at"] == "2026-01-31T08:00:00+00:00"
    assert live["value"]["scores"]["icd"]["mllm_score"] == 0.9
    tombstone = cli("get", "b")
    assert tombstone.exit_code == 0
    assert tombstone.stdout.startswith("b: removed by rule 'positive' (source version 1, bundle icd=3-ab, epoch 1)")
    status = ok(cli("status", "--json"))
    assert (status["mllm"]["tasks"], status["mllm"]["rate"], status["mllm"]["certificate_holds"]) == (0, None, True)
    assert {name: value for name, value in status.items() if name != "mllm"} == {
        "consumers": {"vmp": {"lag": 0, "offset": 3}}, "dead_letters": 0, "index": {"live": 2, "removed": 1},
        "last_offset": 3,
    }  # fmt: skip


def test_workers_serve_what_the_run_leaves_them(cli: Cli, clips: Path, registry: FakeRegistry) -> None:
    table = clips / "metadata.csv"
    table.write_text(table.read_text().replace("fine", "slow one"))
    cli("publish", clips)
    assert ok(cli("run", "--once", "--mllm", "workers", "--json"))["pending"] == 1
    assert cli("get", "a").stdout.startswith("a: held until the MLLM answers")
    assert "1 wait for the MLLM" in cli("run", "--once", "--mllm", "workers").stdout
    done = cli("mllm", "--once", "--mllm-budget", "36/hour", "--mllm-max-wait", "60", "--json")
    assert ok(done) == {"answered": 1, "expired": 0, "pending": 0, "stand_ins": 0}
    assert ok(cli("get", "a", "--json"))["state"] == "removed"
    queue = ok(cli("status", "--json"))["mllm"]
    assert (queue["rate"], queue["takedown"]["videos"], queue["certificate_holds"]) == (0.01, 1, True)
    assert "in effect" in cli("status").stdout
    refused = cli("mllm", "--once", "--mllm-budget", "many")
    assert isinstance(refused.exception, ConfigError)
    assert "such as 0.5/s" in str(refused.exception)
    ok(cli("run", "--once", "--mllm-budget", "none", "--json"))
    assert ok(cli("status", "--json"))["mllm"]["rate"] is None


def test_publishing_again_makes_events_of_changes_only(cli: Cli, clips: Path, registry: FakeRegistry) -> None:
    cli("publish", clips)
    assert ok(cli("publish", clips, "--json"))["events"] == 0
    (clips / "a.mp4").write_bytes(b"new content")
    assert ok(cli("publish", clips, "--json")) == {"events": 1, "unchanged": 2, "last_offset": 4}
    assert ok(cli("publish", "--delete", "c", "--delete", "a", "--json"))["events"] == 2
    cli("run", "--once")
    assert ok(cli("get", "a", "--json"))["source_version"] == 3
    assert "c: removed by rule 'deleted'" in cli("get", "c").stdout


def test_dead_letters_are_listed_and_retried(cli: Cli, clips: Path, registry: FakeRegistry) -> None:
    content = (clips / "c.mp4").read_bytes()
    cli("publish", clips)
    (clips / "c.mp4").unlink()
    assert ok(cli("run", "--once", "--json"))["dead"] == 1
    assert "icd: missing" in cli("dlq", "list").stdout
    (clips / "c.mp4").write_bytes(content)
    assert [letter["video_id"] for letter in ok(cli("dlq", "list", "--json"))["videos"]] == ["c"]
    assert ok(cli("dlq", "replay", "--json"))["videos"] == 1
    assert ok(cli("dlq", "replay", "--json"))["videos"] == 0  # already waiting
    cli("run", "--once")
    assert ok(cli("dlq", "list", "--json"))["videos"] == []
    assert ok(cli("get", "c", "--json"))["state"] == "live"


def test_own_rules_and_a_second_consumer(cli: Cli, clips: Path, tmp_path: Path, registry: FakeRegistry) -> None:
    cli("publish", clips)
    rules = tmp_path / "rules.yaml"
    rules.write_text('rules: [{name: seen, when: [{field: views, op: ">", value: 5}], then: ignored}]\ndefault: live')
    assert ok(cli("run", "--once", "--rules", rules, "--json"))["ignored"] == 1
    assert cli("get", "a").exit_code == 1
    again = ok(cli("run", "--once", "--consumer", "second", "--rules", "shipped", "--json"))
    assert (again["events"], again["stale"]) == (3, 0)  # other rules are another deployment
    assert ok(cli("get", "a", "--json"))["state"] == "live"


@pytest.mark.parametrize("args", [("get", "a"), ("status",), ("dlq", "list")])
def test_looking_at_no_state_makes_none(cli: Cli, tmp_path: Path, args: tuple[str, ...]) -> None:
    error = cli(*args).exception
    assert isinstance(error, DataError)
    assert "no such state; run `coefvq vmp publish` first" in str(error)
    assert list(tmp_path.iterdir()) == []


def test_status_before_the_first_run(cli: Cli, clips: Path) -> None:
    cli("publish", clips)
    assert ok(cli("status", "--json"))["consumers"] == {}
    assert "events in the log" in cli("status").stdout


def test_unknown_video_is_a_data_error_of_one_line(cli: Cli, clips: Path, registry: FakeRegistry) -> None:
    cli("publish", clips)
    cli("run", "--once")
    error = cli("get", "nobody").exception
    assert isinstance(error, DataError)
    assert error.exit_code == 3
    assert str(error) == "video 'nobody': not in the index; publish it and run, or see `coefvq vmp dlq list`"


def test_nothing_to_publish(cli: Cli) -> None:
    error = cli("publish").exception
    assert isinstance(error, ConfigError)
    assert "give a folder or table, or --delete ID" in str(error)


def test_nothing_is_loaded_for_bad_rules_an_unknown_issue_or_missing_settings(
    cli: Cli, clips: Path, registry: FakeRegistry
) -> None:
    for args in (("--rules", "none.yaml"), ("--issue", "xyz"), ("--params", "none.yaml")):
        assert isinstance(cli("run", "--once", *args).exception, ConfigError)
    assert registry.calls == []


def test_a_missing_champion_stops_before_any_event(
    cli: Cli, clips: Path, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_champion(issues: Sequence[str] | None) -> None:
        raise RegistryError("no issue has a champion")

    monkeypatch.setattr(champions, "head", no_champion)
    cli("publish", clips)
    assert isinstance(cli("run", "--once").exception, RegistryError)
    assert ok(cli("status", "--json"))["consumers"] == {}


def test_without_once_a_signal_ends_it_after_the_batch_with_code_0(
    cli: Cli, clips: Path, registry: FakeRegistry
) -> None:
    cli("publish", clips)
    registry.before_scoring = lambda: os.kill(os.getpid(), signal.SIGTERM)
    result = cli("run", "--batch-size", "2")
    assert result.exit_code == 0, repr(result.exception)
    line = "2 events up to offset 2: 1 live, 1 removed, 0 ignored; 0 dead letters, 0 stale\n"
    assert (result.stderr, result.stdout) == (line, line)
    assert ok(cli("status", "--json"))["consumers"] == {"vmp": {"lag": 1, "offset": 2}}


def test_a_person_overrides_a_verdict(cli: Cli, clips: Path, registry: FakeRegistry) -> None:
    cli("publish", clips)
    cli("run", "--once")
    said = ("--by", "ana", "--reason", "is satire")
    assert ok(cli("override", "b", "--verdict", "live", *said, "--json"))["state"] == "live"
    assert cli("get", "b").stdout.startswith("b: live by ana at 20")
    assert ok(cli("status", "--json"))["index"] == {"live": 3}
    assert ok(cli("override", "b", "--verdict", "model", *said, "--json"))["state"] == "removed"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--by", "", "--reason", "x"), "--by is blank"),
        (("--by", "ana", "--reason", " "), "--reason is blank"),
    ],
)
def test_an_override_without_name_or_reason_is_refused(
    cli: Cli, clips: Path, registry: FakeRegistry, args: tuple[str, ...], message: str
) -> None:
    cli("publish", clips)
    cli("run", "--once")
    assert message in str(cli("override", "b", "--verdict", "live", *args).exception)
    assert cli("override", "b", "--verdict", "live").exit_code == 2
    assert ok(cli("get", "b", "--json"))["override"] is None


def test_rules_are_tried_on_what_the_index_holds(cli: Cli, clips: Path, registry: FakeRegistry, tmp_path: Path) -> None:
    table = clips / "metadata.csv"
    rows = table.read_text().splitlines()
    columns = (",creator_id,duration_s", ",ana,12.5", ",bob,3", ",,")
    table.write_text("".join(f"{row}{more}\n" for row, more in zip(rows, columns, strict=True)))
    cli("publish", clips)
    cli("run", "--once")
    rules = tmp_path / "mine.yaml"
    rules.write_text(
        "rules:\n"
        '  - {name: long, when: [{field: duration_s, op: ">", value: 10}], then: removed}\n'
        "  - {name: friend, when: [{field: creator_id, op: in, value: [bob, eve]}], then: remained}\n"
        "default: ignored\n"
    )
    shown = ok(cli("rules", "test", rules, "--json"))
    assert (shown["videos"], shown["changed"], shown["waiting"]) == (3, 2, 0)
    assert {(row["before"], row["after"], row["rule"], *row["examples"]) for row in shown["rows"]} == {
        ("live", "removed", "long", "a"),
        ("removed", "live", "friend", "b"),
        ("live", "ignored", "default", "c"),
    }
    assert "2 of 3 videos would change; 0 are not decided yet" in cli("rules", "test", rules).stdout
    assert ok(cli("status", "--json"))["index"] == {"live": 2, "removed": 1}  # nothing is written
    ok(cli("run", "--once", "--json", "--rules", rules))
    assert "0 events published, 3 unchanged" in cli("publish", clips).stdout  # also with creator and duration
    table.write_text(table.read_text().replace("12.5", "x"))
    assert "row 2: duration_s = 'x': expected a finite number above 0" in str(cli("publish", clips).exception)


def test_after_a_rollback_a_campaign_decides_again(cli: Cli, clips: Path, registry: FakeRegistry) -> None:
    cli("publish", clips)
    assert "the index is empty" in str(cli("rescore", "start").exception)
    cli("run", "--once")
    assert ok(cli("rescore", "status", "--json")) == {"campaign": None}
    registry.record = Head(2, {"icd": "2-aa"}, frozenset({"icd=3-ab"}))
    shown = ok(cli("rescore", "start", "--dry-run", "--json"))
    assert shown == {"rows": 3, "withdrawn": 3, "stored": 3, "changed": 2, "asked": 0}
    assert ok(cli("status", "--json"))["index"] == {"live": 2, "removed": 1}  # a dry run changes nothing
    ok(cli("run", "--once", "--json"))
    assert ok(cli("status", "--json"))["index"] == {"withdrawn": 3}
    assert "was removed by rule 'positive'" in cli("get", "b").stdout
    refused = cli("rescore", "start", "--issue", "ICD")  # would be of no effect
    assert refused.exit_code == 2
    assert ok(cli("rescore", "status", "--json")) == {"campaign": None}
    assert ok(cli("rescore", "start", "--json"))["campaign"]["total"] == 3
    assert ok(cli("rescore", "pause", "--json"))["campaign"]["state"] == "paused"
    assert ok(cli("rescore", "resume", "--json"))["remaining"] == 3
    cli("run", "--once")
    assert ok(cli("status", "--json"))["index"] == {"removed": 3}  # by this policy, the stored scores are positive
    assert ok(cli("rescore", "status", "--json"))["campaign"]["state"] == "done"
    assert ok(cli("get", "a", "--json"))["epoch"] == 2


def test_negative_views_are_refused(cli: Cli, clips: Path) -> None:
    (clips / "metadata.csv").write_text("file_name,views\na.mp4,-5\n")
    error = cli("publish", clips).exception
    assert isinstance(error, DataError)
    assert "views" in str(error)


@pytest.mark.parametrize("command", ["publish", "run", "get", "status", "override"])
def test_every_command_shows_an_example(cli: Cli, command: str) -> None:
    shown = cli(command, "--help").output
    assert f"Example: coefvq vmp {command}" in " ".join(shown.split())


def test_folder_without_table(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "x.mp4").write_bytes(b"x")
    (tmp_path / "sub" / "y.webm").write_bytes(b"y")
    events = list(read_events(tmp_path))
    assert {(e.video_id, Path(e.uri).name, e.views, e.published_at) for e in events} == {
        ("x", "x.mp4", None, None), (id_from_path("sub/y.webm"), "y.webm", None, None),
    }  # fmt: skip
    assert len({event.sha256 for event in events}) == 2


def test_clips_that_an_older_version_published_keep_their_ids(tmp_path: Path, cli: Cli) -> None:
    """It named them after the file alone; under new ids, the old entries would never hear of a change again."""
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    clip = tmp_path / "folder" / "sub" / "y.mp4"
    clip.write_bytes(b"y")
    table = tmp_path / "folder" / "t.csv"
    table.write_text("file_name,video_id\nsub/y.mp4,y\n")
    ok(cli("publish", table, "--json"))
    table.unlink()
    (tmp_path / "folder" / "y.mp4").write_bytes(b"another of that name")
    assert ok(cli("publish", tmp_path / "folder", "--json"))["events"] == 1
    clip.write_bytes(b"changed")
    assert ok(cli("publish", tmp_path / "folder", "--json"))["events"] == 1
    with open_log(tmp_path / "vmp" / "log.sqlite", create=False) as log:
        events = [(event.video_id, event.source_version) for event in log.poll(0, 9)]
    assert events[::2] == [("y", 1), ("y", 2)]
    assert events[1][0].startswith("y-")


def test_times_are_utc_wherever_the_machine_stands(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        times = [event.published_at for event in read_events(clips)]
    finally:
        monkeypatch.undo()
        time.tzset()
    assert times == ["2026-01-31T08:00:00+00:00", "2026-01-31T06:00:00+00:00", None]


def test_parquet_manifest_with_a_root(tmp_path: Path, clips: Path) -> None:
    manifest = tmp_path / "manifest.parquet"
    columns = {
        "video_id": ["k1", "k2"],
        "uri": ["a.mp4", "gone.mp4"],
        "title": ["t", ""],
        "stickers": [["s"], []],
        "views": pd.array([3, None], "Int64"),
        "published_at": ["2026-01-31 08:00:00+08:00", None],
    }
    pd.DataFrame(columns).to_parquet(manifest)
    progress: list[tuple[int, int]] = []
    first, second = read_events(manifest, clips, lambda done, total: progress.append((done, total)))
    assert (first.video_id, first.uri, first.stickers, first.views) == (
        "k1",
        str((clips / "a.mp4").resolve()),
        ("s",),
        3,
    )
    assert first.published_at == "2026-01-31T00:00:00+00:00"
    assert (second.sha256, second.views, second.published_at) == (None, None, None)
    assert progress == [(1, 2), (2, 2)]
    with pytest.raises(DataError, match=r"none of its 2 files is below .*; pass --root"):
        list(read_events(manifest))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("../../x.mp4,,", "points outside the data root"),
        ("https://host/x.mp4,,", "row 2: https://host/x.mp4: expected a local file"),
        ("a.mp4,,yesterday", "row 2: published_at = 'yesterday': expected ISO 8601"),
    ],
)
def test_rows_that_are_refused(clips: Path, row: str, message: str) -> None:
    (clips / "metadata.csv").write_text(f"file_name,title,published_at\n{row}\n")
    with pytest.raises(DataError) as error:
        list(read_events(clips))
    assert message in str(error.value)


HOSTILE = "x\x1b[2J\nerror: forged\r\u202e [red]y[/red] \u2028z"


def quiet(result: Result) -> str:
    """The output of a command, which must not steer the terminal."""
    assert not set(result.output) & {"\x1b", "\r", "\u202e", "\u2028", "\x85"}
    assert not any(line.startswith("error: forged") for line in result.output.splitlines())
    return result.output


def test_hostile_ids_and_titles_do_not_reach_the_terminal(cli: Cli, clips: Path, registry: FakeRegistry) -> None:
    with (clips / "metadata.csv").open("a") as table:
        table.write('b.mp4,"t\x1b[2J\nerror: forged\u202e",1,,\n')
    (clips / "metadata.csv").write_text(
        (clips / "metadata.csv").read_text().replace("b.mp4,bad one,,2026-01-31T08:00:00+02:00,\n", "")
    )
    cli("publish", clips)
    cli("run", "--once")
    with open_index(Path("vmp/index.sqlite")) as index, index.database.transaction() as connection:
        # importers refuse such an id; a state made elsewhere may hold it
        for table in ("entries", "videos"):
            connection.execute(f"UPDATE {table} SET video_id = ? WHERE video_id = 'a'", (HOSTILE,))  # noqa: S608
    (clips / "c.mp4").unlink()
    cli("publish", "--delete", "c")
    quiet(cli("run", "--once"))
    shown = "x\\x1b[2J\\nerror: forged\\r\\u202e [red]y[/red] \\u2028z: live by rule"
    assert shown in quiet(cli("get", HOSTILE))
    quiet(cli("get", "b"))
    quiet(cli("dlq", "list"))
    error = cli("get", HOSTILE + "unknown").exception
    assert isinstance(error, DataError)
    assert len(str(error).splitlines()) == 1
    assert ok(cli("get", HOSTILE, "--json"))["video_id"] == HOSTILE


def test_hostile_ids_in_the_table_of_scores() -> None:
    rows = [ScoredVideo(HOSTILE, "icd", 0.5, None, False, "base", f"3-{HOSTILE}")]
    stream = io.StringIO()
    Console(file=stream, force_terminal=True, width=400).print(results_table(rows))
    text = stream.getvalue()
    assert "[red]y[/red]" in text
    assert "\x1b[2J" not in text
    assert "\nerror" not in text
