"""Mutations of clips; hostile media in depth is tests/fuzz."""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests.fuzz_cli.damage import Mutation, Words, replace_bytes


def sound_only(rng: Random, path: Path) -> Words:
    from tests.fuzz import seeds

    replace_bytes(path, seeds.sound_only())
    return ()


def other_container(rng: Random, path: Path) -> Words:
    """A valid clip under the wrong suffix: content decides."""
    from tests.fuzz import seeds

    replace_bytes(path, seeds.seed(rng.choice(("mkv", "webm", "mov"))))
    return ()


def playlist(rng: Random, path: Path) -> Words:
    replace_bytes(path, b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n/etc/passwd\n")
    return ()


CLIPS = (
    Mutation("sound_only", sound_only, "refuse"),
    Mutation("other_container", other_container, "accept"),
    Mutation("playlist", playlist, "refuse"),
)
