"""Odd command lines, made from the inventory that the Typer app itself gives."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from coefvq.cli.lazy import Later
from tests.fuzz_cli.damage import Verdict


@dataclass(frozen=True)
class Parameter:
    """An option or argument of a command: its flag and the kind of its value, a key of VALUES."""

    flag: str
    kind: str
    required: bool
    is_argument: bool = False
    is_flag: bool = False


@dataclass(frozen=True)
class Command:
    """A command by its full name, as typed."""

    name: str
    parameters: tuple[Parameter, ...]


def inventory() -> list[Command]:
    """Every command of ``coefvq``."""
    import typer

    return list(_walk("", typer.main.get_command(sys.modules["coefvq.__main__"].app)))


def _walk(name: str, command: Any) -> Iterator[Command]:
    if isinstance(command, Later):
        command = command.loaded()
    if hasattr(command, "commands"):
        for part, inner in command.commands.items():
            yield from _walk(f"{name} {part}".strip(), inner)
        return
    yield Command(name, tuple(_parameter(found) for found in command.params if "--help" not in found.opts))


def _parameter(found: Any) -> Parameter:
    is_argument = found.param_type_name == "argument"
    return Parameter(
        "" if is_argument else found.opts[0],
        _kind(found.type_descriptor.annotation),
        found.required,
        is_argument,
        bool(getattr(found, "is_flag", False)),
    )


def _kind(annotation: Any) -> str:
    """A key of VALUES for the type of a value, the element's for a list."""
    if get_origin(annotation) is Literal:
        return "choice"
    inner = [part for part in get_args(annotation) if part is not type(None)]
    if inner:
        return _kind(inner[0])
    return {int: "integer", float: "float", Path: "path"}.get(annotation, "text")


#: what a command needs to get as far as reading the value under test
NEEDED: dict[str, tuple[str, ...]] = {
    "--issue": ("--issue", "icd"),
    "--by": ("--by", "ana"),
    "--reason": ("--reason", "x"),
    "--out": ("--out", "new_folder"),
    "--data": ("--data", "data/raw"),
    "--from": ("--from", "batch"),
    "--labels": ("--labels", "reviewed.csv"),
    "--workspace": ("--workspace", "new_workspace"),
    "--verdict": ("--verdict", "live"),
    "--rows": ("--rows", "1000"),
    "--config": ("--config", "vmp.yaml"),
}
#: positional arguments and options that keep a command short
USUAL: dict[str, tuple[str, ...]] = {
    "score": ("data/raw/videos/s7-000001.mp4",),
    "cascade fit": ("scores.csv", "--precision", "0.3"),
    "vmp get": ("clip0",),
    "retune": ("icd", "--scores", "traffic.csv", "--min-labels", "2", "--dry-run"),
    "vmp override": ("clip0",),
    "vmp publish": ("near.csv",),
    "vmp forget": ("clip0",),
    "vmp export": ("entries.csv",),
    "vmp audit draw": ("--labels", "5", "--out", "to_label.csv"),
    "vmp run": ("--once",),
    "vmp rules test": ("rules.yaml",),
    "vmp mllm": ("--once",),
    "vmp mirror": ("--once",),
    "plan": ("--tflops", "1"),
    "vmp dlq show": ("clip0",),
    "vmp dlq drop": ("clip0",),
    "models show": ("tiny",),
    "models fetch": ("tiny",),
    "models align": ("--recipe", "tiny"),
    "init": ("new_workspace",),
    "data synth": ("--videos", "2", "--workers", "1"),
    "data reupload": ("--size", "64", "--fps", "5", "--seconds", "1", "--workers", "1"),
    "data snapshot": ("--no-push",),
    "features build": ("--dry-run",),
    "demo": ("--preset", "none"),
    "tables": ("3", "--recipe", "tiny", "--dry-run"),
}
HOSTILE = "\x1b[2J\x1b]0;owned\x07"
#: kind of value → (name, value, verdict)
VALUES: dict[str, tuple[tuple[str, str, Verdict], ...]] = {
    "float": (
        ("word", "abc", "refuse"),
        ("empty", "", "refuse"),
        ("nan", "nan", "refuse"),
        ("infinite", "inf", "any"),
        ("minus_infinite", "-inf", "any"),
        ("huge", "1e308", "any"),
        ("minus", "-1", "any"),
        ("tiny", "1e-320", "any"),
    ),
    "integer": (
        ("word", "abc", "refuse"),
        ("fraction", "1.5", "refuse"),
        ("minus", "-1", "any"),
        ("huge", str(10**30), "any"),
        ("digits", "9" * 5000, "refuse"),
    ),
    "choice": (("word", "nonsense", "refuse"), ("empty", "", "refuse"), ("escape", HOSTILE, "refuse")),
    "path": (
        ("missing", "no/such/place.csv", "any"),
        ("empty", "", "any"),
        ("folder", "data", "any"),
        ("newline", "a\nb", "any"),
        ("escape", f"{HOSTILE}.csv", "any"),
        ("long", "x" * 5000, "any"),
        ("url", "http://127.0.0.1:9/x.csv", "any"),
        ("option_like", "-x", "any"),
        ("surrogate", "\udcff.csv", "any"),
    ),
    "text": (
        ("empty", "", "any"),
        ("newline", "a\nb", "any"),
        ("escape", HOSTILE, "any"),
        ("long", "x" * 100_000, "any"),
        ("dots", "../outside/x", "any"),
        ("markup", "[/red]", "any"),
        ("surrogate", "\udcff", "any"),
    ),
}
#: options of which more is known than their kind
_BY_FLAG: dict[str, tuple[tuple[str, str, Verdict], ...]] = {
    "--issue": (
        ("unknown", "nsfw", "refuse"),
        ("empty", "", "refuse"),
        ("dots", "../x", "refuse"),
        ("case", "ICD", "refuse"),
        ("escape", HOSTILE, "refuse"),
        ("newline", "icd\nerror: forged", "refuse"),
    ),
    "--params": (
        ("missing", "no/params.yaml", "refuse"),
        ("folder", "data", "refuse"),
        ("empty", "", "refuse"),
        ("escape", f"{HOSTILE}.yaml", "refuse"),
        ("device", "/dev/zero", "refuse"),
        ("long", "x" * 5000, "refuse"),
        ("other", "small.csv", "refuse"),
        ("database", "mlflow.db", "refuse"),
    ),
    "--tenant": (
        ("empty", "", "refuse"),
        ("dots", "../outside/x", "refuse"),
        ("escape", HOSTILE, "refuse"),
        ("newline", "acme\nerror: forged", "refuse"),
        ("separator", "acme\x1fclip0", "refuse"),
        ("long", "x" * 5000, "refuse"),
    ),
    "--by": (("empty", " ", "refuse"), ("escape", HOSTILE, "any"), ("newline", "ana\nroot", "any")),
    "--reason": (("empty", "", "refuse"), ("escape", HOSTILE, "any"), ("newline", "x\nerror: y", "any")),
}


#: where these are accepted, the command rightly runs for as long as it takes
_TOO_LONG = frozenset({("--videos", "huge"), ("--workers", "huge"), ("--nproc", "huge"), ("--copies", "huge")})
#: here a name is only written down, or the value is not read without another option
_FREE = frozenset((name, "--issue") for name in ("cascade fit", "demo", "init", "tables"))


@dataclass(frozen=True)
class Line:
    """One odd command line."""

    name: str
    argv: tuple[str, ...]
    verdict: Verdict
    words: tuple[str, ...]


def lines(command: Command) -> Iterator[Line]:
    """All odd lines of a command, without the plain one."""
    plain = base_line(command)
    yield Line("unknown_option", (*plain, "--zz-unknown"), "refuse", ("--zz-unknown",))
    if not any(parameter.is_argument for parameter in command.parameters):
        yield Line("too_many", (*plain, "one", "two"), "refuse", ("one",))
    for parameter in command.parameters:
        if parameter.is_flag:
            continue
        if not parameter.is_argument:
            yield Line(f"{parameter.flag}=none", (*plain, parameter.flag), "refuse", (parameter.flag,))
        for name, value, verdict in _values(parameter):
            if (parameter.flag, name) in _TOO_LONG:
                continue
            argv = _with(command, plain, parameter, value)
            if (command.name, parameter.flag) in _FREE:
                verdict = "any"
            yield Line(f"{parameter.flag or 'argument'}={name}", argv, verdict, _words(parameter.flag, value))


def _words(flag: str, value: str) -> tuple[str, ...]:
    """What a refusal may name: the option, the value, or what is left of it without what no terminal should get."""
    return (flag, value[:30], *re.findall(r"\w{3,30}", value)[:3]) if value.strip() else ()


def base_line(command: Command) -> tuple[str, ...]:
    """The command with what it needs, as in the inventory's examples."""
    usual = USUAL.get(command.name, ())
    needed = [
        part
        for parameter in command.parameters
        if parameter.required and not parameter.is_argument and parameter.flag not in usual
        for part in NEEDED.get(parameter.flag, (parameter.flag, "1"))
    ]
    return (*command.name.split(), *usual, *needed)


def _with(command: Command, plain: tuple[str, ...], parameter: Parameter, value: str) -> tuple[str, ...]:
    if parameter.is_argument:
        usual = USUAL.get(command.name, ())
        at = len(command.name.split())
        given = bool(usual) and not usual[0].startswith("-")
        return (*plain[:at], value, *plain[at + given :])
    return (*plain, parameter.flag, value)  # the last one counts


def _values(parameter: Parameter) -> tuple[tuple[str, str, Verdict], ...]:
    if parameter.flag in _BY_FLAG:
        return _BY_FLAG[parameter.flag]
    return VALUES[parameter.kind]
