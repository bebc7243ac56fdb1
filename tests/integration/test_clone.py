"""A clone of the repository is a workspace: `dvc repro` at its top, with nothing set up but `.venv`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from coefvq.errors import ConfigError
from flows.demo import DemoRequest, run_demo
from tasks.snapshot_run import SnapshotRequest
from tasks.versioning import take
from tasks.workspace import change_params, commit, create, git
from tests.integration.conftest import SETTINGS, VIDEOS


@dataclass(frozen=True)
class Clone:
    """A checkout whose environment is not activated: nobody's PATH, nobody's git configuration."""

    root: Path
    home: Path

    def dvc(self, *argv: str) -> str:
        """What `.venv/bin/dvc` says."""
        env = {"HOME": str(self.home), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
        program = str(self.root / ".venv" / "bin" / "dvc")
        done = subprocess.run([program, *argv], cwd=self.root, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout


@pytest.fixture(scope="module")
def clone(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The tree as it would be committed; less to render and to train, one issue."""
    top = tmp_path_factory.mktemp("clone")
    listed = git(repository, "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    for name in listed:
        if (repository / name).is_file():
            (top / "c" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(repository / name, top / "c" / name)
    (top / "home").mkdir()
    pipeline = top / "c" / "dvc.yaml"
    text = pipeline.read_text()
    assert "--videos 300 --seed 7 --icd 0.2" in text
    pipeline.write_text(text.replace("--videos 300 --seed 7 --icd 0.2", f"--videos {VIDEOS} --seed 7 --icd 0.4"))
    change_params(top / "c" / "params.yaml", {**SETTINGS, "evaluate.bootstrap": 100})
    git(top / "c", "init", "--quiet")
    (top / "c" / ".venv").symlink_to(sys.prefix)
    commit(top / "c", "as cloned")
    return Clone(top / "c", top / "home")


def test_commands_for_own_clips_leave_the_clone_alone(clone: Clone) -> None:
    status = git(clone.root, "status", "--porcelain")
    create(clone.root, {})
    with pytest.raises(ConfigError, match=r"its own pipeline makes its clips \(dvc repro\); choose another"):
        run_demo(DemoRequest(clone.root, None, (), "tiny", 60, 7))
    with pytest.raises(ConfigError, match="its own pipeline makes data/raw; own clips need a workspace of"):
        take(SnapshotRequest(clone.root / "docs", clone.root))
    assert git(clone.root, "status", "--porcelain") == status


@pytest.mark.long  # five minutes on a processor without AVX-512
def test_repro_ends_at_a_candidate_and_again_does_nothing(clone: Clone) -> None:
    assert "dvc.lock" not in git(clone.root, "ls-files").splitlines()
    first = clone.dvc("repro")
    assert "Running stage 'clips'" in first
    assert len(json.loads((clone.root / "reports/icd/candidate.json").read_text())["content_hash"]) == 64
    assert git(clone.root, "status", "--porcelain") == "?? dvc.lock\n?? reports/"
    again = clone.dvc("repro")
    assert "Running stage" not in again
    assert "up to date" in again
    # a key of either file; what depends on neither stays
    recipe, params = "recipe.yaml:base.training.weight_decay=0.5", "evaluate.precision_targets=[50]"
    ran = clone.dvc("exp", "run", "--name", "other", "-S", recipe, "-S", params, "evaluate@icd")
    stages = [line.split("'")[1] for line in ran.splitlines() if line.startswith("Running stage")]
    assert stages == ["teach@icd", "train-base@icd", "predict@icd", "evaluate@icd"]
    lock = yaml.safe_load((clone.root / "dvc.lock").read_text())["stages"]
    assert lock["train-base@icd"]["params"]["recipe.yaml"]["base"]["training"]["weight_decay"] == 0.5
    assert lock["evaluate@icd"]["params"]["params.yaml"]["evaluate"]["precision_targets"] == [50]
    assert "other" in clone.dvc("exp", "list", "--name-only").split()
    clone.dvc("plots", "show", "--out", "page")
    assert "https://cdn" not in (clone.root / "page" / "index.html").read_text()
