"""kill -9 at random points of a training, checkpoint writing included: the resumed run ends in the same bytes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.reliability import training_child

pytestmark = pytest.mark.long


@contextmanager
def trainer(repository: Path) -> Iterator[subprocess.Popen[str]]:
    environment = os.environ | {"PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(training_child.__file__))]
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as child:
        try:
            yield child
        finally:
            child.kill()


def run(child: subprocess.Popen[str], folder: Path | None, out: Path, kill: tuple[str, int] | None) -> dict[str, Any]:
    assert child.stdin is not None
    assert child.stdout is not None
    job = {"folder": folder and str(folder), "out": str(out), "kill": kill}
    child.stdin.write(json.dumps(job) + "\n")
    child.stdin.flush()
    while not (line := child.stdout.readline()).startswith("{"):
        assert line, "the child ended"
    answer: dict[str, Any] = json.loads(line)
    return answer


def result(out: Path) -> tuple[bytes, str]:
    return out.read_bytes(), Path(f"{out}.json").read_text()


def test_twenty_kills_change_no_bit(tmp_path: Path, repository: Path) -> None:
    rng = random.Random(23)
    with trainer(repository) as child:
        assert run(child, None, tmp_path / "plain", None)["status"] == 0
        whole = run(child, tmp_path / "undisturbed", tmp_path / "whole", None)
        assert whole["status"] == 0
        # checkpoints alone change nothing
        assert result(tmp_path / "whole") == result(tmp_path / "plain")

        # each run dies early, so that twenty fit into one training
        upto = {"step": 4, "block": whole["events"]["block"] // 8, "rename": 3}
        kinds = ["step"] * 8 + ["block"] * 9 + ["rename"] * 3
        rng.shuffle(kinds)
        folder, out, finished = tmp_path / "killed", tmp_path / "resumed", 0
        while kinds:
            answer = run(child, folder, out, (kinds[-1], rng.randint(1, upto[kinds[-1]])))
            if answer["status"] == -signal.SIGKILL:
                kinds.pop()
                continue
            # it ended before the event: the other kills hit a new training
            assert answer["status"] == 0
            assert result(out) == result(tmp_path / "plain")
            finished += 1
            folder, out = tmp_path / f"killed{finished}", tmp_path / f"resumed{finished}"
        last = run(child, folder, out, None)
    assert last["status"] == 0
    assert result(out) == result(tmp_path / "plain")
    # it did go on: what was left to do is less than the whole
    assert last["events"]["step"] < whole["events"]["step"]
