"""Each stage after the split reads and joins manifest and splits at most once, and hashes them at most once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from coefvq.config import load_params
from coefvq.data import manifest
from coefvq.data.splits import rows
from coefvq.shipped_recipes import shipped_recipe
from coefvq.simulation.synthetic.generate import generate
from coefvq.stages import STAGES
from tasks.templates import template
from tasks.workspace import change_params

PARAMS = {
    "issues": ["icd"],
    "validate.prevalence.icd": [0.0, 1.0],
    "evaluate.bootstrap": 100,
    "runtime.workers": 1,
}
# both read captions; alignment is a run of its own on the same rows
ALIGNMENT = {
    "projector_epochs": 0,
    "objective": "sentences",
    "epochs": 1,
    "per_device_train_batch_size": 16,
    "learning_rate": 0.001,
    "max_tokens": 8,
}
RECIPE = {
    "base.training.num_train_epochs": 1,
    "base.distil": {"unlabelled": None, "weight": 1.0},
    "mllm.training.num_train_epochs": 1,
    "mllm.alignment": ALIGNMENT,
    "mllm.description_weight": 0.5,
}
FILES = ("manifest.parquet", "splits.parquet")
HASHING = {"teach", "train-base", "train-mllm", "candidate"}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COEFVQ_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    generate(tmp_path / "data" / "raw", 120, 3, {"icd": 0.4, "ucc": 0.4}, workers=1)
    for name in ("params.yaml", "presets.yaml"):
        (tmp_path / name).write_text(template(name))
    (tmp_path / "recipe.yaml").write_text(shipped_recipe("tiny").text)
    (tmp_path / "data" / "reference.json").write_text("{}")
    change_params(tmp_path / "params.yaml", PARAMS)
    change_params(tmp_path / "recipe.yaml", RECIPE)
    return tmp_path


@pytest.mark.long
def test_manifest_and_splits_are_read_joined_and_hashed_once(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()

    def counted(holder: Any, name: str, what: str) -> None:
        original = getattr(holder, name)

        def call(path: Path, *rest: Any, **options: Any) -> Any:
            calls[f"{what} {Path(path).name}"] += 1
            return original(path, *rest, **options)

        monkeypatch.setattr(holder, name, call)

    counted(pd, "read_parquet", "read")  # whole tables
    counted(manifest, "_read_rows", "read")  # rows of some videos
    counted(rows, "sha256_file", "hash")
    params = load_params()
    for stage in STAGES:
        calls.clear()
        stage.run(stage.inputs.of(params, "icd" if stage.per_issue else None))
        if stage.per_issue:
            found = {name: count for name, count in calls.items() if name.endswith(FILES)}
            wanted = {f"read {file}": 1 for file in FILES} if stage.name != "candidate" else {}
            wanted |= {f"hash {file}": 1 for file in FILES} if stage.name in HASHING else {}
            assert found == wanted, stage.name
