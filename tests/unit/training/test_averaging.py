"""Averaged weights: the mean of the last steps, what validation sees, and a live training that goes on as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from coefvq.config import BaseModelParams, MediaSpec
from coefvq.data.media.clips import ClipStore
from coefvq.data.media.decode import DEFAULT_LIMITS, Clip
from coefvq.models.classifier import Classifier, build
from coefvq.models.dataset import VideoDataset
from coefvq.models.model_config import base_config
from coefvq.records import VideoInput
from coefvq.training.checkpoints import CheckpointFolder
from coefvq.training.loop import FitData, FitPlan, FitResult, fit, seed_everything
from tests.settings import training_settings

MEDIA = MediaSpec(frames=2, frame_size=32, audio_seconds=1.0)


class Bright(ClipStore):
    """Clips made on the spot: positives are a little brighter."""

    def get(self, video: VideoInput) -> Clip:
        random = np.random.default_rng(int(video.video_id))
        frames = np.clip(random.normal(100 + 20 * (int(video.video_id) % 2), 40, (2, 3, 32, 32)), 0, 255)
        return Clip(frames.astype(np.uint8), np.zeros(0, np.int16))


def rows(start: int, stop: int) -> VideoDataset:
    videos = [VideoInput(str(i), Path(str(i))) for i in range(start, stop)]
    return VideoDataset(videos, Bright(Path(), MEDIA, DEFAULT_LIMITS), [i % 2 for i in range(start, stop)])


def trained(
    share: float, epochs: float = 1.0, checkpoints: CheckpointFolder | None = None
) -> tuple[Classifier, FitResult]:
    settings = training_settings(
        num_train_epochs=epochs, per_device_train_batch_size=4, learning_rate=3e-3, average_weights=share
    )
    params = BaseModelParams(
        preset="tiny", architecture="frames", audio=False, motion=False, freeze_towers=False, training=settings
    )
    seed_everything(3)
    model = build(base_config("icd", params, MEDIA), None)
    return model, fit(model, FitData(rows(0, 24), rows(100, 112)), FitPlan(settings, 3, checkpoints=checkpoints))


def test_the_mean_is_that_of_the_last_steps(tmp_path: Path) -> None:
    trained(0.0, checkpoints=CheckpointFolder(tmp_path, {}, steps=1, limit=10))
    steps = [load_file(tmp_path / f"step-{number:08d}" / "model.safetensors") for number in (4, 5, 6)]
    model, _ = trained(0.5)
    own = dict(model.network.named_parameters())
    compared = 0
    for name, value in steps[-1].items():
        if (parameter := own.get(name.partition("network.")[2])) is None:
            continue  # statistics of the batches are no weights
        mean = torch.stack([step[name] for step in steps]).mean(dim=0)
        torch.testing.assert_close(parameter.data, mean, rtol=1e-5, atol=1e-7)
        compared += not torch.allclose(mean, value, rtol=1e-5, atol=1e-7)
    assert compared > 5


def test_validation_sees_the_mean_and_the_training_goes_on_without_it() -> None:
    _, plain = trained(0.0, epochs=3.0)
    _, averaged = trained(0.8, epochs=3.0)
    # the same live weights, step by step
    assert [row["loss"] for row in averaged.curve] == [row["loss"] for row in plain.curve]
    changed = [one["val_loss"] != other["val_loss"] for one, other in zip(averaged.curve, plain.curve, strict=True)]
    assert changed == [True, True, True]
    late = trained(0.3, epochs=3.0)[1]
    changed = [one["val_loss"] != other["val_loss"] for one, other in zip(late.curve, plain.curve, strict=True)]
    assert changed == [False, False, True]
