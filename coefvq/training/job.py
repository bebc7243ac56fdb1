"""One model to train: from the settings of its section to its configuration, and to fresh weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coefvq.config import Alignment, BaseModelParams, Distil, MediaLimits, MLLMParams, Training
from coefvq.models.aligned import start_aligned
from coefvq.models.assembly import device
from coefvq.models.classifier import Classifier, build
from coefvq.models.dataset import text_of
from coefvq.models.model_config import ModelConfig, base_config, mllm_config
from coefvq.models.presets import get_preset
from coefvq.models.vocabulary import text_encoder
from coefvq.records import VideoInput
from coefvq.training.arguments import use_bf16
from coefvq.training.loop import seed_everything
from coefvq.training.noise import FeatureNoise
from coefvq.training.settings import TrainingSettings


@dataclass(frozen=True)
class TrainingJob:
    """One model to train, and the settings to log with it."""

    config: ModelConfig
    training: Training
    lora_dropout: float
    logged_params: dict[str, Any]
    alignment: Alignment | None = None
    description_weight: float = 0.0
    distil: Distil | None = None
    noise: FeatureNoise = field(default_factory=FeatureNoise)

    @property
    def aligns(self) -> bool:
        """Whether the model is aligned on the user's own descriptions before it sees labels."""
        return self.alignment is not None and self.alignment.epochs + self.alignment.projector_epochs > 0

    @property
    def reads_descriptions(self) -> bool:
        """Whether any part of the training is about descriptions."""
        return self.aligns or self.description_weight != 0.0


def training_job(settings: TrainingSettings, model: BaseModelParams | MLLMParams) -> TrainingJob:
    """What is to be trained.

    Raises:
        ModelError: the preset is unknown or does not fit the settings.
    """
    definition = get_preset(model.preset, Path(settings.models.presets)).definition
    if isinstance(model, BaseModelParams):
        return TrainingJob(
            config=base_config(settings.issue, model, settings.media, definition),
            training=model.training,
            lora_dropout=0.0 if model.text_lora is None else model.text_lora.dropout,
            logged_params=model.model_dump(),
            distil=model.distil,
        )
    return TrainingJob(
        config=_in_trained_precision(
            mllm_config(model.issues_with(settings.issue), model, settings.media, definition), model.training
        ),
        training=model.training,
        lora_dropout=model.lora.dropout,
        logged_params=model.model_dump(),
        alignment=model.alignment,
        description_weight=model.description_weight,
        noise=FeatureNoise(model.feature_noise, model.feature_dropout),
    )


def _in_trained_precision(config: ModelConfig, training: Training) -> ModelConfig:
    """A frozen LLaVA-OneVision is held in what the training computes in: autograd would keep a copy in it anyway."""
    if "onevision" not in config.parts.weights or not use_bf16(training.bf16):
        return config
    return config.model_copy(update={"dtype": "bfloat16"})


def fresh_classifier(
    job: TrainingJob, seed: int, limits: MediaLimits, train_videos: Sequence[VideoInput]
) -> Classifier:
    """Build the model that training starts from: seeded, from the aligned file if set, on the training device."""
    seed_everything(seed)
    text = text_encoder(job.config, (text_of(video) for video in train_videos))
    # saved with the model, so that whoever loads it alone decodes clips under the limits it was trained under
    config = job.config.model_copy(update={"limits": limits})
    classifier = build(config, text, job.lora_dropout)
    start_aligned(classifier)
    classifier.network.to(device())
    return classifier
