"""Write a folder of hostile files: hand-made ones, then damaged copies of valid clips until there are enough."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, cycle
from pathlib import Path
from random import Random

from coefvq.records import REASONS
from tests.fuzz import bombs, mutations
from tests.fuzz.seeds import FORMS, seed

_REFUSED = frozenset({"undecodable", "unsupported", "no_video", "empty", "too_many_pixels"})
_NO_FILE = frozenset({"missing", "unsupported", "outside_root"})
#: what must come out of a kind; where nothing is said, any reason will do
_EXPECTED: dict[str, frozenset[str]] = {
    "valid": frozenset({"ok"}),
    "name": frozenset({"ok"}),
    "playlist": _REFUSED,
    "disguise": _REFUSED,
    "oddity": _NO_FILE,
}
# a QuickTime reference beside the clip's own data may be ignored, and content counts rather than names
_FREE = ("reference_local", "reference_remote", "right_content_wrong_name", "mjpeg")


@dataclass(frozen=True)
class Case:
    """One file below the folder; ``expected`` are the reasons that are right for it."""

    kind: str
    uri: str
    expected: frozenset[str] = frozenset(REASONS)


def make(root: Path, outside: Path, files: int, number: int, address: str, *, heavy: bool = True) -> list[Case]:
    """At least ``files`` cases below ``root`` (existing, empty), the same for the same ``number``.

    ``outside`` is an empty folder beside it, where links lead. ``address`` is a server that should never be
    asked. Not ``heavy``: without the bombs that take seconds each.
    """
    cases = [*_valid(root), *_names(root), *_oddities(root, outside)]
    kinds = {"claim": bombs.claims, "disguise": bombs.disguises}
    if heavy:
        kinds |= {"nesting": bombs.nesting, "expansion": bombs.expansions}
        kinds |= {"endless": bombs.endless, "crowd": bombs.crowds}
    kinds["playlist"] = lambda: bombs.playlists(str(root / "valid-mp4.mp4"), address)
    for kind, made in kinds.items():
        cases += _written(root, kind, made())
    return [*cases, *_mutated(root, max(0, files - len(cases)), number)]


def _case(kind: str, uri: str, name: str = "") -> Case:
    return Case(kind, uri) if name in _FREE else Case(kind, uri, _EXPECTED.get(kind, Case.expected))


def _written(root: Path, kind: str, made: Iterator[tuple[str, str, bytes]]) -> Iterator[Case]:
    for name, suffix, data in made:
        uri = f"{kind}-{name}{suffix}"
        (root / uri).write_bytes(data)
        yield _case(kind, uri, name)


def _valid(root: Path) -> Iterator[Case]:
    for name, (_, suffix, _, _) in FORMS.items():
        (root / f"valid-{name}{suffix}").write_bytes(seed(name))
        yield _case("valid", f"valid-{name}{suffix}")


def _names(root: Path) -> Iterator[Case]:
    """Valid clips whose names mean something to FFmpeg, to a shell or to nobody."""
    names = ["%d.mp4", "frame%03d.mp4", "*.mp4", "a\nb.mp4", "-i.mp4", "concat:a|b.mp4", "file:x.mp4", "pipe:0.mp4"]
    names += ["subfile,,start,0,end,99,,:x.mp4", "$(touch x).mp4", "“quoted”.mp4", "x" * 240 + ".mp4", "a\x01b\x7f.mp4"]
    names += [
        os.fsdecode(b"latin-\xe9.mp4"),
        os.fsdecode(b"\xff\xfe.mp4"),
        "http:--host.mp4",
        "data:,x.mp4",
        "nosuffix",
    ]
    for name in names:
        with suppress(OSError):  # some systems know no such names
            (root / name).write_bytes(seed("mp4"))
            yield _case("name", name)


def _oddities(root: Path, outside: Path) -> Iterator[Case]:
    """What is there, but is no file to read; and what is not there."""
    os.mkfifo(root / "pipe.mp4")
    (root / "folder.mp4").mkdir()
    (outside / "secret.mp4").write_bytes(seed("mp4"))
    links = {"zero": "/dev/zero", "random": "/dev/urandom", "stdin": "/dev/stdin", "memory": "/proc/self/mem"}
    links |= {"loop": "link-loop.mp4", "broken": "nowhere.mp4", "out": str(outside / "secret.mp4"), "pipe": "pipe.mp4"}
    for name, target in links.items():
        (root / f"link-{name}.mp4").symlink_to(target)
        yield _case("oddity", f"link-{name}.mp4")
    with socket.socket(socket.AF_UNIX) as plug, suppress(OSError):  # the path may be too long for a socket
        plug.bind(str(root / "socket.mp4"))
        yield _case("oddity", "socket.mp4")
    uris = (
        "pipe.mp4",
        "folder.mp4",
        "gone.mp4",
        "../outside/secret.mp4",
        "/etc/passwd",
        "",
        ".",
        "a\0b.mp4",
        "y" * 5000,
    )
    yield from (_case("oddity", uri) for uri in uris)
    yield from (_case("oddity", uri) for uri in ("valid-mp4.mp4/x.mp4", "//localhost/x.mp4", "C:\\x.mp4", "~/x.mp4"))


def _mutated(root: Path, count: int, number: int) -> Iterator[Case]:
    rng = Random(number)
    mp4 = [name for name in FORMS if FORMS[name][0] in ("mp4", "mov")]
    every = cycle(
        chain(
            ((mutation, name) for mutation in mutations.ANY for name in FORMS),
            ((mutation, name) for mutation in mutations.MP4 for name in mp4),
        )
    )
    for index in range(count):
        mutation, name = next(every)
        yield _damaged(root, rng, mutation, name, index)


def _damaged(root: Path, rng: Random, mutation: Callable[[Random, bytes], bytes], name: str, index: int) -> Case:
    data = mutation(rng, seed(name))
    if rng.random() < 0.2:  # twice damaged
        data = rng.choice(mutations.ANY)(rng, data) if len(data) > 2048 else data
    uri = f"{mutation.__name__}-{index}-{name}{FORMS[name][1]}"
    (root / uri).write_bytes(data)
    return Case(mutation.__name__, uri)
