"""Two processes that fill one store decode each clip once."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.unit.media_files import Track, write_tracks


def filled_by_two(tmp_path: Path, repository: Path, together: str) -> tuple[Counter[str], list[str]]:
    content = write_tracks(tmp_path / "one.mp4", Track("mpeg4", times=range(0, 500, 100))).read_bytes()
    paths = [tmp_path / f"{n:02}.mp4" for n in range(40)]
    for number, path in enumerate(paths):
        path.write_bytes(content + b"\0\0\0\x09free" + bytes([number]))  # the same clip by another hash
    (tmp_path / "bad.mp4").write_bytes(b"no video at all")
    arguments = [str(tmp_path / "cache"), str(tmp_path / "log"), together, str(tmp_path / "bad.mp4")]
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.unit.counting_store", *arguments, *map(str, paths)],
            cwd=repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    answers = [child.communicate(timeout=120)[0].strip() for child in children]
    return Counter((tmp_path / "log").read_text(encoding="utf-8").split()), answers


def test_two_processes_decode_each_clip_once(tmp_path: Path, repository: Path) -> None:
    decoded, failed = filled_by_two(tmp_path, repository, "yes")
    assert failed == ["1", "1"]  # each knows what does not decode
    assert decoded.pop("bad.mp4") == 2
    assert sorted(decoded) == [f"{n:02}.mp4" for n in range(40)]
    assert set(decoded.values()) == {1}


@pytest.mark.long
def test_without_claims_they_decode_more(tmp_path: Path, repository: Path) -> None:
    decoded, _ = filled_by_two(tmp_path, repository, "no")
    assert sum(decoded.values()) > 41
