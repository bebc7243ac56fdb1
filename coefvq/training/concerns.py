"""What does not fit, said before an hour of training is spent on it: rules over settings and labels. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from coefvq.data.splits.account import FEW_POSITIVES
from coefvq.models.model_config import ModelConfig

#: published picture towers have seen pictures of 224 pixels and more; below this they recognise little
LEAST_PIXELS = 128
#: fewer labelled clips than this do not teach a published tower; it learns them by heart
ENOUGH_TO_UNFREEZE = 1000
_PICTURE_TOWERS = {
    "mllm": ("vision", "onevision"),
    "frames": ("frames",),
    "siglip": ("siglip",),
    "multitower": ("tower_frames",),
    "attention": ("tower_frames",),
}


def concerns(config: ModelConfig, labels: Sequence[int | tuple[int, ...]]) -> list[str]:
    """A line for each setting that does not fit the training labels, with the remedy.

    Args:
        config: the model that is to be trained.
        labels: of the training videos; with several issues a tuple each, in the order of the heads.
    """
    return [*_small_frames(config), *_unfrozen(config, len(labels)), *_few(config, labels)]


def below_chance(
    issue: str, average_precision: float | None, labels: Sequence[int | tuple[int, ...]], weight: ArrayLike
) -> list[str]:
    """A line if a base model's average precision on validation is not above guessing, the share of positives."""
    truth, weights = np.asarray(labels, dtype=np.float64), np.asarray(weight, dtype=np.float64)
    chance = float(np.average(truth, weights=weights))
    if average_precision is None or average_precision > chance:
        return []
    return [
        f"[{issue} base] average precision {average_precision:.3f} on validation is no better than guessing "
        f"({chance:.3f}): check ingest.labels.{issue} (column, positive values), or choose another base model"
    ]


def _published(config: ModelConfig) -> bool:
    return any(role in config.parts.weights for role in _PICTURE_TOWERS[config.architecture])


def _small_frames(config: ModelConfig) -> list[str]:
    pixels = config.media.frame_size
    if pixels >= LEAST_PIXELS or not _published(config):
        return []
    return [
        f"[{config.issue} {config.kind}] media.frame_size = {pixels}: the published picture tower of preset "
        f"{config.preset} knows larger pictures; set 160 or more in recipe.yaml, or use recipe tiny"
    ]


def _unfrozen(config: ModelConfig, videos: int) -> list[str]:
    if config.kind != "base" or config.freeze_towers or videos >= ENOUGH_TO_UNFREEZE or not _published(config):
        return []
    return [
        f"[{config.issue} base] freeze_towers = false: {videos} training videos are too few to train the published "
        f"towers of preset {config.preset}; set base.freeze_towers: true, or label {ENOUGH_TO_UNFREEZE:,}"
    ]


def _few(config: ModelConfig, labels: Sequence[int | tuple[int, ...]]) -> list[str]:
    columns = np.asarray(labels, dtype=np.int64).reshape(len(labels), len(config.issues))
    found = []
    for issue, column in zip(config.issues, columns.T, strict=True):
        positives = int((column == 1).sum())
        if positives < FEW_POSITIVES:
            found.append(
                f"[{issue} {config.kind}] {positives} positive training videos: a model learns little from so few; "
                f"label at least {FEW_POSITIVES}"
            )
    return found
