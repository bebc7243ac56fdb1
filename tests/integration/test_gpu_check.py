"""``make gpu-check`` on a CPU: every step of it at one layer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.long
@pytest.mark.parametrize("preset", ["onevision-0.5b"])
def test_the_check_runs_where_there_is_no_card(preset: str, repository: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "benchmarks/gpu_check.py", "--device", "cpu", "--preset", preset],
        cwd=repository, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout + finished.stderr[-2000:]
    table = [line for line in finished.stdout.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]
    assert {"loaded", "trained, then stopped", "resumed", "training speed, with validation", "scoring, bfloat16"} <= {
        row[0] for row in rows
    }
    assert [row[2] for row in rows if row[0] in ("trained, then stopped", "resumed")] == ["ok", "ok"]
    refused = subprocess.run(
        [sys.executable, "benchmarks/gpu_check.py"], cwd=repository, capture_output=True, text=True, check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert refused.returncode == 1
    assert "--device cpu runs the same steps" in refused.stderr
