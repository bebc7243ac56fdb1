"""The hub recipes at small depth and full structure, from the first clip to a decision.

Weights are random and lie where fetched ones would, under the hub's names; widths are small. Two gloo ranks train the
MLLM by ZeRO-2 in bfloat16 with sound, are gone in the middle of an epoch, and go on.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from benchmarks.miniature import definition_of, write_weights
from coefvq.config import Scoring, load_params
from coefvq.data.media.decode import Clip
from coefvq.files import read_json, write_json
from coefvq.inference import NOTHING, load_for_scoring
from coefvq.models.dataset import Example
from coefvq.records import VideoInput
from coefvq.registry import pairs, release
from coefvq.registry.bundle import read_candidate
from coefvq.registry.champions import load_scorer
from coefvq.registry.gates import GateReport
from coefvq.simulation.synthetic.generate import generate
from coefvq.stages import STAGES
from coefvq.training.launch import rank_environment, torchrun
from tasks.workspace import change_params, write_pipeline
from tests.integration import hub_child

PARAMS = {
    "issues": ["ucc"],
    "media.ucc": {"frames": 2},
    "validate.prevalence": {"ucc": [0.0, 1.0]},
    "split.fractions": {"train": 0.5, "val": 0.2, "test": 0.2, "traffic": 0.1},
    "thresholds": {"ucc": {"p_base": [1], "max_f1_loss": 0.5, "views_trigger": 0}},
    "evaluate.bootstrap": 100,
    "stability.videos_per_threshold": 1,
    "runtime.workers": 1,
    "runtime.save_steps": 1,
    "predict.batch_size": 4,
}
RECIPE = {
    "base.preset": "miniature",
    "base.training.num_train_epochs": 1,
    "mllm.preset": "miniature",
    "mllm.training.per_device_train_batch_size": 2,
    "mllm.training.gradient_accumulation_steps": 2,
    "mllm.training.bf16": True,
    "mllm.training.nproc_per_node": 2,
    "mllm.training.deepspeed": "zero2",
}
BF16 = Scoring(dtype="bfloat16", savings="exact", approximate=NOTHING)
FP32 = Scoring(dtype="float32", savings="exact", approximate=NOTHING)


def workspace(recipe: str, root: Path) -> None:
    definition = definition_of(recipe, 2, narrow=True)
    roles = [role for role in definition["weights"] if role != "frames" and role != "siglip"]
    write_weights(root / "weights", definition, roles)
    write_pipeline(root, PARAMS, recipe)
    (root / "presets.yaml").write_text(yaml.safe_dump({"miniature": definition}))
    change_params(root / "recipe.yaml", RECIPE)
    (root / "data").mkdir(exist_ok=True)
    (root / "data" / "reference.json").write_text("{}")
    generate(root / "data" / "raw", 48, 3, {"icd": 0.4, "ucc": 0.4}, workers=1)


def run(names: list[str]) -> None:
    params = load_params()
    for stage in (stage for stage in STAGES if stage.name in names):
        stage.run(stage.inputs.of(params, *(["ucc"] if stage.per_issue else [])))


def ranks(root: Path, stop: int) -> int:
    counts = root / f"batches-{stop}"
    command = [*torchrun(2), str(Path(hub_child.__file__)), str(counts), str(stop), "train-mllm", "--issue", "ucc"]
    finished = subprocess.run(command, cwd=root, env=rank_environment(2), capture_output=True, text=True, check=False)
    assert (finished.returncode == 0) == (stop == 0), finished.stderr[-3000:]
    return len((root / f"batches-{stop}-0").read_text(encoding="utf-8").split())


@pytest.mark.long
@pytest.mark.timeout(1800)  # four processes beside other work
@pytest.mark.parametrize("recipe", ["paper", "onevision-0.5b"])
def test_a_hub_recipe_goes_from_clips_to_a_decision(
    recipe: str, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("deepspeed")
    monkeypatch.chdir(tmp_path)
    for name, value in {"CACHE": "cache", "WEIGHTS": "weights"}.items():
        monkeypatch.setenv(f"COEFVQ_{name}", str(tmp_path / value))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(repository), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    workspace(recipe, tmp_path)
    run(["ingest", "validate", "split"])
    train = int((pd.read_parquet("data/splits.parquet")["split"] == "train").sum())
    batches = -(-train // 4)  # of an epoch, on each of two ranks
    assert ranks(tmp_path, stop=5) == 5
    assert ranks(tmp_path, stop=0) == 2 * batches - 4  # two steps of two batches were kept
    curve = json.loads(Path("reports/ucc/mllm_curve.json").read_text(encoding="utf-8"))
    assert [row["epoch"] for row in curve] == [1.0, 2.0]
    run(["teach", "train-base", "predict"])
    plain = pd.read_parquet("reports/ucc/scores.parquet")
    assert plain[["base", "mllm"]].notna().all(axis=None)
    change_params(tmp_path / "params.yaml", {"predict.dtype": "bfloat16"})
    run(["predict", "evaluate", "thresholds", "stability", "candidate"])
    rounded = pd.read_parquet("reports/ucc/scores.parquet")
    assert np.abs(rounded["mllm"] - plain["mllm"]).max() < 0.02
    check_long_rows(tmp_path / "models" / "ucc" / "mllm")
    candidate = read_candidate(Path("reports/ucc/candidate.json"))
    pairs.register_candidate(candidate, GateReport(passed=True, checks=()))
    release.approve("ucc", "ana", "a wiring test")
    clips = sorted((tmp_path / "data/raw/videos").glob("*.mp4"))[:2]
    rows = load_scorer(["ucc"])([VideoInput(path.stem, path) for path in clips])
    assert [row.error for row in rows] == [None, None]
    assert all(row.positive is not None for row in rows)


def check_long_rows(folder: Path) -> None:
    """H in bfloat16 is that in float32 to rounding where a row has the paper's length."""
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", {**config, "media": {**config["media"], "frames": 8}})
    random = np.random.default_rng(2)
    frames = random.integers(0, 255, (8, 3, 384, 384)).astype(np.uint8)
    sound = random.integers(-9000, 9000, 480_000).astype(np.int16)
    states = []
    for scoring in (FP32, BF16):
        classifier = load_for_scoring(folder, scoring)
        batch = classifier.collator([Example(Clip(frames, sound), "watch till the end " * 12, None)])
        assert batch["input_ids"].shape[1] > 1_633
        seen: list[torch.Tensor] = []
        classifier.network.norm.register_forward_hook(lambda _, __, H: seen.append(H))  # noqa: B023
        with torch.inference_mode():
            classifier.network(**batch)
        states.append(seen[0].float())
    write_json(folder / "config.json", config)
    assert (states[0] - states[1]).norm() / states[0].norm() < 0.05
