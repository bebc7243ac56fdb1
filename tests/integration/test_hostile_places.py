"""A stranger's folder and table through every entrance: nothing outside is read or written, no request is sent.

What lies outside is watched by an audit hook, which sees every file that this process opens; a pipe among it would
hold up whoever opens it, worker processes included. Two servers count what they are asked.
"""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest

from coefvq.cli.score import collect
from coefvq.config import MediaSpec, Params
from coefvq.data.batches import Batch, stage_batch
from coefvq.data.importers import open_table
from coefvq.data.media.clips import ClipStore
from coefvq.data.media.decode import DEFAULT_LIMITS
from coefvq.errors import CoefVQError, DataError
from coefvq.simulation.reupload.generate import Settings, reupload
from coefvq.vmp.publications import read_events
from tasks.data_copy import copy_data
from tests.integration.test_ingest import run_ingest, settings
from tests.unit.clip_server import ClipServer, serving

pytestmark = pytest.mark.timeout(120)
GOOD = ("good.mp4", "sub/TWO.MP4", "red\x1b[31m\nok.mp4")
_WATCHED: list[str] = []
_OPENED: list[str] = []


def _see(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _WATCHED and isinstance(arguments[0], str | bytes | os.PathLike):
        path, flags = Path(os.fsdecode(arguments[0])), arguments[2]
        # a last name that is a link is refused by the kernel itself
        refuses_links = isinstance(flags, int) and flags & os.O_NOFOLLOW
        place = os.path.realpath(path.parent if refuses_links else path) + (f"/{path.name}" if refuses_links else "")
        if any(place.startswith(folder) for folder in _WATCHED):
            _OPENED.append(place)


sys.addaudithook(_see)


@dataclass
class Scene:
    """``source`` is the stranger's, ``outside`` is not; ``bait`` must never be asked, ``front`` redirects to it."""

    top: Path
    front: ClipServer
    bait: ClipServer
    state: dict[str, str] = field(default_factory=dict)

    @property
    def source(self) -> Path:
        return self.top / "space" / "source"

    @property
    def outside(self) -> Path:
        return self.top / "outside"

    def rows(self) -> dict[str, str]:
        """Bad rows, and ingest's reason for each."""
        secret = self.outside / "secret.mp4"
        outside = [
            "../dvc.yaml", "../../outside/secret.mp4", "sub/../../../outside/secret.mp4", str(secret), f"file://{secret}",
            f"FILE://{secret}", "link.mp4", "way/secret.mp4", "device.mp4", "pipelink.mp4", "C:\\clips\\a.mp4",
            self.bait.url("a.mp4"), self.bait.url("a.mp4").replace("http", "HTTP"),
            self.front.url(f"to/{self.bait.url('a.mp4')}"),
            f"reference://x::{self.bait.url('a.mp4')}", "memory://bucket/a.mp4",
        ]  # fmt: skip
        missing = [
            f"simplecache::{self.bait.url('a.mp4')}",
            "..\\..\\outside\\secret.mp4",
            "n" * 300 + ".mp4",
            "none.mp4",
            "loop.mp4",
        ]
        unsupported = ["pipe.mp4", "folder.mp4"]
        reasons = {"outside_root": outside, "missing": missing, "unsupported": unsupported}
        return {row: reason for reason, rows in reasons.items() for row in rows}

    def write(self, rows: list[str]) -> None:
        with (self.source / "metadata.csv").open("w", newline="") as stream:
            table = csv.writer(stream)
            table.writerow(["file_name", "video_id", "label", "title"])
            table.writerows([row, f"v{n}", n % 2, "\x1b]0;title\x07"] for n, row in enumerate(rows))

    def check(self) -> None:
        """Nothing happened outside."""
        assert _OPENED == []
        assert not self.bait.requests
        assert not self.front.requests
        assert contents(self.outside, self.top / "space" / "dvc.yaml") == self.state


def contents(*places: Path) -> dict[str, str]:
    """Names, kinds and contents; a pipe is not read."""
    every = [path for place in places for path in [place, *sorted(place.rglob("*"))]]
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else str(path.lstat().st_mode)
        for path in every
    }


@pytest.fixture
def scene(tmp_path: Path, clips: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """A hostile folder with a table that names everything in it and around it."""
    monkeypatch.setenv("COEFVQ_CACHE", str(tmp_path / "cache"))
    (tmp_path / "www").mkdir()
    with serving(tmp_path / "www") as front, serving(tmp_path / "www") as bait:
        made = Scene(tmp_path, front, bait)
        for folder in (made.source / "sub", made.source / "folder.mp4", made.outside):
            folder.mkdir(parents=True)
        clip = sorted((clips / "videos").glob("*.mp4"))
        for name, path in zip(GOOD, clip, strict=False):
            shutil.copyfile(path, made.source / name)
        shutil.copyfile(clip[5], made.outside / "secret.mp4")
        shutil.copyfile(clip[5], tmp_path / "www" / "a.mp4")
        (made.top / "space" / "dvc.yaml").write_text("stages: {}\n")
        (made.source / "notes.txt").write_text("no clip")
        (made.source / "e.wmv").write_text("no accepted one")
        os.mkfifo(made.source / "pipe.mp4")
        os.mkfifo(made.outside / "pipe.mp4")
        for link, target in (
            ("link.mp4", "../../outside/secret.mp4"), ("way", "../../outside"), ("device.mp4", "/dev/zero"),
            ("loop.mp4", "loop.mp4"), ("pipelink.mp4", "../../outside/pipe.mp4"),
        ):  # fmt: skip
            (made.source / link).symlink_to(target)
        made.write([*GOOD, *made.rows()])
        made.state = contents(made.outside, made.top / "space" / "dvc.yaml")
        _OPENED.clear()
        _WATCHED[:] = [str(made.outside), "/dev/zero", "/etc/passwd"]
        try:
            yield made
        finally:
            _WATCHED.clear()


def copied(raw: Path) -> set[str]:
    return {str(path.relative_to(raw)) for path in raw.rglob("*") if not path.is_dir() or path.is_symlink()}


def as_scan(scene: Scene) -> Scene:
    """The same folder without its table."""
    (scene.source / "metadata.csv").unlink()
    return scene


def test_demo_copies_listed_clips_only(scene: Scene, tmp_path: Path) -> None:
    raw = tmp_path / "w" / "data" / "raw"
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "dvc.yaml").write_text("mine")
    [line] = copy_data(scene.source, raw, ())
    assert line.startswith(f"{len(scene.rows())} of {len(scene.rows()) + 3} clips not copied: ")
    assert copied(raw) == {*GOOD, "metadata.csv"}
    assert not any(path.is_symlink() for path in raw.rglob("*"))
    assert sorted(path.name for path in (tmp_path / "w").iterdir()) == ["data", "dvc.yaml"]
    assert (tmp_path / "w" / "dvc.yaml").read_text() == "mine"
    assert (raw / "metadata.csv").read_bytes() == (scene.source / "metadata.csv").read_bytes()
    scene.check()


@pytest.mark.parametrize("row", ["../../dvc.yaml", "../dvc.yaml", "/{w}/dvc.yaml", "data/../../dvc.yaml"])
def test_demo_leaves_the_pipeline_alone(scene: Scene, tmp_path: Path, row: str) -> None:
    """The audit's way to run code: a row whose place in the copy is the workspace's own dvc.yaml."""
    workspace, table = tmp_path / "w", scene.source / "a" / "b" / "rows.csv"
    for folder in (workspace / "data", table.parent):
        folder.mkdir(parents=True)
    for place in (workspace / "dvc.yaml", workspace / "data" / "dvc.yaml"):
        place.write_text("mine")
    for place in (scene.source / "dvc.yaml", scene.source / "a" / "dvc.yaml"):
        place.write_text("stages: {evil: {cmd: touch /tmp/owned}}")
    shutil.copyfile(scene.source / "good.mp4", table.parent / "good.mp4")
    table.write_text(f"file_name,label\ngood.mp4,1\n{row.format(w=str(workspace).lstrip('/'))},0\n")
    [line] = copy_data(table, workspace / "data" / "raw", ())
    assert "1 of 2 clips not copied" in line
    assert copied(workspace) == {"dvc.yaml", "data/dvc.yaml", "data/raw/good.mp4", "data/raw/metadata.csv"}
    assert {place.read_text() for place in workspace.rglob("dvc.yaml")} == {"mine"}


def test_demo_with_a_table_by_itself(scene: Scene, tmp_path: Path) -> None:
    table = scene.source / "my rows.csv"
    (scene.source / "metadata.csv").rename(table)
    copy_data(table, tmp_path / "w" / "raw", ())
    assert copied(tmp_path / "w" / "raw") == {*GOOD, "metadata.csv"}
    scene.check()
    scene.write(list(scene.rows()))
    with pytest.raises(DataError, match=r"none of its .* clips can be copied"):
        copy_data(scene.source, tmp_path / "x" / "raw", ())
    assert not (tmp_path / "x" / "raw").exists()


def test_demo_with_a_folder_alone(scene: Scene, tmp_path: Path) -> None:
    lines = copy_data(as_scan(scene).source, tmp_path / "raw", ())
    assert copied(tmp_path / "raw") == set(GOOD)
    for words in (
        "e.wmv (not an accepted container)",
        "pipe.mp4 (a pipe, socket or device)",
        "way (a link to a folder)",
    ):
        assert words in lines[0]
    scene.check()


@pytest.mark.parametrize("name", ["dvc.yaml", "metadata.csv", ".dvc/config", ".gitignore", "x.mp4.dvc", "run.sh"])
def test_demo_takes_no_file_that_is_no_clip(scene: Scene, tmp_path: Path, name: str) -> None:
    (scene.source / name).parent.mkdir(exist_ok=True)
    if name != "metadata.csv":
        shutil.copyfile(scene.source / "good.mp4", scene.source / name)
    scene.write(["good.mp4", name])
    copy_data(scene.source, tmp_path / "raw", ())
    assert copied(tmp_path / "raw") == {"good.mp4", "metadata.csv"}


def reasons(root: Path) -> dict[str, tuple[str, str]]:
    table = pd.read_parquet(root / "manifest.parquet")
    return {row["uri"]: (row["reason"], row["sha256"]) for row in table.to_dict("records")}


def ingested(scene: Scene, repository: Path, **changes: object) -> dict[str, tuple[str, str]]:
    params: Params = settings(scene.top, repository, paths__raw=str(scene.source), **changes)
    run_ingest(params)
    return reasons(scene.top)


def test_ingest(scene: Scene, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = ingested(scene, repository)
    expected = {uri: (reason, "") for uri, reason in scene.rows().items()}
    assert {uri: found[uri] for uri in expected} == expected
    assert [found[name][0] for name in GOOD] == ["ok"] * 3
    assert "16 outside_root (first: ../dvc.yaml)" in capsys.readouterr().err
    scene.check()


def test_ingest_where_http_is_allowed(scene: Scene, repository: Path) -> None:
    """The table may name a host then, but its server may not send us on."""
    trap = scene.front.url(f"to/{scene.bait.url('a.mp4')}")
    scene.write(["good.mp4", trap, "file:///etc/passwd", f"simplecache::{scene.bait.url('a.mp4')}"])
    found = ingested(scene, repository, ingest__protocols=["http"])
    assert [reason for reason, _ in found.values()] == ["ok", "unreachable", "outside_root", "missing"]
    assert not scene.bait.requests
    assert scene.front.requests


def test_snapshot(scene: Scene, repository: Path) -> None:
    params = settings(scene.top, repository)
    for layout in ("files", "reference"):
        for row in scene.rows():
            scene.write(["good.mp4", row])
            table = open_table(scene.source)
            batch = Batch("b", layout, scene.source / "metadata.csv", scene.top / "batch.sqlite", table.count)
            media = None if layout == "files" else str(scene.source)
            with pytest.raises(CoefVQError):
                stage_batch(table, batch, media, {}, params.ingest, 2)
            batch.store.unlink(missing_ok=True)
    scene.check()


def test_snapshot_of_what_is_no_clip(scene: Scene, repository: Path) -> None:
    scene.write(["good.mp4", "notes.txt"])
    table = open_table(scene.source)
    batch = Batch("b", "files", scene.source / "metadata.csv", scene.top / "batch.sqlite", table.count)
    with pytest.raises(DataError, match=r"notes\.txt: not an accepted container"):
        stage_batch(table, batch, None, {}, settings(scene.top, repository).ingest, 2)
    with sqlite3.connect(batch.store) as db:
        assert db.execute("SELECT count(*) FROM batch WHERE uri = 'notes.txt'").fetchone() == (0,)


def test_publish(scene: Scene) -> None:
    for row, reason in scene.rows().items():
        scene.write(["good.mp4", row])
        if reason == "outside_root":
            with pytest.raises(DataError, match="row 3: "):
                list(read_events(scene.source))
        else:  # becomes a dead letter
            assert [event.sha256 is None for event in read_events(scene.source)] == [False, True]
    scene.write(["good.mp4", "notes.txt"])
    with pytest.raises(DataError, match=r"row 3: notes\.txt: not an accepted container"):
        list(read_events(scene.source))
    scene.check()


def test_publish_names_what_it_does_not_take(scene: Scene) -> None:
    lines: list[str] = []
    events = read_events(as_scan(scene).source, note=lines.append)
    assert {Path(event.uri).name: event.sha256 is None for event in events} == {
        "good.mp4": False,
        "TWO.MP4": False,
        "red\x1b[31m\nok.mp4": False,
        "loop.mp4": True,
    }
    assert lines[0].startswith("7 files not taken: device.mp4 (a link that leads outside), e.wmv (not an accepted")
    scene.check()


@pytest.mark.parametrize("how", ["folder", "table", "scan"])
def test_score(scene: Scene, how: str) -> None:
    scene = as_scan(scene) if how == "scan" else scene
    inputs = collect([scene.source / "metadata.csv" if how == "table" else scene.source], "", ())
    store = ClipStore(scene.top / "cache", MediaSpec(frames=2, frame_size=32, audio_seconds=1.0), DEFAULT_LIMITS)
    bad = {inputs[number].video_id: error.reason for number, error in store.try_fill(inputs, 1).items()}
    if how == "scan":
        assert bad == {"loop": "missing"}
    else:
        assert len(bad) == len(scene.rows())
        assert set(bad.values()) == {"outside_root", "missing"}
    assert len(inputs) - len(bad) == 3
    scene.check()


def test_reupload(scene: Scene) -> None:
    settings = Settings(copies=0.0, own_edits=0.0, size=64, seconds=1.0)
    made = reupload(scene.source, scene.top / "made", settings, limits=DEFAULT_LIMITS)
    assert {footage.uri: footage.reason for footage in made.skipped} == scene.rows()
    scene.check()
