"""What train-base and train-mllm have in common: data, fit, save, record."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from coefvq.config import Alignment, Params, Training
from coefvq.data.descriptions import read_descriptions
from coefvq.data.media.clips import default_cache
from coefvq.errors import SplitError
from coefvq.files import sha256_json, write_json
from coefvq.models.aligned import start_aligned
from coefvq.models.assembly import device
from coefvq.models.classifier import Classifier, ModelConfig, build, text_encoder
from coefvq.models.dataset import Collator, VideoDataset, text_of
from coefvq.records import VideoInput
from coefvq.registry import tracking
from coefvq.registry.flat import flat_params
from coefvq.stages.alignment import align
from coefvq.stages.common import data_ref, inputs_and_labels, labelled, split_manifest
from coefvq.stages.loading import opened
from coefvq.terminal import say
from coefvq.training.checkpoints import CheckpointFolder
from coefvq.training.loop import EpochListener, FitResult, fit, seed_everything
from coefvq.training.ranks import rank, use_own_device, world_size
from coefvq.training.sampling import LengthGrouped
from coefvq.training.word_alignment import Words, description_words

_SAID = ("epoch", "loss", "val_loss", "val_average_precision")


@dataclass(frozen=True)
class TrainingJob:
    """One model to train, and the settings to log with it."""

    config: ModelConfig
    training: Training
    lora_dropout: float
    logged_params: dict[str, Any]
    alignment: Alignment | None = None
    description_weight: float = 0.0


def train_and_record(params: Params, job: TrainingJob) -> None:
    """Fit on train, keep the best epoch on val, save the folder, log the run, write the metrics.

    Of several ranks all train and the first one writes. A killed run goes on from its checkpoints, which are deleted
    when everything is written.
    """
    use_own_device()
    job = _without_missing_descriptions(params, job)
    data = _data(params, job.config.issue)
    classifier = fresh_classifier(params, job, data.train[0])
    if job.alignment is not None and job.alignment.epochs + job.alignment.projector_epochs > 0:
        align(params, classifier, job.alignment)
    checkpoints = checkpoint_folder(params, job)
    if rank() > 0:
        _fit(params, job, classifier, data, checkpoints, lambda _: None)
        return
    kind, issue = job.config.kind, job.config.issue
    with checkpoints.held(), _tracked(params, job) as run:
        result, counts = _fit(params, job, classifier, data, checkpoints, _reporter(run, kind, issue))
        folder = params.paths.model_dir(kind, issue)
        classifier.save(folder)
        metrics = _metrics(result) | counts
        run.log_model_folder(folder, kind, issue)
        run.log_metrics({"val": metrics, "cost": asdict(result.cost)})
        write_json(params.paths.report(issue, f"{kind}.json"), metrics)
        write_json(params.paths.report(issue, f"{kind}_curve.json"), list(result.curve))
        write_json(Path(params.paths.models) / issue / f"{kind}_run.json", run.record())
        checkpoints.remove()


@dataclass(frozen=True)
class _Data:
    """Videos and labels of train and val, and the sampling weights of val."""

    train: tuple[list[VideoInput], list[int]]
    val: tuple[list[VideoInput], list[int]]
    val_weight: pd.Series[float]


def _data(params: Params, issue: str) -> _Data:
    rows = split_manifest(params)
    train, val = training_rows(params, rows, issue)
    for split, (_, labels) in (("train", train), ("val", val)):
        check_both_classes(labels, issue, split)
    return _Data(train, val, labelled(rows, issue, "val")["weight"])


def check_both_classes(labels: Sequence[int], issue: str, split: str) -> None:
    """A model cannot learn, nor be chosen, from one class.

    Raises:
        SplitError: all labels are equal.
    """
    if len(set(labels)) < 2:
        missing = "positive" if not any(labels) else "negative"
        raise SplitError(
            f"split '{split}' has no {missing} for {issue} among {len(labels)} labelled videos; "
            "label more, or give that split a larger share (split.fractions)"
        )


def _fit(
    params: Params,
    job: TrainingJob,
    classifier: Classifier,
    data: _Data,
    checkpoints: CheckpointFolder,
    report: EpochListener,
) -> tuple[FitResult, dict[str, int]]:
    """Train; also how many videos there were of each kind."""
    videos = [*data.train[0], *data.val[0]]
    title = f"{job.config.issue} {job.config.kind}"
    with opened(params, classifier, videos, job.training.num_train_epochs, title) as inputs:
        train_set, val_set = inputs.dataset(*data.train), inputs.dataset(*data.val)
        weight = data.val_weight.iloc[inputs.kept(data.val[0])]
        result = fit(
            classifier,
            train_set,
            val_set,
            job.training,
            params.seed,
            report,
            weight,
            inputs.collator,
            checkpoints,
            _sampler(params, job, inputs.collator, train_set),
            _described(params, job, classifier, inputs.kept(data.train[0])),
        )
        counts = {
            "train_videos": len(train_set),
            "val_videos": len(val_set),
            "skipped_videos": len(inputs.skipped),
        }
    return result, counts


def _described(
    params: Params, job: TrainingJob, classifier: Classifier, kept: Sequence[int]
) -> tuple[Words, float] | None:
    """Words of the training rows that are read, and their weight beside the labels."""
    if job.description_weight == 0.0 or classifier.text is None:
        return None
    told = _descriptions(params, job.config.issue)
    return description_words(classifier.text, [told[at] for at in kept]), job.description_weight


def _descriptions(params: Params, issue: str) -> list[tuple[str, ...]]:
    """Of the training rows."""
    return read_descriptions(labelled(split_manifest(params), issue, "train"), Path(params.paths.raw))


def _without_missing_descriptions(params: Params, job: TrainingJob) -> TrainingJob:
    """The job as it can be done: where no training clip has a description, what needs them is off, which is said."""
    aligns = job.alignment is not None and job.alignment.epochs + job.alignment.projector_epochs > 0
    if not (aligns or job.description_weight > 0.0) or any(_descriptions(params, job.config.issue)):
        return job
    if rank() == 0:
        say(f"[{job.config.issue} {job.config.kind}] alignment: off, no captions")
    return replace(job, alignment=None, description_weight=0.0)


def checkpoint_folder(params: Params, job: TrainingJob) -> CheckpointFolder:
    """Beside the decoded clips, named by everything that the result depends on."""
    config, data = job.config, data_ref(params)
    identity = {
        "issue": config.issue,
        "kind": config.kind,
        "preset": config.preset,
        "manifest": data.manifest_sha256[:16],
        "splits": data.splits_sha256[:16],
        "ranks": world_size(),
        "group_by_length": params.loading.group_by_length,
        **flat_params({"seed": params.seed, "training": job.training.model_dump(), "lora_dropout": job.lora_dropout}),
        **flat_params({"alignment": None if job.alignment is None else job.alignment.model_dump()}),
        "description_weight": job.description_weight,
        # what a clip may cost does not change what is learnt from it
        **flat_params({"model": config.model_dump(exclude={"limits"})}),
    }
    name = f"{config.issue}-{config.kind}-{sha256_json(identity)[:16]}"
    given = params.runtime.resume_from
    root = default_cache() / "checkpoints" / name if given is None else Path(given)
    return CheckpointFolder(root, identity, params.runtime.save_steps, params.runtime.save_total_limit)


def training_rows(params: Params, rows: pd.DataFrame, issue: str) -> list[tuple[list[VideoInput], list[int]]]:
    """Videos and labels of train, and of val."""
    return [inputs_and_labels(labelled(rows, issue, split), params, issue) for split in ("train", "val")]


def fresh_classifier(params: Params, job: TrainingJob, train_videos: Sequence[VideoInput]) -> Classifier:
    """The model as training starts with it: seeded, aligned where asked for, on the device it will train on."""
    seed_everything(params.seed)
    text = text_encoder(job.config, (text_of(video) for video in train_videos))
    # saved with the model, so that whoever loads it alone decodes clips under the limits it was trained under
    config = job.config.model_copy(update={"limits": params.ingest.limits})
    classifier = build(config, text, job.lora_dropout)
    start_aligned(classifier)
    classifier.network.to(device())
    return classifier


def _sampler(params: Params, job: TrainingJob, collator: Collator, train_set: VideoDataset) -> LengthGrouped | None:
    """Grouping by the batch of all ranks and accumulated steps, so that their number does not change the order."""
    if not params.loading.group_by_length or not job.config.reads_text:
        return None
    batch = job.training.per_device_train_batch_size * job.training.gradient_accumulation_steps * world_size()
    return LengthGrouped(collator.lengths(train_set.texts), batch, params.seed)


def _tracked(params: Params, job: TrainingJob) -> AbstractContextManager[tracking.TrainingRun]:
    tracking.configure(params.tracking.uri, params.tracking.experiment)
    config = job.config
    return tracking.training_run(
        name=f"{config.issue}-{config.kind}",
        issue=config.issue,
        kind=config.kind,
        params={"seed": params.seed, "media": config.media.model_dump(), **job.logged_params},
        dataset=data_ref(params),
    )


def _reporter(run: tracking.TrainingRun, kind: str, issue: str) -> EpochListener:
    def on_epoch(row: dict[str, float]) -> None:
        run.log_curve(round(row["epoch"] * 100), {"train": {k: v for k, v in row.items() if k != "epoch"}})
        others = [name for name in row if name not in _SAID]
        say(
            f"[{issue} {kind}] epoch {row['epoch']:g}: loss {row['loss']:.4f}, "
            f"val loss {row['val_loss']:.4f}, val AP {row['val_average_precision']:.4f}"
            + "".join(f", {name.replace('_', ' ', 1)} {row[name]:.4f}" for name in others)
        )

    return on_epoch


def _metrics(result: FitResult) -> dict[str, float]:
    facts = {name: value for name, value in asdict(result).items() if name not in ("curve", "cost")}
    return {**facts, "epochs": len(result.curve)}
