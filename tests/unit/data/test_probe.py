"""Probing: each reason from a real file, and a second look only where something may have changed."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest

from coefvq.data.manifest import normalise
from coefvq.data.media.decode import DEFAULT_LIMITS
from coefvq.data.media.probe import expect, probe_all
from coefvq.data.media.probe_cache import open_cache
from coefvq.data.media.probe_worker import Probe
from coefvq.data.validation.manifest_rules import type_table
from coefvq.errors import DataError
from coefvq.records import LATER_COLUMNS, MANIFEST_COLUMNS
from tests.unit.clip_server import ClipServer, serving
from tests.unit.probed import probe_clip


@pytest.fixture
def folder(clips: Path, tmp_path: Path) -> Path:
    """Three good clips a, b, c with sound."""
    target = tmp_path / "raw"
    target.mkdir()
    for name, source in zip("abc", sorted((clips / "videos").glob("*.mp4")), strict=False):
        shutil.copyfile(source, target / f"{name}.mp4")
    return target


@pytest.fixture
def server(folder: Path) -> Iterator[ClipServer]:
    """The clips behind a web server."""
    with serving(folder) as state:
        yield state


def probe(uris: list[str], root: Path, cache: Path | None = None, **changes: float) -> list[Probe]:
    """All probes of a list of clips."""
    limits = DEFAULT_LIMITS.model_copy(update=changes)
    return list(probe_all(uris, root, limits=limits, workers=1, cache=cache, protocols=("http",)))


def forge(cache: Path, width: int) -> None:
    """Write another width into everything the cache holds: whoever shows it has not probed."""
    with closing(sqlite3.connect(cache / "probes.sqlite")) as store, store:
        for place, facts in store.execute("SELECT place, facts FROM probes").fetchall():
            forged = json.dumps({**json.loads(facts), "width": width})
            store.execute("UPDATE probes SET facts = ? WHERE place = ?", (forged, place))


def places(cache: Path) -> list[str]:
    """What the cache knows about."""
    with closing(sqlite3.connect(cache / "probes.sqlite")) as store:
        return sorted(row[0] for row in store.execute("SELECT place FROM probes"))


def with_broken_sound(source: Path, target: Path) -> Path:
    """The same picture, and noise where the sound's packets were."""
    data, noise = bytearray(source.read_bytes()), np.random.default_rng(1)
    with av.open(str(source)) as container:
        for packet in container.demux(audio=0):
            if packet.size:
                data[packet.pos : packet.pos + packet.size] = noise.bytes(packet.size)
    target.write_bytes(data)
    return target


def test_what_is_no_regular_file_below_the_root(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(folder / "pipe.mp4")
    (folder / "folder.mp4").mkdir()
    (folder / "device.mp4").symlink_to("/dev/zero")
    (folder / "inside.mp4").symlink_to("a.mp4")
    (folder / "dangling.mp4").symlink_to("nothing.mp4")
    (folder / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "secret.mp4").write_bytes((folder / "a.mp4").read_bytes())
    (folder / "outside.mp4").symlink_to(tmp_path / "secret.mp4")
    expected = {
        "pipe.mp4": "unsupported",
        "folder.mp4": "unsupported",
        "device.mp4": "outside_root",
        "inside.mp4": "ok",
        "dangling.mp4": "missing",
        "loop.mp4": "missing",
        "outside.mp4": "outside_root",
        "../secret.mp4": "outside_root",
        "x/../../secret.mp4": "outside_root",
        "x/../a.mp4": "outside_root",
        str(folder / "a.mp4"): "outside_root",
        "n" * 300 + ".mp4": "missing",
        "file:///etc/passwd": "outside_root",
        "ftp://host/a.mp4": "outside_root",
    }
    assert dict(zip(expected, (found.reason for found in probe(list(expected), folder)), strict=True)) == expected


def test_facts_of_a_good_clip(folder: Path) -> None:
    found = probe_clip("a.mp4", folder, DEFAULT_LIMITS)
    assert (found.reason, found.decode_ok, found.has_audio) == ("ok", True, True)
    assert (found.width, found.height, found.fps, found.duration_s) == (160, 160, 8.0, 3.0)
    assert found.size_bytes == (folder / "a.mp4").stat().st_size
    assert len(found.phash) == 4 * 64
    assert (found.audio_ok, found.hdr) == (True, None)


def test_sound_that_does_not_decode(folder: Path) -> None:
    with_broken_sound(folder / "a.mp4", folder / "noise.mp4")
    found = probe_clip("noise.mp4", folder, DEFAULT_LIMITS)
    assert (found.reason, found.has_audio, found.audio_ok) == ("ok", True, False)


def test_manifests_hold_what_was_found_and_those_of_before_still_load(folder: Path) -> None:
    found = asdict(probe_clip("a.mp4", folder, DEFAULT_LIMITS))
    row = dict.fromkeys(MANIFEST_COLUMNS, "") | {"stickers": [], "views": None, "weight": 1.0, **found}
    now = normalise(pd.DataFrame([{**row, "label_icd": 1}, {**row, "label_icd": 0, "audio_ok": None}]), ["icd"])
    assert [str(now[name].dtype) for name in LATER_COLUMNS] == ["boolean", "str"]
    assert now["audio_ok"].isna().tolist() == [False, True]
    assert now["hdr"].isna().all()
    before = normalise(now.drop(columns=[*LATER_COLUMNS]), ["icd"])
    assert [*before] == [*MANIFEST_COLUMNS, "label_icd"]
    assert type_table(now, ["icd"])["fits"].all()


def test_limits(folder: Path) -> None:
    found = probe_clip("a.mp4", folder, DEFAULT_LIMITS.model_copy(update={"megabytes": 1e-3}))
    assert (found.reason, found.sha256) == ("too_large", "")
    assert probe_clip("a.mp4", folder, DEFAULT_LIMITS.model_copy(update={"seconds": 1.0})).reason == "too_long"


def test_the_bytes_must_be_those_the_table_promises(folder: Path) -> None:
    found = probe_clip("a.mp4", folder, DEFAULT_LIMITS)
    assert expect(found, None) is found
    assert expect(found, found.sha256) is found
    other = expect(found, "0" * 64)
    assert (other.reason, other.decode_ok, other.sha256) == ("changed", False, found.sha256)
    missing = probe_clip("nothing.mp4", folder, DEFAULT_LIMITS)
    assert expect(missing, "0" * 64).reason == "missing"


def test_only_new_and_changed_files_are_probed(folder: Path, tmp_path: Path) -> None:
    cache, names = tmp_path / "cache", ["a.mp4", "b.mp4", "c.mp4"]
    fresh = probe(names, folder)
    assert probe(names, folder, cache) == fresh
    assert probe(names, folder, cache) == fresh
    forge(cache, 1)
    before = (folder / "b.mp4").stat()
    data = bytearray((folder / "b.mp4").read_bytes())
    data[-1] ^= 1  # the same size, and a byte no decoder looks at
    (folder / "b.mp4").write_bytes(data)
    os.utime(folder / "b.mp4", ns=(before.st_mtime_ns, before.st_mtime_ns + 1))
    shutil.copyfile(folder / "c.mp4", folder / "new.mp4")
    again = probe([*names, "new.mp4"], folder, cache)
    # new.mp4 has bytes that are known, so it is hashed but not decoded
    assert [found.width for found in again] == [1, 160, 1, 1]
    assert again[1].sha256 != fresh[1].sha256
    assert [found.width for found in probe(names, folder, cache, seconds=599.0)] == [160, 160, 160]


def test_what_may_be_otherwise_tomorrow_is_not_remembered(folder: Path, tmp_path: Path) -> None:
    (folder / "bad.mp4").write_bytes(b"no video")
    uris = ["nothing.mp4", "http://127.0.0.1:9/a.mp4", "../a.mp4", "bad.mp4"]
    found = probe(uris, folder, tmp_path / "cache")
    assert [one.reason for one in found] == ["missing", "unreachable", "outside_root", "undecodable"]
    assert len(places(tmp_path / "cache")) == 2
    assert places(tmp_path / "cache")[0] == str(folder / "bad.mp4")


def test_remote_clips_are_fetched_when_they_are_new_or_changed(
    server: ClipServer, folder: Path, tmp_path: Path
) -> None:
    cache, urls = tmp_path / "cache", [server.url("a.mp4"), server.url("b.mp4")]
    local = probe(["a.mp4", "b.mp4"], folder)
    assert probe(urls, folder, cache) == local
    assert probe(urls, folder, cache) == local
    assert server.hits == {"/a.mp4": 1, "/b.mp4": 1}
    shutil.copyfile(folder / "c.mp4", folder / "b.mp4")
    assert probe(urls, folder, cache) == [local[0], *probe(["c.mp4"], folder)]
    assert server.hits == {"/a.mp4": 1, "/b.mp4": 2}
    assert [one.reason for one in probe(urls, folder)] == ["unreachable"] * 2  # no cache, nowhere to fetch to
    assert [one.reason for one in probe(urls, folder, cache, megabytes=1e-3)] == ["too_large"] * 2


def test_a_million_rows_are_not_kept(folder: Path) -> None:
    asked: list[int] = []

    def uris() -> Iterator[str]:
        for number in range(100_000):
            asked.append(number)
            yield f"{number}.mp4"

    answers = probe_all(uris(), folder, limits=DEFAULT_LIMITS, workers=1)
    assert next(answers).reason == "missing"
    assert len(asked) < 20_000


def test_a_cache_that_is_no_database(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "probes.sqlite").write_text("no database at all, but long enough to be one" * 100)
    with pytest.raises(DataError, match=r"probes\.sqlite: cannot be used as cache .*delete it"):
        probe(["a.mp4"], folder, tmp_path)


def test_only_the_owner_reads_a_new_cache(tmp_path: Path) -> None:
    with open_cache(tmp_path / "cache", "s") as cache:
        cache.put("a.mp4", "1", {})
        files = list((tmp_path / "cache").iterdir())
        assert len(files) == 3  # with -wal and -shm
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


def test_two_writers(tmp_path: Path) -> None:
    with open_cache(tmp_path, "s") as first, open_cache(tmp_path, "s") as second, open_cache(tmp_path, "t") as other:
        first.put("a", "1", {"width": 1})
        second.put("a", "2", {"width": 2})
        second.put("b", "1", {"width": 3})
        assert first.get("a") == ("2", {"width": 2})
        assert first.get("b") == ("1", {"width": 3})
        assert other.get("a") is None
