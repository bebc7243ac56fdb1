"""The clip store: what is decoded is what was ingested, from disk or from a store."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from coefvq.config import MediaSpec
from coefvq.data.clips import ClipStore
from coefvq.data.manifest import to_inputs
from coefvq.data.media import DEFAULT_LIMITS
from coefvq.data.remote import copy_path
from coefvq.data.workers import LimitedPool
from coefvq.errors import MediaError
from coefvq.files import sha256_file
from coefvq.records import VideoInput
from tests.unit.clip_server import ClipServer, serving

SPEC = MediaSpec(frames=2, frame_size=32, audio_seconds=1.0)


@pytest.fixture
def folder(clips: Path, tmp_path: Path) -> Path:
    """Two good clips, a bad one."""
    (tmp_path / "raw").mkdir()
    for name, source in zip("ab", sorted((clips / "videos").glob("*.mp4")), strict=False):
        shutil.copyfile(source, tmp_path / "raw" / f"{name}.mp4")
    (tmp_path / "raw" / "bad.mp4").write_text("x")
    return tmp_path / "raw"


@pytest.fixture
def server(folder: Path) -> Iterator[ClipServer]:
    """The clips behind a web server."""
    with serving(folder) as state:
        yield state


def video(path: Path, *, hashed: bool = True) -> VideoInput:
    """A clip as the manifest knows it."""
    return VideoInput(path.stem, path, sha256=sha256_file(path) if hashed else None)


def remote(server: ClipServer, name: str, root: Path) -> VideoInput:
    """A clip of the server as the manifest knows it."""
    url = server.url(name)
    return VideoInput(name, copy_path(url, root), sha256=sha256_file(server.folder / name), url=url)


def test_a_file_that_changed_since_ingest_is_not_decoded(folder: Path, tmp_path: Path) -> None:
    store, known = ClipStore(tmp_path / "cache", SPEC), video(folder / "a.mp4")
    shutil.copyfile(folder / "b.mp4", folder / "a.mp4")
    with pytest.raises(MediaError, match=r"a\.mp4: its bytes are not those that were ingested") as caught:
        store.get(known)
    assert caught.value.reason == "changed"
    assert store.get(replace(known, sha256=None)).frames.shape == (2, 3, 32, 32)


def test_a_stored_clip_needs_no_file(folder: Path, tmp_path: Path) -> None:
    store, known = ClipStore(tmp_path / "cache", SPEC), video(folder / "a.mp4")
    first = store.get(known)
    (folder / "a.mp4").unlink()
    assert np.array_equal(store.get(known).frames, first.frames)
    with pytest.raises(MediaError, match=r"a\.mp4: no such file") as caught:
        store.get(replace(known, sha256=None))
    assert caught.value.reason == "missing"


def test_a_remote_clip_is_fetched_once_and_checked(server: ClipServer, folder: Path, tmp_path: Path) -> None:
    store = ClipStore(tmp_path / "cache", SPEC)
    clip = store.get(remote(server, "a.mp4", store.root))
    assert np.array_equal(clip.frames, store.get(video(folder / "a.mp4")).frames)
    other_settings = ClipStore(store.root, SPEC.model_copy(update={"frames": 3}))
    other_settings.get(remote(server, "a.mp4", store.root))
    assert server.hits == {"/a.mp4": 1}
    known = remote(server, "b.mp4", store.root)
    shutil.copyfile(folder / "a.mp4", folder / "b.mp4")
    with pytest.raises(MediaError, match=r"/b\.mp4: its bytes are not those") as caught:
        store.get(known)
    assert caught.value.reason == "changed"


def test_fill_names_the_first_bad_clip(folder: Path, tmp_path: Path) -> None:
    store, done = ClipStore(tmp_path / "cache", SPEC), list[int]()
    videos = [video(folder / "a.mp4"), video(folder / "b.mp4")]
    store.fill(videos, 1, done.append)
    store.fill(videos, 1, done.append)
    assert sum(done) == 4
    with pytest.raises(MediaError, match=r"bad\.mp4") as caught:
        store.fill([*videos, video(folder / "bad.mp4", hashed=False)], 1)
    assert caught.value.reason == "undecodable"


@pytest.mark.parametrize("own_pool", [False, True])
def test_try_fill_says_which_clips_are_bad(folder: Path, tmp_path: Path, own_pool: bool) -> None:
    store, done = ClipStore(tmp_path / "cache", SPEC), list[int]()
    videos = [
        video(folder / "bad.mp4"),
        video(folder / "a.mp4"),
        replace(video(folder / "b.mp4"), sha256="0" * 64),
        video(folder / "b.mp4", hashed=False),
    ]
    if own_pool:
        with LimitedPool(DEFAULT_LIMITS) as pool:
            bad = store.try_fill(videos, 1, done.append, pool)
    else:
        bad = store.try_fill(videos, 1, done.append)
    assert {index: error.reason for index, error in bad.items()} == {0: "undecodable", 2: "changed"}
    assert sum(done) == 4
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 2
    assert store.try_fill(videos[1:2], 1) == {}


def test_manifest_rows_as_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COEFVQ_CACHE", str(tmp_path))
    row = {"video_id": "v", "title": "t", "stickers": ["s"], "views": pd.NA, "sha256": "0" * 64}
    rows = pd.DataFrame([{**row, "uri": "a.mp4"}, {**row, "uri": "s3://bucket/b.mp4"}])
    local, far = to_inputs(rows, tmp_path, ("s3",))
    assert (local.path, local.url, local.sha256) == (tmp_path / "a.mp4", None, "0" * 64)
    assert (far.path, far.url) == (copy_path("s3://bucket/b.mp4", tmp_path), "s3://bucket/b.mp4")


@pytest.mark.parametrize("uri", ["../secret.mp4", "/etc/passwd", "http://127.0.0.1:9/a.mp4", "file:///etc/passwd"])
def test_a_row_that_leads_elsewhere_cannot_be_read(tmp_path: Path, folder: Path, uri: str) -> None:
    (tmp_path / "secret.mp4").write_bytes((folder / "a.mp4").read_bytes())
    (tmp_path / "root").mkdir()
    row = {"video_id": "v", "title": "t", "stickers": [], "views": pd.NA, "sha256": video(folder / "a.mp4").sha256}
    store = ClipStore(tmp_path / "cache", SPEC)
    store.get(video(folder / "a.mp4"))  # not even where the cache knows the hash that the row claims
    [refused] = to_inputs(pd.DataFrame([{**row, "uri": uri}]), tmp_path / "root", ("s3",))
    assert (refused.url, refused.path.is_file()) == (None, False)
    with pytest.raises(MediaError) as caught:
        store.get(refused)
    assert caught.value.reason == "outside_root"


def test_workers_need_no_torch() -> None:
    code = "import sys, coefvq.data.clips, coefvq.data.probe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_full_disk_is_named_and_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    code = """
import resource, signal, sys
from pathlib import Path
from coefvq.config import MediaSpec
from coefvq.data.clips import ClipStore
from coefvq.errors import StorageError
from coefvq.records import VideoInput

store = ClipStore(Path(sys.argv[1]), MediaSpec(frames=2, frame_size=32, audio_seconds=1.0))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    store.get(VideoInput("a", Path(sys.argv[2])))
except StorageError as error:
    print(error)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "cache"), str(folder / "a.mp4")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "File too large; free some space" in done.stdout
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
