"""Features built by Ray tasks are the bytes that one local builder would have left."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from coefvq.config import load_params
from coefvq.shipped_recipes import shipped_recipe
from coefvq.simulation.synthetic.generate import generate
from coefvq.stages import ingest, split
from coefvq.stages.inputs import IngestInputs, SplitInputs, TrainBaseInputs
from coefvq.training.features.fill import build_features
from tasks.templates import template
from tasks.workspace import change_params

CHANGES = {
    "base.ucc.freeze_towers": True,
    "validate.prevalence.icd": [0.0, 1.0],
    "validate.prevalence.ucc": [0.0, 1.0],
}


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainBaseInputs:
    """A workspace of 80 clips, split, whose ucc base has frozen towers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("COEFVQ_CACHE", str(tmp_path / "local"))
    generate(tmp_path / "data" / "raw", 80, 3, {"icd": 0.4, "ucc": 0.4}, workers=1)
    for name in ("params.yaml", "presets.yaml"):
        (tmp_path / name).write_text(template(name))
    (tmp_path / "recipe.yaml").write_text(shipped_recipe("tiny").text)
    change_params(tmp_path / "params.yaml", CHANGES)
    loaded = load_params(tmp_path / "params.yaml")
    ingest.run(IngestInputs.of(loaded))
    split.run(SplitInputs.of(loaded))
    return TrainBaseInputs.of(loaded, "ucc")


def entries(cache: Path) -> dict[tuple[str, str], torch.Tensor]:
    shards = sorted((cache / "features").glob("*/*.safetensors"))
    return {(shard.parent.name, name): value for shard in shards for name, value in load_file(shard).items()}


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (coefvq[ray])")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::FutureWarning:ray")
def test_two_ray_tasks_leave_what_one_builder_leaves(
    inputs: TrainBaseInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coefvq.training.features.ray_fill import build_features_on_ray

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    local = build_features(inputs.settings, inputs.model, [], 1, dry_run=False)
    torch.set_num_threads(threads)
    monkeypatch.setenv("COEFVQ_CACHE", str(tmp_path / "ray"))
    try:
        spread = build_features_on_ray(inputs.settings, inputs.model, [], 1)
    finally:
        import ray

        ray.shutdown()
    assert spread["computed"] == local["computed"] > 0
    assert spread["keys"] == local["keys"]
    one, several = entries(tmp_path / "local"), entries(tmp_path / "ray")
    assert one.keys() == several.keys()
    assert all(torch.equal(one[name], several[name]) for name in one)
