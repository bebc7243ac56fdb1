"""Damaged files and odd arguments through every command: the short part of `make fuzz-cli`, and its own controls."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import coefvq.__main__  # noqa: F401 - the inventory is taken from it
from tests.fuzz_cli.arguments import inventory, lines
from tests.fuzz_cli.cases import draw, find
from tests.fuzz_cli.conditions import CONDITIONS
from tests.fuzz_cli.process import Outcome
from tests.fuzz_cli.targets import TARGETS
from tests.fuzz_cli.verdicts import judge

pytestmark = pytest.mark.long


def outcome(code: int | None, stderr: str = "", stdout: str = "", **changes: Any) -> Outcome:
    values = {"seconds": 1.0, "peak_mib": 300.0, "events": (), **changes}
    return Outcome(code, stdout, stderr, **values)


def kinds(*arguments: Any) -> list[str]:
    return [fault.kind for fault in judge(*arguments)]


def test_a_short_run_finds_nothing(repository: Path) -> None:
    # a process of its own: it forks, so it may have no threads
    command = [
        sys.executable,
        "-m",
        "tests.fuzz_cli",
        "--cases",
        "100",
        "--seed",
        "11",
        "--workers",
        "1",
        "--light",
        "--json",
    ]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=900, check=False)
    assert done.stdout, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["failures"] == [], done.stdout[-4000:]
    assert done.returncode == 0, done.stderr
    assert result["cases"] == 100
    # that the judge finds each planted fault is checked before the first case, else the exit code is 2


@pytest.mark.parametrize(
    ("found", "verdict", "expected"),
    [
        (outcome(2, "error: params.yaml: no\n"), "refuse", []),
        (outcome(2, "error: no\n"), "refuse", ["unnamed"]),
        (outcome(0), "refuse", ["silent_acceptance"]),
        (outcome(2, "error: params.yaml: no\nerror: more\n"), "refuse", ["not_one_line"]),
        (outcome(2, "error: params.yaml: no\n  more\n"), "refuse", ["not_one_line"]),
        (outcome(2, "params.yaml\n"), "any", ["not_one_line"]),
        (outcome(2, "error: params.yaml: no\n"), "accept", ["wrong_refusal"]),
        (outcome(None), "any", ["hang"]),
        (outcome(-11), "any", ["crash"]),
        (outcome(0, "Traceback (most recent call last):\nValueError: x\n"), "any", ["traceback"]),
        (outcome(0, stdout="\x1b[2J"), "any", ["control_character"]),
        (outcome(0, peak_mib=9000.0), "any", ["memory"]),
        (outcome(0, events=("connect ('127.0.0.1', 9)",)), "any", ["network"]),
        (outcome(0, events=("open /etc/x",)), "any", ["outside"]),
        (outcome(9, "error: x\n"), "any", ["exit_code"]),
        (outcome(0, stdout="2"), "same", ["other_result"]),
        (outcome(0, stdout="1"), "same", []),
    ],
)
def test_the_judge(found: Outcome, verdict: str, expected: list[str]) -> None:
    assert kinds(found, verdict, ["params.yaml"], outcome(0, stdout="1")) == expected


def test_every_command_has_cases() -> None:
    commands = inventory()
    names = {command.name for command in commands}
    assert {"score", "vmp run", "data snapshot", "cascade fit", "demo", "tables", "train-mllm"} <= names
    with_files = {text for target in TARGETS for text in target.commands}
    with_files |= {text for condition in CONDITIONS for text in condition.commands}
    # what reads no file of the user's has odd arguments only
    free = {"models list", "models show", "models plan", "data bayes", "init", "demo", "tables"}
    for name in names - free:
        assert any(f"{text} ".startswith(f"{name} ") for text in with_files), name
    assert all(list(lines(command)) for command in commands)


def test_cases_are_the_same_for_the_same_seed_and_can_be_found_again() -> None:
    commands = inventory()
    first, again, other = (draw(1200, seed, commands) for seed in (1, 1, 2))
    assert [case.id for case in first] == [case.id for case in again] != [case.id for case in other]
    assert len({case.id for case in first}) == len(first) == 1200
    for case in first[:40]:
        found = find(case.id, 1, commands)
        assert (found.argv, found.verdict, found.rng().random()) == (case.argv, case.verdict, case.rng().random())
