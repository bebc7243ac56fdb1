"""Two ranks over loopback, DDP and ZeRO-2: the losses of one rank, no hanging, and resume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from coefvq.training.launch import rank_environment, torchrun
from tests.integration import rank_child

CHILD = str(Path(rank_child.__file__))
Result = dict[str, Any]


def run(command: list[str], mode: str, out: Path, repository: Path) -> Result:
    paths = [str(repository), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = rank_environment(2) | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    # ranks that wait for each other would wait for ever
    finished = subprocess.run(
        [*command, CHILD, mode, str(out)], env=environment, timeout=240, check=False, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    result: Result = json.loads(out.read_text())
    return result


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Result:
    return run([sys.executable], "ddp", tmp_path_factory.mktemp("one") / "result.json", repository)


@pytest.fixture(scope="module", params=["ddp", pytest.param("zero2", marks=pytest.mark.long)])
def two_ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Result:
    if request.param == "zero2":
        pytest.importorskip("deepspeed")
    return run(torchrun(2), request.param, tmp_path_factory.mktemp(request.param) / "result.json", repository)


def losses(result: Result) -> list[float]:
    return [row[name] for row in result["curve"] for name in ("loss", "val_loss", "val_average_precision")]


def test_two_ranks_train_as_one_with_the_same_global_batch(one_rank: Result, two_ranks: Result) -> None:
    assert losses(two_ranks["equality"]) == pytest.approx(losses(one_rank["equality"]), abs=1e-4)
    assert two_ranks["equality"]["weights"] == pytest.approx(one_rank["equality"]["weights"], abs=1e-3)


def test_a_rank_without_sound_labels_and_full_batches_holds_up_nobody(two_ranks: Result) -> None:
    curve = two_ranks["lame"]["curve"]
    assert [row["epoch"] for row in curve] == [1.0, 2.0]
    # both heads were validated
    assert {"val_icd_average_precision", "val_ucc_average_precision"} <= curve[0].keys()


def test_two_ranks_resume_in_the_middle_of_an_epoch(two_ranks: Result) -> None:
    assert two_ranks["resumed"]["left"] == ["step-00000006"]
    assert two_ranks["resumed"]["found"] == two_ranks["resumed"]["expected"]


def test_sound_trains_in_bfloat16_and_a_frozen_whisper_is_not_rounded(two_ranks: Result) -> None:
    sound = two_ranks["sound"]
    for part in sound.values():
        values = losses(part)
        assert all(value == value and abs(value) < 100.0 for value in values), values
        assert part["rotary_exact"]
    assert sound["frozen"]["whisper_unchanged"]
    assert not sound["trained"]["whisper_unchanged"]
