"""splits.parquet -> a trained base model of one issue."""

from __future__ import annotations

from pathlib import Path

from coefvq.config import Params
from coefvq.models.classifier import base_config
from coefvq.models.presets import get_preset
from coefvq.stages.training import TrainingJob, train_and_record


def run(params: Params, issue: str) -> None:
    """Train the first stage of the cascade."""
    train_and_record(params, job(params, issue))


def job(params: Params, issue: str) -> TrainingJob:
    """What is to be trained."""
    settings = params.base[issue]
    preset = get_preset(settings.preset, Path(params.models.presets))
    return TrainingJob(
        config=base_config(issue, settings, params.media[issue], preset.definition),
        training=settings.training,
        lora_dropout=0.0,
        logged_params=settings.model_dump(),
    )
