"""What a training asks of a GPU, seen on a machine without one; and what the templates for clusters set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from coefvq.training import arguments
from coefvq.training.cost import read_energy
from tests.settings import training_settings

CLUSTER = Path("examples") / "cluster"


def asked(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] | None, **settings: Any) -> Any:
    """What the Trainer is given on a machine with eight such cards (None: with none)."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(arguments, "TrainingArguments", lambda **given: SimpleNamespace(n_gpu=8, **given))
    return arguments.training_arguments(training_settings(**settings), 1, Path(), loaders=2)


@pytest.mark.parametrize(("capability", "tf32"), [((9, 0), True), ((8, 0), True), ((7, 5), None), (None, None)])
def test_tf32_is_on_where_the_card_has_it(
    capability: tuple[int, int] | None, tf32: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = asked(monkeypatch, capability)
    assert given.tf32 is tf32
    assert given.dataloader_pin_memory == (capability is not None)


def test_a_lone_process_takes_one_of_eight_cards_and_losses_are_not_looked_at_per_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = asked(monkeypatch, (9, 0), bf16=True)
    assert given._n_gpu == 1
    assert not given.use_cpu
    assert given.bf16
    assert (given.logging_strategy, given.logging_nan_inf_filter) == ("epoch", False)
    assert given.dataloader_persistent_workers


def test_energy_is_that_of_the_process_s_own_card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nvml: Any = ModuleType("pynvml")
    nvml.NVMLError, nvml.nvmlInit = OSError, lambda: None
    nvml.nvmlDeviceGetHandleByUUID = {"GPU-first": 11, "GPU-own": 22}.__getitem__
    nvml.nvmlDeviceGetTotalEnergyConsumption = {11: 1, 22: 5}.__getitem__  # in millijoules
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)  # NVML's card 0 is another one
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="own"))
    assert read_energy(tmp_path) == {"GPU-own": 5000}


def test_templates_give_every_rank_its_cores(repository: Path) -> None:
    templates = [path for path in sorted((repository / CLUSTER).iterdir()) if "torchrun" in path.read_text()]
    starting = [path for path in templates if path.suffix in (".sh", ".sbatch", ".yaml")]
    assert len(starting) == 3
    for path in starting:
        assert "OMP_NUM_THREADS" in path.read_text(encoding="utf-8"), path
        assert "save_steps" in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("steps", ["null", "200"])
def test_a_template_starts_nothing_without_checkpoints_in_an_epoch(
    steps: str, repository: Path, tmp_path: Path
) -> None:
    (tmp_path / "params.yaml").write_text(f"runtime:\n  save_steps: {steps}   # a comment\n", encoding="utf-8")
    (tmp_path / "ssh").write_text('#!/bin/sh\necho "$2" >> ssh.log\n', encoding="utf-8")
    (tmp_path / "ssh").chmod(0o755)
    finished = subprocess.run(
        ["bash", str(repository / CLUSTER / "hostfile.sh"), "ucc"], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}, check=False,
    )  # fmt: skip
    log = tmp_path / "ssh.log"
    if steps == "null":
        assert finished.returncode == 2
        assert "params.yaml: set runtime.save_steps" in finished.stderr
        assert not log.exists()
    else:
        assert finished.returncode == 0, finished.stderr
        starts = [line for line in log.read_text(encoding="utf-8").splitlines() if "OMP_NUM_THREADS=" in line]
        assert len(starts) == 2  # one per machine of the hostfile
