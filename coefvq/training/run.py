"""One training from its settings to a saved, recorded model; who keeps the record is the caller's choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from coefvq.config import BaseModelParams, MLLMParams
from coefvq.data.media.clips import default_cache
from coefvq.data.splits.rows import DataHashes
from coefvq.files import sha256_json
from coefvq.flat import flat_params
from coefvq.models.classifier import Classifier
from coefvq.models.heads import MISSING_LABEL
from coefvq.models.loader import loader_processes
from coefvq.records import VideoInput
from coefvq.terminal import say
from coefvq.training.alignment import align
from coefvq.training.checkpoints import CheckpointFolder
from coefvq.training.concerns import below_chance, concerns
from coefvq.training.data import TrainingData, read_training_data
from coefvq.training.distilling import Lesson
from coefvq.training.job import TrainingJob, fresh_classifier, training_job
from coefvq.training.loading import opened
from coefvq.training.loop import EpochListener, FitData, FitPlan, FitResult, fit
from coefvq.training.noise import noisy_features
from coefvq.training.ranks import connect, rank, world_size
from coefvq.training.record import OpenRecord, TrainingRecord
from coefvq.training.room import check_card
from coefvq.training.sampling import LengthGrouped
from coefvq.training.settings import TrainingSettings
from coefvq.training.shared_mllm import IsRecorded, SharedTraining, TrainingOutputs, curve_of, metrics_of, take_over
from coefvq.training.teacher import Teaching
from coefvq.training.word_alignment import Words, description_words

_SAID = ("epoch", "loss", "val_loss", "val_average_precision")


def train_and_record(
    settings: TrainingSettings,
    model: BaseModelParams | MLLMParams,
    open_record: OpenRecord,
    is_recorded: IsRecorded = lambda _: False,
) -> None:
    """Fit on train, keep the best epoch on val, save the folder, record the run, write the metrics.

    All ranks train; the first one writes. A killed run resumes from its checkpoints, which are deleted
    when everything is written. An MLLM that another issue's stage has trained is taken over, if the
    tracking store still has it.
    """
    connect()
    planned_job = training_job(settings, model)
    data = read_training_data(settings, planned_job)
    job = with_teacher(without_missing_descriptions(planned_job, data.descriptions), data.teaching)
    checkpoints = checkpoint_folder(settings, job, data.hashes)
    outputs = TrainingOutputs(settings.paths, job.config.kind, settings.issue)
    shared = _shared(settings, job, checkpoints)
    if shared is not None and (other := shared.trained_by(outputs, is_recorded)) is not None:
        if rank() == 0:
            say(f"[{outputs.issue} {outputs.kind}] copied: the stage of {other.issue} trained {job.config.issue}")
            take_over(other, outputs)
        return
    check_card(job)
    if rank() == 0:
        for line in concerns(job.config, data.train.labels):
            say(line)
    classifier = fresh_classifier(job, settings.seed, settings.reading.limits, data.train.videos)
    if job.aligns:
        align(classifier, job, data, settings, open_record)
    fitting = _Fitting(settings, job, data, checkpoints)
    if rank() > 0:
        fitting.run(classifier, lambda _: None)
        return
    kind, config = job.config.kind, job.config
    logged = {"seed": settings.seed, "media": config.media.model_dump(), **job.logged_params}
    with checkpoints.lock(), open_record(f"{config.issue}-{kind}", logged, data.hashes) as record:
        result, counts = fitting.run(classifier, _reporter(record, kind, config.issue))
        classifier.save(outputs.folder)
        metrics = _metrics(result) | counts
        if kind == "base":
            for line in below_chance(config.issue, result.best_average_precision, data.val.labels, data.val.weight):
                say(line)
        record.log_model_folder(outputs.folder, kind, config.issues)
        record.log_metrics({"val": metrics, "cost": asdict(result.cost)})
        _write(outputs, metrics, result.curve, record.record(), shared)
        checkpoints.remove()


def _shared(settings: TrainingSettings, job: TrainingJob, checkpoints: CheckpointFolder) -> SharedTraining | None:
    issues = job.config.issues
    return SharedTraining.of(issues, checkpoints.identity, settings.reading.limits) if len(issues) > 1 else None


def _write(
    outputs: TrainingOutputs,
    metrics: dict[str, float],
    curve: Sequence[dict[str, float]],
    record: dict[str, str],
    shared: SharedTraining | None,
) -> None:
    """The outputs of the stage; of a shared model as the issue of the stage reads them."""
    if shared is None:
        outputs.write(metrics, list(curve), record)
        return
    own = curve_of(curve, outputs.issue)
    outputs.write(metrics_of(metrics, own), own, {**record, **shared.record(outputs.folder)})


def without_missing_descriptions(job: TrainingJob, descriptions: Sequence[tuple[str, ...]] | None) -> TrainingJob:
    """Switch off what needs descriptions where no training clip has any, and print a line about it."""
    if descriptions is None or any(descriptions):
        return job
    if rank() == 0:
        say(f"[{job.config.issue} {job.config.kind}] alignment: off, no captions")
    return replace(job, alignment=None, description_weight=0.0)


def with_teacher(job: TrainingJob, teaching: Teaching | None) -> TrainingJob:
    """The job with its teacher's hash in the model's description."""
    if teaching is None:
        return job
    return replace(job, config=job.config.model_copy(update={"teacher": teaching.scores.teacher}))


@dataclass(frozen=True)
class _Fitting:
    """One fit with its data and checkpoints; every rank runs the same one."""

    settings: TrainingSettings
    job: TrainingJob
    data: TrainingData
    checkpoints: CheckpointFolder

    def run(self, classifier: Classifier, report: EpochListener) -> tuple[FitResult, dict[str, int]]:
        """Train; also how many videos there were of each kind."""
        job, val, teaching = self.job, self.data.val, self.data.teaching
        unlabelled = [] if teaching is None else teaching.unlabelled
        fit_videos = [*self.data.train.videos, *unlabelled]
        labels = [*self.data.train.labels, *([MISSING_LABEL] * len(unlabelled))]
        videos = [*fit_videos, *val.videos]
        title = f"{job.config.issue} {job.config.kind}"
        passes, noise = job.training.num_train_epochs, noisy_features(classifier.network, job.noise)
        reading = self.settings.reading
        loaders = loader_processes(reading.runtime.loader_workers)
        # attention scales its towers' vectors before the first epoch, and so reads clips by then
        later = fit_videos if loaders and job.config.architecture != "attention" else []
        with noise, opened(reading, classifier, videos, passes, title, later) as source:
            train_set, val_set = source.dataset(fit_videos, labels), source.dataset(val.videos, val.labels)
            fit_rows = source.readable(fit_videos)
            rows = FitData(
                train_set,
                val_set,
                val_weight=val.weight.iloc[source.readable(val.videos)],
                collator=source.collator,
                # the videos to fit come first, so their rows are those of all videos
                sampler=self._sampler(source.lengths(fit_rows)),
                descriptions=self._descriptions(classifier, source.readable(self.data.train.videos)),
                lesson=self._lesson([fit_videos[at] for at in fit_rows]),
            )
            share = reading.loading.max_bad_share if source.later else None
            plan = FitPlan(job.training, self.settings.seed, report, self.checkpoints, loaders, share)
            result = fit(classifier, rows, plan)
            unread = source.unread(fit_videos)
            extra = len(source.readable(unlabelled))
            counts = {
                "train_videos": len(train_set) - extra - unread,
                **({} if teaching is None else {"unlabelled_videos": extra}),
                "val_videos": len(val_set),
                "skipped_videos": len(source.skipped) + unread,
            }
            if unread and rank() == 0:
                say(f"skipped [{title}]: {unread} of {len(fit_videos)} clips were not decoded while training")
        return result, counts

    def _descriptions(self, classifier: Classifier, rows: Sequence[int]) -> tuple[Words, float] | None:
        """Words of the training rows that are read, and their weight beside the labels."""
        descriptions, weight = self.data.descriptions, self.job.description_weight
        if weight == 0.0 or descriptions is None or classifier.text is None:
            return None
        return description_words(classifier.text, [descriptions[at] for at in rows]), weight

    def _lesson(self, videos: list[VideoInput]) -> Lesson | None:
        """The teacher's logits for the rows that are read."""
        teaching = self.data.teaching
        if teaching is None:
            return None
        rows = teaching.scores.weights(videos)
        logits = torch.tensor(teaching.scores.logits(videos))
        return Lesson(logits, teaching.weight, None if rows is None else torch.tensor(rows))

    def _sampler(self, lengths: Sequence[int]) -> LengthGrouped | None:
        """Grouping by the batch of all ranks and accumulated steps, so that their number does not change the order."""
        if not self.settings.reading.loading.group_by_length or not self.job.config.reads_text:
            return None
        training = self.job.training
        batch = training.per_device_train_batch_size * training.gradient_accumulation_steps * world_size()
        return LengthGrouped(lengths, batch, self.settings.seed)


def checkpoint_folder(settings: TrainingSettings, job: TrainingJob, hashes: DataHashes) -> CheckpointFolder:
    """Beside the decoded clips, named by everything that the result depends on."""
    config, runtime = job.config, settings.reading.runtime
    identity = {
        "issue": config.issue,
        "kind": config.kind,
        "preset": config.preset,
        "manifest": hashes.manifest[:16],
        "splits": hashes.splits[:16],
        "ranks": world_size(),
        "group_by_length": settings.reading.loading.group_by_length,
        **flat_params({"seed": settings.seed, "training": job.training.model_dump(), "lora_dropout": job.lora_dropout}),
        **flat_params({"alignment": None if job.alignment is None else job.alignment.model_dump()}),
        "description_weight": job.description_weight,
        **({} if job.distil is None else flat_params({"distil": job.distil.model_dump()})),
        **flat_params({"noise": asdict(job.noise)}),
        # another revision of frozen weights is another model
        "weights": sorted(source.name for source in config.parts.weights.values()),
        # what a clip may cost does not change what is learnt from it; weights are named above
        **flat_params({"model": config.model_dump(exclude={"limits", "published"})}),
    }
    name = f"{config.issue}-{config.kind}-{sha256_json(identity)[:16]}"
    folder = runtime.resume_from
    root = default_cache() / "checkpoints" / name if folder is None else Path(folder)
    return CheckpointFolder(root, identity, runtime.save_steps, runtime.save_total_limit)


def _reporter(record: TrainingRecord, kind: str, issue: str) -> EpochListener:
    def on_epoch(row: dict[str, float]) -> None:
        record.log_curve(round(row["epoch"] * 100), {"train": {k: v for k, v in row.items() if k != "epoch"}})
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
