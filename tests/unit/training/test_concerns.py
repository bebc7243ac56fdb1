"""What is said before a training: each rule at its limit."""

from __future__ import annotations

import pytest

from coefvq.config import MediaSpec
from coefvq.data.splits.account import FEW_POSITIVES
from coefvq.models.model_config import ModelConfig
from coefvq.training.concerns import ENOUGH_TO_UNFREEZE, LEAST_PIXELS, below_chance, concerns

ENOUGH = [0, 1] * ENOUGH_TO_UNFREEZE


def config(preset: str = "starter", frame_size: int = 160, **fields: object) -> ModelConfig:
    media = MediaSpec(frames=4, frame_size=frame_size, audio_seconds=3.0)
    given = {"issues": ("violence",), "kind": "base", "architecture": "frames", "freeze_towers": True, **fields}
    return ModelConfig(preset=preset, media=media, **given)


def test_settings_that_fit_say_nothing() -> None:
    assert concerns(config(), ENOUGH) == []


@pytest.mark.parametrize(("pixels", "told"), [(64, True), (LEAST_PIXELS, False)])
def test_a_published_tower_wants_pictures_of_its_size(pixels: int, told: bool) -> None:
    found = concerns(config(frame_size=pixels), ENOUGH)
    assert ["media.frame_size = 64" in line and "160 or more" in line for line in found] == [True] * told
    assert concerns(config("tiny", frame_size=pixels), ENOUGH) == []


@pytest.mark.parametrize(("videos", "told"), [(90, True), (ENOUGH_TO_UNFREEZE, False)])
def test_few_clips_train_no_published_tower(videos: int, told: bool) -> None:
    labels = [0, 1] * (videos // 2)
    found = concerns(config(freeze_towers=False), labels)
    assert [f"{videos} training videos are too few" in line for line in found] == [True] * told
    assert concerns(config("tiny", freeze_towers=False), labels) == []


def test_few_positives_are_counted_per_issue() -> None:
    labels = [(1, 1)] * (FEW_POSITIVES - 1) + [(1, 0), (0, -100)]
    shared = config(issues=("icd", "ucc"), kind="mllm", architecture="mllm")
    assert concerns(shared, labels) == [
        f"[ucc mllm] {FEW_POSITIVES - 1} positive training videos: a model learns little from so few; "
        f"label at least {FEW_POSITIVES}"
    ]


@pytest.mark.parametrize(("reached", "told"), [(0.1, True), (0.25, True), (0.26, False), (None, False)])
def test_a_base_model_no_better_than_guessing_is_told(reached: float | None, told: bool) -> None:
    found = below_chance("violence", reached, [1, 0, 0], [1.0, 1.0, 2.0])
    assert ["check ingest.labels.violence" in line for line in found] == [True] * told
