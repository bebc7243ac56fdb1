"""A base that is distilled from the MLLM, through DVC and the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from coefvq.files import sha256_file, sha256_tree
from tasks.workspace import change_params
from tests.integration.conftest import Workspace

DISTIL = {
    "split.fractions": {"train": 0.4, "val": 0.2, "test": 0.2, "traffic": 0.1, "unlabelled": 0.1},
    "base.icd.distil": {"unlabelled": "unlabelled", "weight": 1.0},
}

CONTROL = """
from pathlib import Path
from coefvq.config import load_params
from flows.controls import control_rows
print(control_rows(load_params(Path("params.yaml")), "icd"))
"""


def teacher_of(root: Path) -> str | None:
    found: str | None = json.loads((root / "models/icd/base/config.json").read_text()).get("teacher")
    return found


@pytest.fixture
def taught(workspace: Workspace) -> Workspace:
    """The stages have run with a teacher; they had run without."""
    root = workspace.root
    assert pd.read_parquet(root / "models/icd/teacher.parquet").empty
    assert teacher_of(root) is None
    change_params(root / "params.yaml", DISTIL)
    assert {"split", "train-mllm@icd", "teach@icd", "train-base@icd", "candidate@icd"} <= set(workspace.ran())
    return workspace


def test_the_teacher_scores_train_and_unlabelled_and_the_pair_names_it(taught: Workspace) -> None:
    root = taught.root
    splits = pd.read_parquet(root / "data/splits.parquet").set_index("video_id")["split"]
    table = pd.read_parquet(root / "models/icd/teacher.parquet")
    assert set(table["video_id"]) == set(splits.index[splits.isin(["train", "unlabelled"])])
    assert json.loads((root / "reports/icd/base.json").read_text())["unlabelled_videos"] == (
        splits.eq("unlabelled").sum()
    )
    candidate = json.loads((root / "reports/icd/candidate.json").read_text())
    mllm = sha256_tree(root / "models/icd/mllm")
    assert teacher_of(root) == candidate["base"]["teacher"] == candidate["mllm"]["sha256"] == mllm
    assert taught.ran() == []
    page = taught.coefvq("report", "--issue", "icd")
    assert page.returncode == 0
    assert f"the MLLM with sha256 {mllm[:16]}…, that of this pair" in (root / "reports/icd/report.html").read_text()


@pytest.mark.long  # four processes that train
def test_the_demo_s_control_is_the_model_made_once_distilling_is_off(taught: Workspace) -> None:
    root = taught.root
    first, again = (taught.run(sys.executable, "-c", CONTROL).stdout.splitlines()[-1] for _ in range(2))
    assert first == again != "[]"
    control = root / "models/labels_only/icd/base/model.safetensors"
    made = control.stat().st_mtime_ns

    base = sha256_file(root / "models/icd/base/model.safetensors")
    change_params(root / "params.yaml", {"base.icd.distil": None})
    assert taught.ran("train-base@icd") == ["teach@icd", "train-base@icd"]
    assert teacher_of(root) is None
    assert sha256_file(root / "models/icd/base/model.safetensors") == sha256_file(control) != base
    assert taught.run(sys.executable, "-c", CONTROL).stdout.splitlines()[-1] == "[]"
    assert control.stat().st_mtime_ns == made


def test_unlabelled_videos_that_are_none_or_copies_are_refused(workspace: Workspace) -> None:
    root = workspace.root
    change_params(root / "params.yaml", {"base.icd.distil": DISTIL["base.icd.distil"]})
    refused = workspace.coefvq("teach", "--issue", "icd", check=False)
    assert refused.returncode == 3
    assert "base.icd.distil.unlabelled: split 'unlabelled' holds no video" in refused.stderr
    splits = pd.read_parquet(root / "data/splits.parquet")
    sources = pd.read_parquet(root / "data/manifest.parquet").set_index("video_id")["source_id"]
    here = splits["split"].eq("test") & splits["video_id"].map(sources).duplicated(keep="first")
    (root / "data/splits.parquet").unlink()  # DVC may have linked it
    splits.assign(split=splits["split"].mask(here & here.cumsum().eq(1), "unlabelled")).to_parquet(
        root / "data/splits.parquet"
    )
    refused = workspace.coefvq("teach", "--issue", "icd", check=False)
    assert refused.returncode == 3
    assert "share their source with val or test" in refused.stderr
    assert len([line for line in refused.stderr.splitlines() if "error" in line]) == 1
