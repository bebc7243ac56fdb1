"""What a mutation is, and the mutations that fit every file: cut, emptied, replaced by something else."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

#: refuse: one line and a documented code; accept: code 0; same: code 0 and the output of the undamaged run
Verdict = Literal["refuse", "accept", "same", "any"]
#: words of which a refusal has to hold one, beside the file's own name
Words = tuple[str, ...]
Apply = Callable[[Random, Path], Words]


@dataclass(frozen=True)
class Mutation:
    """One way to damage a file; ``verdict`` is what its readers have to say, unless a target knows better."""

    name: str
    apply: Apply
    verdict: Verdict = "any"


def replace_bytes(path: Path, data: bytes) -> None:
    """Give ``path`` new content."""
    path.unlink()
    path.write_bytes(data)


def _cut(share: float) -> Apply:
    def apply(rng: Random, path: Path) -> Words:
        data = path.read_bytes()
        replace_bytes(path, data[: round(len(data) * share)])
        return ()

    return apply


def cut_last(rng: Random, path: Path) -> Words:
    replace_bytes(path, path.read_bytes()[:-1])
    return ()


def cut_anywhere(rng: Random, path: Path) -> Words:
    data = path.read_bytes()
    replace_bytes(path, data[: rng.randrange(1, max(2, len(data)))])
    return ()


def one_byte(rng: Random, path: Path) -> Words:
    replace_bytes(path, path.read_bytes()[:1])
    return ()


def flip_bits(rng: Random, path: Path) -> Words:
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 4, 32, 256))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    replace_bytes(path, bytes(data))
    return ()


def flip_head(rng: Random, path: Path) -> Words:
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 4, 32))):
        data[rng.randrange(min(len(data), 512))] ^= 1 << rng.randrange(8)
    replace_bytes(path, bytes(data))
    return ()


def zero_fill(rng: Random, path: Path) -> Words:
    replace_bytes(path, bytes(path.stat().st_size or 1))
    return ()


def random_bytes(rng: Random, path: Path) -> Words:
    replace_bytes(path, rng.randbytes(max(1, min(path.stat().st_size, 100_000))))
    return ()


def missing(rng: Random, path: Path) -> Words:
    path.unlink()
    return ()


def directory(rng: Random, path: Path) -> Words:
    path.unlink()
    path.mkdir()
    return ()


def pipe(rng: Random, path: Path) -> Words:
    path.unlink()
    os.mkfifo(path)
    return ()


def dangling_link(rng: Random, path: Path) -> Words:
    path.unlink()
    path.symlink_to("nowhere")
    return ()


def link_to_itself(rng: Random, path: Path) -> Words:
    path.unlink()
    path.symlink_to(path.name)
    return ()


def endless_device(rng: Random, path: Path) -> Words:
    """A device of the case's own: what the product does to a link's target it would do to the machine's."""
    path.unlink()
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    except OSError:  # not root, so nothing can be done to the machine's own either
        path.symlink_to("/dev/zero")
    return ()


def other_kind(rng: Random, path: Path) -> Words:
    """A valid file of another format in this one's place."""
    root = workspace_of(path)
    others = ("params.yaml", "data/manifest.parquet", "mlflow.db", "reports/icd/evaluation.json", "small.csv")
    fitting = [root / name for name in others if Path(name).suffix != path.suffix and (root / name).is_file()]
    replace_bytes(path, rng.choice(fitting).read_bytes())
    return ()


def workspace_of(path: Path) -> Path:
    """The case's workspace: the folder ``w`` above a path."""
    return next(parent for parent in path.parents if parent.name == "w")


def untouched(rng: Random, path: Path) -> Words:
    return ()


CONTROL = Mutation("untouched", untouched, "same")

#: for files that hold no free text: whatever is left of them is not valid
SPECIAL = (
    Mutation("directory", directory, "refuse"),
    Mutation("pipe", pipe, "refuse"),
    Mutation("dangling_link", dangling_link, "refuse"),
    Mutation("link_to_itself", link_to_itself, "refuse"),
    Mutation("endless_device", endless_device, "refuse"),
    Mutation("missing", missing, "refuse"),
)
BYTES = (
    Mutation("empty", _cut(0.0), "refuse"),
    Mutation("one_byte", one_byte, "refuse"),
    Mutation("half", _cut(0.5), "refuse"),
    Mutation("cut_last", cut_last),
    Mutation("cut_anywhere", cut_anywhere),
    Mutation("flip_bits", flip_bits),
    Mutation("flip_head", flip_head),
    Mutation("zero_fill", zero_fill, "refuse"),
    Mutation("random_bytes", random_bytes, "refuse"),
    Mutation("other_kind", other_kind, "refuse"),
)


def with_verdict(mutations: Iterable[Mutation], verdict: Verdict) -> tuple[Mutation, ...]:
    """The same mutations where their readers have to say something else."""
    return tuple(Mutation(mutation.name, mutation.apply, verdict) for mutation in mutations)


def remove(path: Path) -> None:
    """Whatever lies there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
