"""The collector's settings: what a process does at its end, and that cycles are still found."""

from __future__ import annotations

import subprocess
import sys

import pytest

# a cycle that tells when the collector takes it apart, and what must happen at the end anyway
CYCLE = """
import atexit, sys
from coefvq.compute.collection import collect_rarely
class Cycle:
    def __init__(self):
        self.me = self
    def __del__(self):
        print("collected", flush=True)
atexit.register(print, "handler")
if sys.argv[1] == "rarely":
    collect_rarely()
"""
AT_THE_END = CYCLE + "Cycle()\n"
WHILE_RUNNING = CYCLE + "Cycle()\nheap = [[] for _ in range(50_000)]\nprint('running')\n"


def told(script: str, how: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", script, how], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize(("how", "expected"), [("rarely", ["handler"]), ("plain", ["handler", "collected"])])
def test_nothing_is_collected_at_the_end(how: str, expected: list[str]) -> None:
    assert told(AT_THE_END, how) == expected


def test_cycles_are_found_while_running() -> None:
    assert told(WHILE_RUNNING, "rarely") == ["collected", "running", "handler"]
