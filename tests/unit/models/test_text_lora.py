"""Adapters on a base model's text tower: they alone train of it, they alone are saved of it, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from coefvq.config import BaseModelParams, Lora
from coefvq.errors import ModelError
from coefvq.inference.settings import ready_for_scoring
from coefvq.models.classifier import Classifier, build, load, published_names
from coefvq.models.dataset import VideoDataset
from coefvq.models.model_config import base_config
from coefvq.models.shared import TowerPool
from coefvq.training.features.keys import cached_model
from tests.unit.frozen_models import ATTENTION, MEDIA, stored_clips, text_encoder, training

LORA = Lora(rank=4, alpha=8, dropout=0.0)
ARCHITECTURES = ("multitower", "attention")


def settings(architecture: str, lora: Lora | None = LORA, preset: str = "tiny", **changes: Any) -> BaseModelParams:
    given: dict[str, Any] = {"audio": True, "motion": False, "freeze_towers": True, "training": training(), **changes}
    attention = ATTENTION if architecture == "attention" else None
    return BaseModelParams.model_validate(
        {**given, "preset": preset, "architecture": architecture, "attention": attention, "text_lora": lora}
    )


def model(architecture: str, lora: Lora | None = LORA, preset: str = "tiny") -> Classifier:
    torch.manual_seed(0)
    weights = preset == "tiny"
    return build(base_config("ucc", settings(architecture, lora, preset), MEDIA), text_encoder(), weights=weights)


def batch_of(made: Classifier, folder: Path) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    videos, store = stored_clips(folder, 4)
    batch = made.collator([VideoDataset(videos, store, [0, 1, 0, 1])[at] for at in range(4)])
    labels = batch.pop("labels")
    return batch, labels


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_they_learn_and_score_the_same_when_loaded(tmp_path: Path, architecture: str) -> None:
    made = model(architecture)
    network = made.network
    batch, labels = batch_of(made, tmp_path / "clips")
    before = {name: tensor.detach().clone() for name, tensor in network.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-2)
    network.train()
    for _ in range(3):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(**batch), labels).backward()
        optimizer.step()
    changed = {name for name, tensor in network.named_parameters() if not torch.equal(tensor, before[name])}
    towers = {name for name in changed if name.partition(".")[0] in ("frames", "text", "audio")}
    assert towers
    assert all(name.startswith("text.") and "lora_" in name for name in towers)
    made.save(tmp_path / "model")
    with torch.no_grad():
        after = network.eval()(**batch)
        again = load(tmp_path / "model")
        assert again.config == made.config
        assert torch.equal(again.network(**batch), after)
        torch.testing.assert_close(ready_for_scoring(again).network(**batch), after, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_text_that_is_learnt_from_is_no_cached_feature(architecture: str) -> None:
    with_adapters, without = (set(cached_model(model(architecture, lora)).keys) for lora in (LORA, None))
    assert without - with_adapters == {"text_features"}
    assert with_adapters == {"vision_features", "audio_features"}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_beside_published_towers_the_adapters_alone_are_saved(architecture: str) -> None:
    with torch.device("meta"):
        made = model(architecture, preset="starter")
        plain = model(architecture, None, preset="starter")
    saved = [name for name in made.network.state_dict() if name not in published_names(made)]
    towers = [name for name in saved if name.partition(".")[0] in ("frames", "text", "audio")]
    assert towers
    assert all(name.startswith("text.") and "lora_" in name for name in towers)
    pool = TowerPool()
    pool.adopt(plain)
    # frames and sound are those of the other model; the text tower is its own
    assert pool.adopt(made) == 2


def test_a_model_without_adapters_is_written_as_before() -> None:
    assert "text_lora" not in settings("multitower", None).model_dump()
    assert settings("multitower").model_dump()["text_lora"]["rank"] == LORA.rank
    assert base_config("ucc", settings("multitower"), MEDIA).lora_rank == LORA.rank


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"architecture": "frames"}, "architecture frames has no text tower"),
        ({"architecture": "siglip"}, "architecture siglip has no text tower"),
        ({"architecture": "multitower", "freeze_towers": False}, "the whole text tower trains already"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=f"text_lora: {reason}"):
        settings(**changes)


def test_a_layer_that_is_not_there_is_named() -> None:
    with pytest.raises(
        ModelError, match=r"base\.text_lora\.target_modules: 'q_proj' is no linear layer of that network; it has"
    ):
        model("multitower", LORA.model_copy(update={"target_modules": ("q_proj",)}))
