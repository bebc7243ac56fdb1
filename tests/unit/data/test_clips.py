"""The clip store: what is decoded is what was ingested, from disk or from a store."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save

from coefvq.compute.workers import LimitedPool
from coefvq.config import MediaSpec
from coefvq.data.manifest import to_inputs
from coefvq.data.media.clips import ClipStore, _fill
from coefvq.data.media.decode import DEFAULT_LIMITS
from coefvq.data.remote import copy_path
from coefvq.errors import MediaError, StorageError
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
    store, known = ClipStore(tmp_path / "cache", SPEC, DEFAULT_LIMITS), video(folder / "a.mp4")
    shutil.copyfile(folder / "b.mp4", folder / "a.mp4")
    with pytest.raises(MediaError, match=r"a\.mp4: its bytes are not those that were ingested") as caught:
        store.get(known)
    assert caught.value.reason == "changed"
    assert store.get(replace(known, sha256=None)).frames.shape == (2, 3, 32, 32)


def test_a_stored_clip_needs_no_file(folder: Path, tmp_path: Path) -> None:
    store, known = ClipStore(tmp_path / "cache", SPEC, DEFAULT_LIMITS), video(folder / "a.mp4")
    first = store.get(known)
    (folder / "a.mp4").unlink()
    assert np.array_equal(store.get(known).frames, first.frames)
    with pytest.raises(MediaError, match=r"a\.mp4: no such file") as caught:
        store.get(replace(known, sha256=None))
    assert caught.value.reason == "missing"


def test_a_remote_clip_is_fetched_once_and_checked(server: ClipServer, folder: Path, tmp_path: Path) -> None:
    store = ClipStore(tmp_path / "cache", SPEC, DEFAULT_LIMITS)
    clip = store.get(remote(server, "a.mp4", store.root))
    assert np.array_equal(clip.frames, store.get(video(folder / "a.mp4")).frames)
    other_settings = ClipStore(store.root, SPEC.model_copy(update={"frames": 3}), DEFAULT_LIMITS)
    other_settings.get(remote(server, "a.mp4", store.root))
    assert server.hits == {"/a.mp4": 1}
    known = remote(server, "b.mp4", store.root)
    shutil.copyfile(folder / "a.mp4", folder / "b.mp4")
    with pytest.raises(MediaError, match=r"/b\.mp4: its bytes are not those") as caught:
        store.get(known)
    assert caught.value.reason == "changed"


def test_fill_names_the_first_bad_clip(folder: Path, tmp_path: Path) -> None:
    store, done = ClipStore(tmp_path / "cache", SPEC, DEFAULT_LIMITS), list[int]()
    videos = [video(folder / "a.mp4"), video(folder / "b.mp4")]
    store.fill(videos, 1, done.append)
    store.fill(videos, 1, done.append)
    assert sum(done) == 4
    with pytest.raises(MediaError, match=r"bad\.mp4") as caught:
        store.fill([*videos, video(folder / "bad.mp4", hashed=False)], 1)
    assert caught.value.reason == "undecodable"


@pytest.mark.parametrize("own_pool", [False, True])
def test_try_fill_says_which_clips_are_bad(folder: Path, tmp_path: Path, own_pool: bool) -> None:
    store, done = ClipStore(tmp_path / "cache", SPEC, DEFAULT_LIMITS), list[int]()
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
    store = ClipStore(tmp_path / "cache", SPEC, DEFAULT_LIMITS)
    store.get(video(folder / "a.mp4"))  # not even where the cache knows the hash that the row claims
    [refused] = to_inputs(pd.DataFrame([{**row, "uri": uri}]), tmp_path / "root", ("s3",))
    assert (refused.url, refused.path.is_file()) == (None, False)
    with pytest.raises(MediaError) as caught:
        store.get(refused)
    assert caught.value.reason == "outside_root"


def test_workers_need_no_torch() -> None:
    code = "import sys, coefvq.data.media.clips, coefvq.data.media.probe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_full_disk_is_named_and_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    code = """
import resource, signal, sys
from pathlib import Path
from coefvq.config import MediaSpec
from coefvq.data.media.clips import ClipStore, _fill
from coefvq.data.media.decode import DEFAULT_LIMITS
from coefvq.errors import StorageError
from coefvq.records import VideoInput

store = ClipStore(Path(sys.argv[1]), MediaSpec(frames=2, frame_size=32, audio_seconds=1.0), DEFAULT_LIMITS)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    _fill(store, VideoInput("a", Path(sys.argv[2])))  # what a worker does
except StorageError as error:
    print(error)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "cache"), str(folder / "a.mp4")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "File too large; free some space" in done.stdout
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_cache_that_cannot_be_written_is_an_error_of_storage_and_no_bad_clip(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    store = ClipStore(tmp_path / "cache", SPEC, DEFAULT_LIMITS)
    for call in (store.get, lambda known: store.try_fill([known], 1)):
        with pytest.raises(StorageError, match="Not a directory; free some space, or set COEFVQ_CACHE"):
            call(video(folder / "a.mp4"))


def _other(path: Path) -> bytes:
    entry = load_file(path)
    return save({"frames": entry["frames"][:1], "waveform": entry["waveform"]})


DAMAGE: dict[str, Callable[[Path], bytes]] = {
    "empty": lambda _: b"",
    "cut": lambda path: path.read_bytes()[:-100],
    "zeros": lambda path: bytes(path.stat().st_size),
    "noise": lambda path: b"\xff" * 300,
    "frames": _other,
    "type": lambda path: save({"frames": load_file(path)["frames"], "waveform": np.zeros(9, np.float32)}),
    "dimensions": lambda path: save({"frames": load_file(path)["frames"], "waveform": np.zeros((3, 3), np.int16)}),
    "sound": lambda path: save({"frames": load_file(path)["frames"], "waveform": np.zeros(16_001, np.int16)}),
    "names": lambda path: save({"frames": load_file(path)["frames"]}),
}


def test_a_damaged_entry_is_made_again(folder: Path, tmp_path: Path) -> None:
    store, known = ClipStore(tmp_path / "cache", SPEC, DEFAULT_LIMITS), video(folder / "a.mp4")
    expected = store.get(known)
    [path] = (tmp_path / "cache").rglob("*.safetensors")
    for name, damage in DAMAGE.items():
        whole = path.read_bytes()
        path.write_bytes(damage(path))
        assert np.array_equal(store.get(known).frames, expected.frames), name
        assert path.read_bytes() == whole
    path.write_bytes(b"")
    assert store.try_fill([known], 1) == {}
    assert path.read_bytes() == whole
    path.unlink()
    os.mkfifo(path)  # opening it would wait for ever
    assert store.try_fill([known], 1) == {}
    assert path.read_bytes() == whole


def test_an_entry_that_cannot_be_made_again_is_a_bad_clip(folder: Path, tmp_path: Path) -> None:
    store, known = ClipStore(tmp_path / "cache", SPEC, DEFAULT_LIMITS), video(folder / "a.mp4")
    store.get(known)
    [path] = (tmp_path / "cache").rglob("*.safetensors")
    path.write_bytes(b"")
    (folder / "a.mp4").unlink()
    with pytest.raises(MediaError, match=r"a\.mp4: no such file"):
        store.get(known)


def test_a_hash_that_is_none_leads_nowhere(folder: Path, tmp_path: Path) -> None:
    store = ClipStore(tmp_path / "cache", SPEC, DEFAULT_LIMITS)
    store.get(video(folder / "a.mp4"))
    other = tmp_path / "model.safetensors"
    other.write_bytes(b"somebody's weights")
    away = os.path.relpath(other, store.path("0" * 64).parent).removesuffix(".safetensors")
    for sha256 in (away, "", "0", f"/{other.with_suffix('')}"):
        with pytest.raises(MediaError) as caught:
            store.get(replace(video(folder / "a.mp4"), sha256=sha256))
        assert caught.value.reason == "changed"
    assert other.read_bytes() == b"somebody's weights"


def awkward(folder: Path) -> dict[str, tuple[Path, str]]:
    """Paths that are no clip, with the reason given for each."""
    (folder / "loop.mp4").symlink_to("loop.mp4")
    (folder / "dangling.mp4").symlink_to("gone.mp4")
    os.mkfifo(folder / "pipe.mp4")
    return {
        "long": (folder / ("x" * 300 + ".mp4"), "File name too long"),
        "long path": (folder / "/".join(["y" * 200] * 30) / "a.mp4", "File name too long"),
        "loop": (folder / "loop.mp4", "Too many levels of symbolic links"),
        "below a file": (folder / "a.mp4" / "b.mp4", "Not a directory"),
        "folder": (folder, "a folder, pipe or device"),
        "pipe": (folder / "pipe.mp4", "a folder, pipe or device"),
        "dangling": (folder / "dangling.mp4", "no such file"),
        "zero": (folder / "a\0b.mp4", "no name that a file can have"),
        "surrogate": (folder / "a\ud800.mp4", "no name that a file can have"),
        "bytes": (folder / "a\udcff.mp4", "no such file"),
    }


def test_a_path_that_is_no_clip_costs_one_row(folder: Path, tmp_path: Path) -> None:
    store, paths = ClipStore(tmp_path / "cache", SPEC, DEFAULT_LIMITS), awkward(folder)
    rows = [VideoInput(name, path) for name, (path, _) in paths.items()]
    failures = store.try_fill([*rows, video(folder / "b.mp4")], 1)
    assert sorted(failures) == list(range(len(rows)))
    for index, (name, (_, said)) in enumerate(paths.items()):
        assert said in str(failures[index]), name
        assert failures[index].reason == "missing"
    with pytest.raises(MediaError, match="File name too long"):
        store.get(rows[0])


def test_a_clip_without_rights_is_a_bad_clip(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root no right is missing, so the kernel's answer is given by hand; in this process, as a worker would."""
    store = ClipStore(tmp_path / "cache", SPEC, DEFAULT_LIMITS)
    for place in ("pathlib.Path.stat", "coefvq.data.media.clips.sha256_file"):
        with monkeypatch.context() as patch:
            patch.setattr(place, denied)
            assert store.hashed(VideoInput("a", folder / "a.mp4")).sha256 is None
            filled = _fill(store, VideoInput("a", folder / "a.mp4"))
        assert (filled.reason, filled.message) == (
            "missing",
            f"{folder / 'a.mp4'}: Permission denied; correct the path or delete the row",
        )


def denied(*_: object, **__: object) -> NoReturn:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_what_the_cache_holds_is_for_its_owner_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cache" / "clips").mkdir(parents=True)  # as an earlier version left it
    store = ClipStore(tmp_path / "cache", SPEC, DEFAULT_LIMITS)
    store.get(video(folder / "a.mp4"))
    found = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "cache" / "clips").rglob("*")}
    assert len(found) == 3
    assert {mode for path, mode in found.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in found.items() if path.is_file()} == {0o600}
    assert stat.S_IMODE((tmp_path / "cache" / "clips").stat().st_mode) == 0o700
