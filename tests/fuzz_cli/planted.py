"""Faults planted on purpose: a judge that does not see these sees nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

from tests.fuzz_cli.cases import Case
from tests.fuzz_cli.damage import Verdict


def _raises() -> None:
    raise ValueError("planted")


def _prints_traceback() -> None:
    print("Traceback (most recent call last):\nValueError: swallowed", file=sys.stderr)


def _sleeps() -> None:
    signal.pause()


def _accepts() -> None:
    print("all is well")


def _refuses() -> None:
    print("error: planted.yaml: no", file=sys.stderr)
    sys.exit(2)


def _refuses_twice() -> None:
    print("error: planted.yaml: no", file=sys.stderr)
    _refuses()


def _escapes() -> None:
    print("error: planted.yaml: \x1b[2J", file=sys.stderr)
    sys.exit(2)


def _writes() -> None:
    Path("../../planted-outside.txt").write_text("outside")


def _lets_write() -> None:
    subprocess.run(["cp", "params.yaml", "../outside/planted"], check=True)


def _connects() -> None:
    with socket.socket() as caller:
        caller.connect_ex(("127.0.0.1", 9))


def _crashes() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _grows() -> None:
    block = bytearray(1700 * 2**20)
    block[::4096] = b"x" * len(block[::4096])


def _odd_code() -> None:
    sys.exit(42)


def _says_internal() -> None:
    print("error: planted.yaml: internal error", file=sys.stderr)
    sys.exit(1)


def _obeys() -> None:
    Path("owned").touch()


def _tells_secret() -> None:
    from tests.fuzz_cli.conditions import SECRET

    print(f"error: planted.yaml: {SECRET}", file=sys.stderr)
    sys.exit(6)


#: name → what the command does, the verdict, the kind of fault that has to be found (None: none)
PLANTED: dict[str, tuple[Callable[[], None], Verdict, str | None]] = {
    "raises": (_raises, "any", "traceback"),
    "prints_traceback": (_prints_traceback, "any", "traceback"),
    "sleeps": (_sleeps, "any", "hang"),
    "accepts": (_accepts, "refuse", "silent_acceptance"),
    "refuses": (_refuses, "accept", "wrong_refusal"),
    "refuses_twice": (_refuses_twice, "refuse", "not_one_line"),
    "escapes": (_escapes, "refuse", "control_character"),
    "writes": (_writes, "any", "outside"),
    "lets_write": (_lets_write, "any", "outside"),
    "connects": (_connects, "any", "network"),
    "crashes": (_crashes, "any", "crash"),
    "grows": (_grows, "any", "memory"),
    "odd_code": (_odd_code, "any", "exit_code"),
    "says_internal": (_says_internal, "any", "internal_error"),
    "obeys": (_obeys, "any", "code_execution"),
    "tells_secret": (_tells_secret, "refuse", "secret"),
    "control_accepts": (_accepts, "accept", None),
    "control_refuses": (_refuses, "refuse", None),
}


def planted_cases() -> list[Case]:
    """One case per planted fault, and two without."""

    def prepare(rng: Random, root: Path) -> tuple[None, tuple[str, ...]]:
        return None, ("planted.yaml",)

    made = [Case(f"planted:{name}:0:0", (), verdict, 0, prepare) for name, (_, verdict, _) in PLANTED.items()]
    return [
        replace(case, entry=entry, wall_seconds=2.0 if entry is _sleeps else 30.0)
        for case, (entry, _, _) in zip(made, PLANTED.values(), strict=True)
    ]
