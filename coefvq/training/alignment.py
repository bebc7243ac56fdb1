"""Alignment warm-up before an MLLM is fine-tuned: from its folder in the cache, else trained, as a run of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from coefvq.config import Alignment
from coefvq.data.media.clips import default_cache
from coefvq.errors import ModelError
from coefvq.files import sha256_json
from coefvq.models.classifier import Classifier
from coefvq.models.dataset import Collator, VideoDataset, text_of
from coefvq.models.mllm import MultimodalLLM
from coefvq.models.text import TextEncoder
from coefvq.records import VideoInput
from coefvq.terminal import say
from coefvq.training.arguments import use_bf16
from coefvq.training.data import TrainingData
from coefvq.training.job import TrainingJob
from coefvq.training.loading import opened
from coefvq.training.ranks import rank
from coefvq.training.record import OpenRecord, TrainingRecord
from coefvq.training.settings import TrainingSettings
from coefvq.training.warmup import Batch, Inputs, WarmUpFolder, description_vocabulary, warm_up
from coefvq.training.word_alignment import align_projectors, description_words, teach_state


def align(
    classifier: Classifier, job: TrainingJob, data: TrainingData, settings: TrainingSettings, open_record: OpenRecord
) -> None:
    """Warm the network up in place on the training rows; every rank comes to the same weights.

    Raises:
        DataError: no video has a description.
        ModelError: the network has no language model, or nothing of it can train.
    """
    network, text, issue = classifier.network, classifier.text, classifier.config.issue
    alignment, descriptions = job.alignment, data.descriptions
    if alignment is None or descriptions is None:
        return
    if not isinstance(network, MultimodalLLM) or text is None:
        raise ModelError(f"mllm.{issue}.alignment: {classifier.config.architecture} cannot describe; set epochs: 0")
    videos, bf16 = data.train.videos, use_bf16(job.training.bf16)
    facts = warm_up_facts(classifier, alignment, settings.seed, bf16, videos, descriptions)
    folder = WarmUpFolder(default_cache() / "warmup", facts)
    if folder.exists:
        folder.restore(network)
        say(f"[{issue} warm-up] from {folder.path}")
        return
    epochs = alignment.epochs + alignment.projector_epochs
    with opened(settings.reading, classifier, videos, epochs, f"{issue} warm-up") as source:
        options = [descriptions[at] for at in source.kept(videos)]
        batches = _Batches(source.dataset(videos), source.collator, network.norm.weight.device)
        steps = _Steps(network, text, batches, options, alignment, settings.seed, bf16)
        if rank() > 0:
            steps.run(lambda *_: None)
            return
        logged = {"seed": settings.seed, "alignment": alignment.model_dump(), "preset": job.config.preset}
        with open_record(f"{issue}-alignment", logged, data.hashes) as record:
            folder.save(network, steps.run(_reporter(record, issue)))


@dataclass(frozen=True)
class _Steps:
    """Both steps of the warm-up; every rank does the same."""

    network: MultimodalLLM
    text: TextEncoder
    batches: Inputs
    options: Sequence[tuple[str, ...]]
    settings: Alignment
    seed: int
    bf16: bool

    def run(self, report: Callable[[str, dict[str, float]], None]) -> list[dict[str, float]]:
        """``report`` hears the step and its row; the curve of the second."""
        network, text, settings = self.network, self.text, self.settings
        rate, size = settings.learning_rate, settings.per_device_train_batch_size
        words = description_words(text, self.options)
        done = partial(report, "projectors")
        align_projectors(network, self.batches, words, settings.projector_epochs, rate, self.seed, done)
        if not settings.epochs:
            return []
        done = partial(report, "warmup")
        if settings.objective == "words":
            return teach_state(network, self.batches, words, settings.epochs, size, rate, self.seed, done, self.bf16)
        vocabulary = description_vocabulary(network, text, self.batches, self.options, settings.max_tokens)
        return warm_up(network, text, self.batches, self.options, vocabulary, settings, self.seed, done, self.bf16)


@dataclass(frozen=True)
class _Batches:
    """Row numbers -> the network's inputs."""

    dataset: VideoDataset
    collator: Collator
    device: torch.device

    def __call__(self, rows: Sequence[int]) -> Batch:
        batch = self.collator([self.dataset[row] for row in rows])
        return {name: tensor.to(self.device) for name, tensor in batch.items()}


def warm_up_facts(
    classifier: Classifier,
    alignment: Alignment,
    seed: int,
    bf16: bool,
    videos: Sequence[VideoInput],
    descriptions: Sequence[tuple[str, ...]],
) -> dict[str, Any]:
    """Everything the warmed-up weights depend on; not the issue's name, so that equal issues share a folder."""
    model = classifier.config.model_dump(exclude={"issues", "id2label", "limits"})
    rows = [
        [video.sha256 or video.video_id, text_of(video), *options]
        for video, options in zip(videos, descriptions, strict=True)
    ]
    facts = {"model": model, "alignment": alignment.model_dump(), "seed": seed, "bf16": bf16}
    return {**facts, "rows_sha256": sha256_json(rows), "videos": len(rows)}


def _reporter(record: TrainingRecord, issue: str) -> Callable[[str, dict[str, float]], None]:
    def on_epoch(step: str, row: dict[str, float]) -> None:
        record.log_curve(round(row["epoch"] * 100), {step: {"loss": row["loss"]}})
        say(f"[{issue} {'warm-up' if step == 'warmup' else step}] epoch {row['epoch']:g}: loss {row['loss']:.4f}")

    return on_epoch
