"""Where only the head trains, H is computed once: the training is the one that computes it in each epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from coefvq.config import Training
from coefvq.models.classifier import Classifier
from coefvq.models.dataset import VideoDataset
from coefvq.models.mllm import MultimodalLLM
from coefvq.training import hidden_states
from coefvq.training.hidden_states import stays_the_same
from coefvq.training.loop import FitData, FitPlan, FitResult, fit, seed_everything
from coefvq.training.parameters import held_still
from tests.settings import training_settings
from tests.unit.frozen_models import frozen_model, stored_clips

ROWS, EPOCHS = 9, 3


def settings(**changes: Any) -> Training:
    values = {"num_train_epochs": EPOCHS, "learning_rate": 0.0, "projector_learning_rate": 0.0}
    return training_settings(**values | {"head_learning_rate": 0.05} | changes)


def trained(kind: str, folder: Path, seen: list[int]) -> tuple[Classifier, FitResult]:
    """A fit on 6 clips that is validated on 3; ``seen`` gets the size of each batch that the decoder reads."""
    model = frozen_model(kind)
    videos, clips = stored_clips(folder, ROWS)
    labels = [number % 2 for number in range(ROWS)]
    network: Any = model.network
    network.language.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    seed_everything(3)
    train, val = (VideoDataset(videos[part], clips, labels[part]) for part in (slice(6), slice(6, ROWS)))
    return model, fit(model, FitData(train, val), FitPlan(settings(), 3))


@pytest.mark.parametrize("kind", ["mllm", "mllm-early", "cnn-mllm"])
def test_the_same_training_with_one_look_at_each_video(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once, always = list[int](), list[int]()
    kept, result = trained(kind, tmp_path, once)
    monkeypatch.setattr(hidden_states, "MOST_BYTES", 0)
    other, expected = trained(kind, tmp_path, always)
    assert (sum(once), sum(always)) == (ROWS, EPOCHS * ROWS)
    for row, wanted in zip(result.curve, expected.curve, strict=True):
        assert row == pytest.approx(wanted, rel=1e-4)
    weights = zip(kept.network.parameters(), other.network.parameters(), strict=True)
    assert all(torch.allclose(mine, theirs, atol=1e-4) for mine, theirs in weights)
    before: Any = frozen_model(kind).network
    now: Any = kept.network
    assert not torch.allclose(now.head.weight, before.head.weight, atol=1e-2), "the head has learned"


def test_what_changes_from_step_to_step_is_not_kept() -> None:
    model = frozen_model("cnn-mllm")
    network: Any = model.network
    assert isinstance(network, MultimodalLLM)
    assert not stays_the_same(network, model.collator, ROWS), "adapters and projector train"
    with held_still(network, settings(projector_learning_rate=1e-4)):
        assert not stays_the_same(network, model.collator, ROWS), "the projector trains"
    with held_still(network, settings()):
        assert stays_the_same(network, model.collator, ROWS)
        assert not stays_the_same(network, model.collator, 10**9), "they would not fit into memory"
        assert not stays_the_same(network, lambda rows: {}, ROWS), "a collator of somebody else"
        network.audio_projector = nn.Dropout(0.1)
        assert not stays_the_same(network, model.collator, ROWS), "dropout draws anew"
    base = frozen_model("attention")
    with held_still(base.network, settings()):
        assert not stays_the_same(base.network, base.collator, ROWS), "no MLLM"
