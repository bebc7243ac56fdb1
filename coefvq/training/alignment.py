"""Alignment warm-up before an MLLM is fine-tuned: from its folder in the cache, else trained, as a run of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from coefvq.config import Alignment
from coefvq.data.media.clips import default_cache
from coefvq.errors import ModelError
from coefvq.files import sha256_json
from coefvq.models.classifier import Classifier
from coefvq.models.dataset import text_of
from coefvq.models.mllm import MultimodalLLM
from coefvq.records import VideoInput
from coefvq.terminal import say
from coefvq.training.alignment_steps import AlignmentSteps
from coefvq.training.arguments import use_bf16
from coefvq.training.data import TrainingData
from coefvq.training.job import TrainingJob
from coefvq.training.loading import opened
from coefvq.training.noise import FeatureNoise
from coefvq.training.objective import CollatedRows
from coefvq.training.ranks import everywhere, rank
from coefvq.training.record import OpenRecord, TrainingRecord
from coefvq.training.settings import TrainingSettings
from coefvq.training.warmup import WarmUpFolder


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
    facts = warm_up_facts(classifier, alignment, settings.seed, bf16, job.noise, videos, descriptions)
    folder = WarmUpFolder(default_cache() / "warmup", facts)
    # by all or by none, since the ranks go on together
    if everywhere(folder.exists, network.norm.weight.device):
        folder.restore(network)
        say(f"[{issue} warm-up] from {folder.path}")
        return
    epochs = alignment.epochs + alignment.projector_epochs
    with opened(settings.reading, classifier, videos, epochs, f"{issue} warm-up") as source:
        options = [descriptions[at] for at in source.readable(videos)]
        batches = CollatedRows(source.dataset(videos), source.collator, network.norm.weight.device)
        steps = AlignmentSteps(network, text, batches, options, alignment, settings.seed, bf16, job.noise)
        if rank() > 0:
            steps.run(lambda *_: None)
            return
        logged = {"seed": settings.seed, "alignment": alignment.model_dump(), "preset": job.config.preset}
        with open_record(f"{issue}-alignment", logged, data.hashes) as record:
            folder.save(network, steps.run(_reporter(record, issue)))


def warm_up_facts(
    classifier: Classifier,
    alignment: Alignment,
    seed: int,
    bf16: bool,
    noise: FeatureNoise,
    videos: Sequence[VideoInput],
    descriptions: Sequence[tuple[str, ...]],
) -> dict[str, Any]:
    """Everything the warmed-up weights depend on; not the issue's name, so that equal issues share a folder."""
    model = classifier.config.model_dump(exclude={"issues", "id2label", "limits"})
    rows = [
        [video.sha256 or video.video_id, text_of(video), *options]
        for video, options in zip(videos, descriptions, strict=True)
    ]
    facts = {"model": model, "alignment": alignment.model_dump(), "seed": seed, "bf16": bf16, "noise": asdict(noise)}
    return {**facts, "rows_sha256": sha256_json(rows), "videos": len(rows)}


def _reporter(record: TrainingRecord, issue: str) -> Callable[[str, dict[str, float]], None]:
    def on_epoch(step: str, row: dict[str, float]) -> None:
        record.log_curve(round(row["epoch"] * 100), {step: {"loss": row["loss"]}})
        say(f"[{issue} {'warm-up' if step == 'warmup' else step}] epoch {row['epoch']:g}: loss {row['loss']:.4f}")

    return on_epoch
