"""The clip store stays within its limit, the least recently used clips go, and a stream leaves none behind."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coefvq.cli.clips import app
from coefvq.config import MediaSpec
from coefvq.data.media.clip_entry import entry_bytes
from coefvq.data.media.clip_room import ClipRoom, entries, prune
from coefvq.data.media.clips import ClipStore
from coefvq.data.media.decode import DEFAULT_LIMITS
from coefvq.errors import MediaError
from coefvq.files import sha256_file
from coefvq.records import VideoInput

SPEC = MediaSpec(frames=2, frame_size=32, audio_seconds=1.0)


def put(root: Path, name: str, size: int, age: float) -> Path:
    path = root / "clips" / "settings" / name[:2] / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (10_000.0 - age, 10_000.0 - age))
    return path


def names(root: Path) -> set[str]:
    return {entry.path.stem for entry in entries(root)}


def test_the_oldest_use_goes_first(tmp_path: Path) -> None:
    for age, name in enumerate(["aa", "bb", "cc", "dd"]):
        put(tmp_path, name, 100, age)
    assert prune(tmp_path, max_bytes=250) == (2, 200)
    assert names(tmp_path) == {"aa", "bb"}
    assert prune(tmp_path, before=9_999.5) == (1, 100)
    assert names(tmp_path) == {"aa"}


def test_what_is_written_stays_within_the_limit_whoever_wrote_before(tmp_path: Path) -> None:
    for number in range(8):
        put(tmp_path, f"old{number}", 100, age=100 - number)
    room = ClipRoom(tmp_path, 1000)
    for number in range(30):
        put(tmp_path, f"new{number:02d}", 100, age=-number)
        room.wrote(100)
        assert sum(entry.bytes for entry in entries(tmp_path)) <= 1000
    assert "new29" in names(tmp_path)
    assert "old0" not in names(tmp_path)


@pytest.fixture
def videos(clips: Path) -> list[VideoInput]:
    found = sorted((clips / "videos").glob("*.mp4"))[:4]
    return [VideoInput(path.stem, path, sha256=sha256_file(path)) for path in found]


def test_a_full_store_decodes_again_what_it_gave_up(videos: list[VideoInput], tmp_path: Path) -> None:
    store = ClipStore(tmp_path, SPEC, DEFAULT_LIMITS, max_bytes=2 * entry_bytes(SPEC))
    assert store.try_fill(videos, 1) == {}
    assert len(names(tmp_path)) <= 2
    whole = ClipStore(tmp_path / "whole", SPEC, DEFAULT_LIMITS)
    for video in videos:
        assert (store.get(video).frames == whole.get(video).frames).all()
        assert len(names(tmp_path)) <= 2
    assert len(names(tmp_path / "whole")) == 4


def test_a_stream_leaves_the_clips_of_others_and_none_of_its_own(videos: list[VideoInput], tmp_path: Path) -> None:
    store = ClipStore(tmp_path, SPEC, DEFAULT_LIMITS)
    store.get(videos[0])
    with store.passing(videos):
        assert store.try_fill(videos, 1) == {}
        assert len(names(tmp_path)) == 4
    assert names(tmp_path) == {videos[0].sha256}
    with pytest.raises(MediaError), store.passing(videos[1:]):
        store.fill([videos[1], VideoInput("gone", tmp_path / "gone.mp4")], 1)
    assert names(tmp_path) == {videos[0].sha256}
    with store.passing([replace(videos[1], sha256=None)]):
        pass  # a clip without a hash is not looked for


def test_the_commands_count_and_make_room(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COEFVQ_CACHE", str(tmp_path / "cache"))
    for name in ("params.yaml", "recipe.yaml"):
        (tmp_path / name).write_text((repository / name).read_text())
    monkeypatch.chdir(tmp_path)
    for age, name in enumerate(["aa", "bb", "cc"]):
        put(tmp_path / "cache", name, 1000, age)
    told = json.loads(CliRunner().invoke(app, ["stats", "--json"]).output)
    assert told["max_bytes"] == 50 * 2**30
    assert [(row["clips"], row["bytes"]) for row in told["settings"]] == [(3, 3000)]
    assert "3.0 kB of at most 53.7 GB" in CliRunner().invoke(app, ["stats"]).output
    assert "0 clips removed" in CliRunner().invoke(app, ["prune"]).output
    assert json.loads(CliRunner().invoke(app, ["prune", "--unused-days", "1", "--json"]).output)["clips"] == 3
