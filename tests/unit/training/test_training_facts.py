"""What a run is logged with: cost, energy counters, Git commit and dvc.lock read as files; starting ranks."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from coefvq.errors import ConfigError, SplitError, TrainingError
from coefvq.registry.tracking.environment import environment_tags, git_commit
from coefvq.training.cost import Meter, read_energy, spent_joules
from coefvq.training.data import check_both_classes
from coefvq.training.launch import launch


def rapl(root: Path, name: str, energy: int, largest: int = 1000) -> Path:
    package = root / name
    package.mkdir(parents=True, exist_ok=True)
    (package / "energy_uj").write_text(f"{energy}\n")
    (package / "max_energy_range_uj").write_text(f"{largest}\n")
    return package


def test_energy_is_summed_over_packages_and_counters_may_wrap(tmp_path: Path) -> None:
    rapl(tmp_path, "intel-rapl:0", 900)
    rapl(tmp_path, "intel-rapl:1", 100)
    rapl(tmp_path, "intel-rapl:0:0", 5)  # part of package 0
    before = read_energy(tmp_path)
    assert len(before) == 2
    rapl(tmp_path, "intel-rapl:0", 200)
    rapl(tmp_path, "intel-rapl:1", 150)
    assert spent_joules(before, read_energy(tmp_path)) == pytest.approx((300 + 50) / 1e6)


def test_no_counter_no_figure(tmp_path: Path) -> None:
    assert read_energy(tmp_path) == {}
    assert spent_joules({}, {}) is None


def test_a_meter_counts_samples_and_tokens_without_padding() -> None:
    meter = Meter()
    meter.add(2, torch.tensor([[0, 1, 1], [1, 1, 1]]))
    meter.add(1, None)
    cost = meter.cost()
    assert cost.samples_per_second * cost.train_seconds == pytest.approx(3)
    assert cost.tokens_per_second is not None
    assert cost.tokens_per_second * cost.train_seconds == pytest.approx(5)
    assert cost.peak_memory_mib > 50


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    return subprocess.run(
        ["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_the_commit_is_read_from_files_in_all_shapes_of_a_repository(tmp_path: Path) -> None:
    main = tmp_path / "main"
    main.mkdir()
    assert git_commit(main) is None
    git(main, "init", "-q")
    (main / "dvc.lock").write_text("schema: '2.0'\n")
    git(main, "add", ".")
    git(main, "commit", "-qm", "first")
    head = git(main, "rev-parse", "HEAD")
    (main / "deep").mkdir()
    assert git_commit(main / "deep") == head
    git(main, "worktree", "add", "-q", "-b", "side", str(tmp_path / "tree"))
    assert git_commit(tmp_path / "tree") == head
    git(main, "pack-refs", "--all")
    assert git_commit(main) == git_commit(tmp_path / "tree") == head
    git(main, "checkout", "-q", "--detach")
    assert git_commit(main) == head
    tags = environment_tags(main)
    assert tags["git.commit"] == head
    assert tags["dvc.lock"] == hashlib.sha256((main / "dvc.lock").read_bytes()).hexdigest()
    assert tags["env.torch"] == version("torch")  # torch itself may add its build, such as +cu130


@pytest.mark.parametrize(("label", "missing"), [(0, "positive"), (1, "negative")])
def test_a_split_of_one_class_is_refused(label: int, missing: str) -> None:
    check_both_classes([0, 1], "ucc", "train")
    with pytest.raises(SplitError, match=f"split 'train' has no {missing} for ucc among 5 labelled videos; label more"):
        check_both_classes([label] * 5, "ucc", "train")


def test_deepspeed_that_is_not_there_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install \"coefvq\[deepspeed\]\""):
        launch(2, ["train-mllm"], "zero2")


def test_a_rank_that_fails_ends_the_launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # no params.yaml here
    with pytest.raises(TrainingError, match="on 2 ranks ended with code 1"):
        launch(2, ["train-mllm", "--issue", "ucc", "--params", "params.yaml"], None)
