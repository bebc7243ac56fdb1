"""Alignment warm-up before an MLLM is fine-tuned: from its folder in the cache, else trained, as a run of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from coefvq.config import Alignment, Params
from coefvq.data.descriptions import read_descriptions
from coefvq.data.media.clips import default_cache
from coefvq.errors import ModelError
from coefvq.files import sha256_json
from coefvq.models.classifier import Classifier
from coefvq.models.dataset import text_of
from coefvq.models.mllm import MultimodalLLM
from coefvq.records import VideoInput
from coefvq.registry import tracking
from coefvq.stages.common import data_ref, inputs_and_labels, labelled, split_manifest
from coefvq.stages.loading import opened
from coefvq.terminal import say
from coefvq.training.alignment_steps import AlignmentSteps, CollatedRows
from coefvq.training.arguments import use_bf16
from coefvq.training.ranks import rank
from coefvq.training.warmup import WarmUpFolder


def align(params: Params, classifier: Classifier, settings: Alignment) -> None:
    """Warm the network up in place on the training rows; every rank comes to the same weights.

    Raises:
        DataError: no video has a description.
        ModelError: the network has no language model, or nothing of it can train.
    """
    network, text, issue = classifier.network, classifier.text, classifier.config.issue
    if not isinstance(network, MultimodalLLM) or text is None:
        raise ModelError(f"mllm.{issue}.alignment: {classifier.config.architecture} cannot describe; set epochs: 0")
    rows = labelled(split_manifest(params), issue, "train")
    videos, _ = inputs_and_labels(rows, params, issue)
    told = read_descriptions(rows, Path(params.paths.raw))
    folder = WarmUpFolder(default_cache() / "warmup", _facts(params, classifier, settings, videos, told))
    if folder.exists:
        folder.restore(network)
        say(f"[{issue} warm-up] from {folder.path}")
        return
    bf16 = use_bf16(params.mllm[issue].training.bf16)
    with opened(params, classifier, videos, settings.epochs + settings.projector_epochs, f"{issue} warm-up") as inputs:
        options = [told[at] for at in inputs.kept(videos)]
        batches = CollatedRows(inputs.dataset(videos), inputs.collator, network.norm.weight.device)
        job = AlignmentSteps(network, text, batches, options, settings, params.seed, bf16)
        if rank() > 0:
            job.run(lambda *_: None)
            return
        with _tracked(params, issue, settings) as run:
            folder.save(network, job.run(_reporter(run, issue)))


def _facts(
    params: Params,
    classifier: Classifier,
    settings: Alignment,
    videos: Sequence[VideoInput],
    told: Sequence[tuple[str, ...]],
) -> dict[str, Any]:
    """Everything the warmed-up weights depend on; not the issue's name, so that equal issues share a folder."""
    model = classifier.config.model_dump(exclude={"issues", "id2label", "limits"})
    rows = [
        [video.sha256 or video.video_id, text_of(video), *options] for video, options in zip(videos, told, strict=True)
    ]
    bf16 = use_bf16(params.mllm[classifier.config.issue].training.bf16)
    facts = {"model": model, "alignment": settings.model_dump(), "seed": params.seed, "bf16": bf16}
    return {**facts, "rows_sha256": sha256_json(rows), "videos": len(rows)}


def _tracked(params: Params, issue: str, settings: Alignment) -> AbstractContextManager[tracking.TrainingRun]:
    tracking.configure(params.tracking.uri, params.tracking.experiment)
    logged = {"seed": params.seed, "alignment": settings.model_dump(), "preset": params.mllm[issue].preset}
    return tracking.training_run(f"{issue}-alignment", issue, "mllm", logged, data_ref(params))


def _reporter(run: tracking.TrainingRun, issue: str) -> Callable[[str, dict[str, float]], None]:
    def on_epoch(step: str, row: dict[str, float]) -> None:
        run.log_curve(round(row["epoch"] * 100), {step: {"loss": row["loss"]}})
        say(f"[{issue} {'warm-up' if step == 'warmup' else step}] epoch {row['epoch']:g}: loss {row['loss']:.4f}")

    return on_epoch
