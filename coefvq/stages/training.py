"""What train-base and train-mllm have in common: data, fit, save, record."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from coefvq.config import Params, Training
from coefvq.data.clips import ClipStore, default_cache
from coefvq.data.dataset import VideoDataset, text_of
from coefvq.files import write_json
from coefvq.models.classifier import ModelConfig, build, text_encoder
from coefvq.records import VideoInput
from coefvq.registry import tracking
from coefvq.stages.common import data_ref, inputs_and_labels, labelled, progress, say, split_manifest
from coefvq.training.loop import EpochListener, FitResult, fit, seed_everything


@dataclass(frozen=True)
class TrainingJob:
    """One model to train, and the settings to log with it."""

    config: ModelConfig
    training: Training
    lora_dropout: float
    logged_params: dict[str, Any]


def train_and_record(params: Params, job: TrainingJob) -> None:
    """Fit on train, keep the best epoch on val, save the folder, log the run, write the metrics."""
    kind, issue = job.config.kind, job.config.issue
    rows = split_manifest(params)
    train_set, train_videos = _dataset(params, rows, job, "train")
    val_set, _ = _dataset(params, rows, job, "val")
    val_weight = labelled(rows, issue, "val")["weight"]
    seed_everything(params.seed)
    text = text_encoder(job.config, (text_of(video) for video in train_videos))
    classifier = build(job.config, text, job.lora_dropout)
    with _tracked(params, job) as run:
        result = fit(classifier, train_set, val_set, job.training, params.seed, _reporter(run, kind, issue), val_weight)
        folder = params.paths.model_dir(kind, issue)
        classifier.save(folder)
        metrics = _metrics(result, len(train_set), len(val_set))
        run.log_model_folder(folder, kind, issue)
        run.log_metrics({"val": metrics})
    write_json(params.paths.report(issue, f"{kind}.json"), metrics)
    write_json(params.paths.report(issue, f"{kind}_curve.json"), list(result.curve))
    write_json(Path(params.paths.models) / issue / f"{kind}_run.json", run.record())


def _dataset(params: Params, rows: pd.DataFrame, job: TrainingJob, split: str) -> tuple[VideoDataset, list[VideoInput]]:
    issue = job.config.issue
    videos, labels = inputs_and_labels(labelled(rows, issue, split), params, issue)
    store = ClipStore(default_cache(), job.config.media)
    with progress(f"decoding {split} [{issue}]", len(videos)) as advance:
        store.fill(videos, params.runtime.workers, advance)
    return VideoDataset(videos, store, labels), videos


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
        say(
            f"[{issue} {kind}] epoch {row['epoch']:g}: loss {row['loss']:.4f}, "
            f"val loss {row['val_loss']:.4f}, val AP {row['val_average_precision']:.4f}"
        )

    return on_epoch


def _metrics(result: FitResult, n_train: int, n_val: int) -> dict[str, float]:
    facts = {name: value for name, value in asdict(result).items() if name != "curve"}
    return {**facts, "epochs": len(result.curve), "train_videos": n_train, "val_videos": n_val}
