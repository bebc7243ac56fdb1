"""Every case by name; all of them are drawn from one seed."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random

from tests.fuzz_cli.arguments import Command, Line, lines
from tests.fuzz_cli.conditions import CONDITIONS, Condition
from tests.fuzz_cli.damage import Mutation, Verdict
from tests.fuzz_cli.targets import TARGETS, Target

#: damages a workspace; returns the file (None: none), and words of which a refusal has to hold one
Prepare = Callable[[Random, Path], tuple[Path | None, tuple[str, ...]]]


@dataclass(frozen=True)
class Case:
    """One command line in one damaged workspace, and what has to come of it."""

    id: str
    argv: tuple[str, ...]
    verdict: Verdict
    seed: int
    prepare: Prepare
    surroundings: Condition | None = None
    #: runs in place of coefvq; for planted faults
    entry: Callable[[], None] | None = None
    wall_seconds: float = 120.0

    @property
    def needs_mount(self) -> bool:
        """Whether the case can only be made where this user may mount."""
        return self.surroundings is not None and self.surroundings.needs_mount

    def rng(self) -> Random:
        """The mutation's own randomness: the same whatever other cases there are."""
        return Random(f"{self.seed}:{self.id}")


def of_file(target: Target, mutation: Mutation, command: int, number: int, seed: int) -> Case:
    """``TARGET:MUTATION:COMMAND:NUMBER``; command is an index into the target's commands."""

    def prepare(rng: Random, root: Path) -> tuple[Path, tuple[str, ...]]:
        # a lock is empty, and empty it stays
        found = sorted(path for path in root.glob(target.path) if path.is_file() and path.stat().st_size)
        path = rng.choice(found)
        return path, mutation.apply(rng, path)

    name = f"{target.name}:{mutation.name}:{command}:{number}"
    return Case(name, tuple(target.argv(target.commands[command])), target.verdict(mutation), seed, prepare)


def of_line(command: Command, line: Line, seed: int) -> Case:
    """``args:COMMAND:NAME:0``."""
    return Case(
        f"args:{command.name}:{line.name}:0", line.argv, line.verdict, seed, lambda rng, root: (None, line.words)
    )


def of_condition(condition: Condition, command: int, seed: int) -> Case:
    """``around:CONDITION:COMMAND:0``; command is an index into the condition's commands."""

    def prepare(rng: Random, root: Path) -> tuple[None, tuple[str, ...]]:
        condition.prepare(rng, root)
        return None, condition.words

    argv = tuple(shlex.split(condition.commands[command]))
    return Case(f"around:{condition.name}:{command}:0", argv, condition.verdict, seed, prepare, condition)


def condition_cases(seed: int, only: str | None = None) -> list[Case]:
    return [
        of_condition(condition, at, seed)
        for condition in CONDITIONS
        for at, text in enumerate(condition.commands)
        if only is None or f"{text} ".startswith(f"{only} ")
    ]


def find(name: str, seed: int, commands: Sequence[Command]) -> Case:
    """The case of an id, to play it again.

    Raises:
        LookupError: there is none.
    """
    first, rest = name.split(":", 1)
    if first in ("args", "around"):
        lines_of_all = [case for command in commands for case in line_cases(command, seed)]
        made = {case.id: case for case in (*lines_of_all, *condition_cases(seed))}
        if name in made:
            return made[name]
    else:
        mutation_name, number, repeat = rest.rsplit(":", 2)
        for target in TARGETS:
            for mutation in target.mutations:
                if (target.name, mutation.name) == (first, mutation_name) and int(number) < len(target.commands):
                    return of_file(target, mutation, int(number), int(repeat), seed)
    raise LookupError(f"{name}: no such case")


def line_cases(command: Command, seed: int) -> list[Case]:
    return [of_line(command, line, seed) for line in lines(command)]


#: commands that load neither torch nor MLflow
LIGHT = (
    "cascade fit",
    "cascade audit",
    "evaluate",
    "thresholds",
    "ingest",
    "features stats",
    "features verify",
    "vmp publish",
    "vmp get",
    "vmp scan",
    "vmp export",
    "vmp changes",
    "vmp compact",
    "vmp status",
    "vmp dlq list",
    "vmp dlq show",
    "vmp dlq replay",
    "vmp dlq drop",
    "data bayes",
)
#: the light base workspace has no model, no release and no stream behind these
_HEAVY_TARGETS = frozenset(
    (
        *("policy", "candidate", "stability", "reviewed", "drawn", "index", "campaign"),
        *("clip_cache", "clip_files", "feature_cache"),
    )
)
_REFUSED_FIRST = ("unknown_option", "too_many", "--params=")


def is_light(case: Case) -> bool:
    """Whether a case needs no model and no tracking store; options that are refused first need nothing at all."""
    first, name = case.id.split(":")[0], case.id.split(":")[-2]
    light = any(f"{' '.join(case.argv)} ".startswith(f"{command} ") for command in LIGHT)
    if first == "args":
        return case.verdict == "refuse" and (light or name.startswith(_REFUSED_FIRST))
    return light and first != "around" and first not in _HEAVY_TARGETS


def draw(
    total: int, seed: int, commands: Sequence[Command], only: str | None = None, light: bool = False
) -> list[Case]:
    """``total`` cases: first each mutation of each file and each odd line once, then files again and again.

    A short run takes the first of them in an order drawn from the seed.
    """
    cases: list[Case] = []
    for batch in _rounds(seed, commands, only):
        cases += [case for case in batch if is_light(case) or not light]
        if len(cases) >= total or not batch:
            break
    return cases[:total]


def _rounds(seed: int, commands: Sequence[Command], only: str | None) -> Iterator[list[Case]]:
    for number in count():
        batch = [case for target in TARGETS for case in _of_target(target, number, seed, only)]
        if number == 0:
            batch += [c for command in commands if only in (None, command.name) for c in line_cases(command, seed)]
            batch += condition_cases(seed, only)
        Random(f"{seed}:{number}").shuffle(batch)
        yield batch


def _of_target(target: Target, number: int, seed: int, only: str | None) -> Iterator[Case]:
    """Each mutation once, with the commands in turn."""
    commands = [at for at, text in enumerate(target.commands) if only is None or f"{text} ".startswith(f"{only} ")]
    for at, mutation in enumerate(target.mutations if commands else ()):
        if number == 0 or mutation.verdict != "same":
            yield of_file(target, mutation, commands[(at + number) % len(commands)], number, seed)
