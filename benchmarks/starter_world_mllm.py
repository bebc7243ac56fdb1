"""The library's `starter` MLLM on cached tower features: alignment on descriptions, then fine-tuning on both issues.

Settings, network, alignment, training loop and scoring are the library's; here stand the values and the features.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from starter_world_data import ISSUES, MEDIA, Split

from coefvq.config import Alignment, Lora, MLLMParams, Training
from coefvq.data.media.clips import ClipStore
from coefvq.data.media.limits import kept_limits
from coefvq.inference.scores import score_dataset
from coefvq.models.classifier import Classifier
from coefvq.models.dataset import Collator, VideoDataset
from coefvq.models.language import Pooling
from coefvq.models.mllm import Fusion, MultimodalLLM
from coefvq.models.model_config import mllm_config
from coefvq.records import VideoInput
from coefvq.simulation.synthetic.captions import short_captions
from coefvq.simulation.synthetic.clips import Clip
from coefvq.training.alignment_steps import AlignmentSteps
from coefvq.training.job import TrainingJob, fresh_classifier
from coefvq.training.loop import FitData, FitPlan, fit
from coefvq.training.noise import FeatureNoise, noisy_features
from coefvq.training.objective import CollatedRows
from coefvq.training.sampling import LengthGrouped
from coefvq.training.word_alignment import description_words

Floats = np.ndarray[Any, np.dtype[np.float64]]
Say = Callable[[str], None]
_REPLACED = frozenset({"pixel_values", "log_mel", "has_audio"})


@dataclass(frozen=True)
class Recipe:
    """Everything that was varied; a result row carries it."""

    layers: int = 4
    grid: int = 1  # cells per side and image
    fusion: Fusion = "early"
    pooling: Pooling = "mean"  # what H is read from: the final token's state, or the mean over all
    rank: int = 32
    batch: int = 8
    projector_epochs: int = 4  # projectors alone, towards the descriptions' words
    objective: Literal["sentences", "words"] = "words"  # of the warm-up
    warmup_epochs: int = 2
    warmup_rate: float = 1e-3
    epochs: int = 2
    rate: float = 5e-4
    projector_rate: float = 2e-4
    head_rate: float = 1e-3
    description_weight: float = 2.0  # of the descriptions' words during fine-tuning, beside the labels
    rotated: bool = True  # a sentence starts at any of its words, so that H must know them all
    feature_dropout: float = 0.2
    feature_noise: float = 0.3
    averaged: float = 0.5  # last part of the steps whose weights are averaged; 0: the last weights

    @property
    def alignment(self) -> Alignment:
        """The settings of the library's alignment."""
        return Alignment(
            projector_epochs=self.projector_epochs,
            objective=self.objective,
            epochs=self.warmup_epochs,
            per_device_train_batch_size=self.batch,
            learning_rate=self.warmup_rate,
            max_tokens=16,
        )

    @property
    def training(self) -> Training:
        """The settings of the library's training."""
        return Training(
            num_train_epochs=self.epochs,
            per_device_train_batch_size=self.batch,
            gradient_accumulation_steps=1,
            activation_checkpointing=False,
            learning_rate=self.rate,
            head_learning_rate=self.head_rate,
            projector_learning_rate=self.projector_rate,
            weight_decay=0.01,
            max_grad_norm=1.0,
            warmup_steps=0.1,
            lr_scheduler_type="cosine",
            loss="cross_entropy",
            focal_gamma=2.0,
            positive_weight=1.0,
            metric_for_best_model="average_precision",
            early_stopping_patience=None,
            average_weights=self.averaged,
            bf16=True,
            nproc_per_node=1,
            deepspeed=None,
        )

    @property
    def settings(self) -> MLLMParams:
        """The settings of the library's MLLM, which both issues share."""
        return MLLMParams(
            preset="starter-world",
            shared=ISSUES,
            fusion=self.fusion,
            pooling=self.pooling,
            text=True,
            audio=True,
            motion=True,
            lora=Lora(rank=self.rank, alpha=2 * self.rank, dropout=0.0),
            alignment=self.alignment,
            description_weight=self.description_weight,
            feature_noise=self.feature_noise,
            feature_dropout=self.feature_dropout,
            training=self.training,
        )

    @property
    def preset(self) -> dict[str, Any]:
        """The parts of ``starter``, with so many layers and cells, and without its aligned file."""
        text = (files("coefvq") / "presets" / "starter.yaml").read_text(encoding="utf-8")
        parts: dict[str, Any] = yaml.safe_load(text)["starter"]
        parts["vision"] = {**parts["vision"], "pooled_side": self.grid}
        parts["language"] = {**parts["language"], "layers_used": self.layers}
        return {name: part for name, part in parts.items() if name != "aligned"}


def job_of(recipe: Recipe) -> TrainingJob:
    """The library's training of one MLLM for all issues."""
    settings = recipe.settings
    return TrainingJob(
        config=mllm_config(settings.issues_with(ISSUES[0]), settings, MEDIA, recipe.preset),
        training=settings.training,
        lora_dropout=settings.lora.dropout,
        logged_params={},
        alignment=settings.alignment,
        description_weight=settings.description_weight,
        noise=FeatureNoise(settings.feature_noise, settings.feature_dropout),
    )


def rows(split: Split, recipe: Recipe, labels: bool = False) -> VideoDataset:
    """A split as the library reads it; features stand in for the clips."""
    cells = (split.cells[:, :, :1] if recipe.grid == 1 else split.cells[:, :, 1:]).flatten(1, 2)
    videos = [
        VideoInput(clip.video_id, Path(), title=clip.writing.title, stickers=clip.writing.stickers)
        for clip in split.clips
    ]
    place = {video.video_id: row for row, video in enumerate(videos)}

    def features(video: VideoInput) -> Mapping[str, torch.Tensor]:
        row = place[video.video_id]
        return {"vision_features": cells[row].float(), "audio_features": split.sound[row]}

    unused = ClipStore(Path(), MEDIA, kept_limits(None))
    found = [tuple(map(int, row)) for row in split.labels] if labels else None
    return VideoDataset(videos, unused, found, features, reads_clips=False)


def descriptions(clip: Clip, recipe: Recipe) -> tuple[str, ...]:
    """What the clip shows in a word per factor, in one order that may start anywhere."""
    return short_captions(clip.shown)[: None if recipe.rotated else 1]


def train(recipe: Recipe, split: Split, val: Split, seed: int, say: Say) -> tuple[Classifier, dict[str, Any]]:
    """Alignment and fine-tuning; the second value holds curves and CPU seconds."""
    job, start = job_of(recipe), time.process_time()
    classifier = fresh_classifier(job, seed, kept_limits(None), [])
    curves: dict[str, list[dict[str, float]]] = {"projectors": [], "warmup": []}
    network, text = classifier.network, classifier.text
    if not isinstance(network, MultimodalLLM) or text is None:
        raise SystemExit("starter: its MLLM cannot describe")
    options = [descriptions(clip, recipe) for clip in split.clips]

    def on_epoch(step: str, row: dict[str, float]) -> None:
        curves[step].append(row)
        say(f"{step} {row}, {time.process_time() - start:.0f} CPU s")

    inputs = CollatedRows(rows(split, recipe), collator(classifier), torch.device("cpu"))
    AlignmentSteps(network, text, inputs, options, recipe.alignment, seed, True, job.noise).run(on_epoch)
    aligned = time.process_time()
    train_set = rows(split, recipe, labels=True)
    sampler = LengthGrouped(collator(classifier).lengths(train_set.texts), recipe.batch, seed)
    words = description_words(text, options)
    with noisy_features(network, job.noise):
        result = fit(
            classifier,
            FitData(
                train_set,
                rows(val, recipe, labels=True),
                collator=collator(classifier),
                sampler=sampler,
                descriptions=(words, job.description_weight) if job.description_weight else None,
            ),
            FitPlan(job.training, seed, lambda row: say(f"fine-tuning {row}, {time.process_time() - start:.0f} CPU s")),
        )
    facts = {
        **curves,
        "losses": list(result.curve),
        "warmup_cpu_s": aligned - start,
        "fine_tuning_cpu_s": time.process_time() - aligned,
    }
    return classifier, {**facts, "recipe": asdict(recipe), "clips": len(split), "seed": seed}


def collator(classifier: Classifier) -> Collator:
    """The model's, for examples that carry features."""
    return replace(classifier.collator, replaced=_REPLACED)


def score(classifier: Classifier, split: Split, recipe: Recipe) -> Floats:
    """P(positive) [N, K] of every clip, from one pass."""
    return score_dataset(classifier, rows(split, recipe), collator(classifier), 64)
