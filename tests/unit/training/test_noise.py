"""Noise on features: how much, only while training, alike for cached features and clips, and nothing when off."""

from __future__ import annotations

import pytest
import torch

from coefvq.errors import ModelError
from coefvq.models.assembly import freeze_module
from coefvq.models.text import TextEncoder
from coefvq.training.noise import FeatureNoise, noisy_features
from coefvq.training.warmup import Batch
from tests.described_clips import batch, network, text

__all__ = ["batch", "text"]


def test_deviation_and_share_are_those_asked_for() -> None:
    torch.manual_seed(0)
    features = torch.randn(400, 20, 3) * torch.tensor([0.1, 1.0, 10.0])
    spread = (FeatureNoise(0.5)(features) - features).std(dim=(0, 1)) / features.std(dim=(0, 1))
    assert spread.tolist() == pytest.approx([0.5, 0.5, 0.5], rel=0.05)
    assert float((FeatureNoise(0.0, 0.25)(features) == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert torch.isfinite(FeatureNoise(0.5)(features[:1, :1])).all()


def test_only_training_is_disturbed_and_nothing_stays(text: TextEncoder, batch: Batch) -> None:
    made = network(text)
    made.eval()
    with torch.inference_mode():
        plain = made(**batch)
        with noisy_features(made, FeatureNoise(1.0, 0.2)):
            assert torch.equal(made(**batch), plain)
            made.train()
            torch.manual_seed(1)
            first = made(**batch)
            assert not torch.equal(first, plain)
            torch.manual_seed(1)
            assert torch.equal(made(**batch), first)
            assert not torch.equal(made(**batch), first)
        assert torch.equal(made(**batch), plain)


def test_cached_features_and_clips_are_disturbed_alike(text: TextEncoder, batch: Batch) -> None:
    made = network(text)
    features = {part.name: part.compute(*(batch[name] for name in part.reads)) for part in made.frozen_parts()}
    cached = {name: value for name, value in batch.items() if name != "pixel_values"} | features
    assert "vision_features" in cached
    made.train()
    with torch.inference_mode(), noisy_features(made, FeatureNoise(0.3, 0.2)):
        torch.manual_seed(1)
        whole = made(**batch)
        torch.manual_seed(1)
        # towers round a little differently when a gradient is asked for
        torch.testing.assert_close(made(**cached), whole, rtol=1e-5, atol=1e-5)


def test_off_leaves_no_hook_and_a_frozen_projector_is_refused(text: TextEncoder) -> None:
    made = network(text)
    with noisy_features(made, FeatureNoise()):
        assert not made.vision.projector._forward_pre_hooks
    freeze_module(made.vision.projector)
    for other in (made, torch.nn.Linear(1, 1)):
        with pytest.raises(ModelError, match=r"no projector trains"), noisy_features(other, FeatureNoise(0.1)):
            pass
