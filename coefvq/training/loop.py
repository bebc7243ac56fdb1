"""Fine-tune with transformers' Trainer.

The Trainer is used as it is: our parts are the loss for a rare class and missing labels (`losses`), groups of
learning rates (`parameters`), the figure that decides which epoch is kept (`validation`, `keeper`). Nothing is
pickled to disk.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from numpy.typing import ArrayLike
from torch import nn
from torch.utils.data import Sampler
from transformers import PrinterCallback, set_seed

from coefvq.config import Training
from coefvq.errors import TrainingError
from coefvq.files import sha256_json
from coefvq.models.attention_base import AttentionClassifier
from coefvq.models.packed import packed_frozen
from coefvq.training.arguments import training_arguments
from coefvq.training.averaging import AverageWeights
from coefvq.training.checkpoints import CheckpointFolder
from coefvq.training.cost import Cost
from coefvq.training.distilling import Lesson, WithTeacher, standardise
from coefvq.training.keeper import EpochListener, KeepBest
from coefvq.training.losses import ClassificationLoss, LossSpec, class_prior
from coefvq.training.objective import (
    Collate,
    Indexed,
    IndexedCollate,
    Monitored,
    TrainingSet,
    WithDescriptions,
    WithLoss,
)
from coefvq.training.parameters import optimizer_class
from coefvq.training.ranks import from_first, rank
from coefvq.training.resume import ResumableTrainer, Resume
from coefvq.training.validation import ValidationMetrics
from coefvq.training.word_alignment import Words

if TYPE_CHECKING:
    from coefvq.models.classifier import Classifier

__all__ = ["EpochListener", "FitResult", "fit", "optimize", "seed_everything"]


@dataclass(frozen=True)
class FitResult:
    """One row per epoch (epoch, loss, val_loss, val_average_precision, the criterion) and the epoch that was kept.

    ``best_criterion`` is ``metric_for_best_model`` of that epoch. ``cost`` alone differs between equal runs.
    """

    curve: tuple[dict[str, float], ...]
    best_epoch: float
    best_criterion: float
    best_average_precision: float | None
    trainable_parameters: int
    total_parameters: int
    cost: Cost


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch and ask torch for repeatable kernels."""
    set_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # it would also fill every new tensor, which repeatability does not need
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def fit(
    classifier: Classifier,
    train_set: TrainingSet,
    val_set: TrainingSet,
    params: Training,
    seed: int,
    on_epoch: EpochListener = lambda _: None,
    val_weight: ArrayLike | None = None,
    collator: Collate | None = None,
    checkpoints: CheckpointFolder | None = None,
    sampler: Sampler[int] | None = None,
    described: tuple[Words, float] | None = None,
    lesson: Lesson | None = None,
) -> FitResult:
    """Train in place and leave the weights of the epoch that is best on validation by ``metric_for_best_model``.

    Labels are [N], or [N,K] for a network with K heads; -100 is missing. ``val_weight`` [len(val_set)] are sampling
    weights for validation. The losses know none: where negatives were thinned on purpose, the model is meant to
    train on what is left, and ``positive_weight`` is the knob. ``collator`` defaults to the classifier's; neither
    it nor the sets may draw random numbers. ``sampler`` gives another order of ``train_set`` than a random one;
    ``described`` are the words of its rows and their weight beside the labels, ``lesson`` the teacher's
    logits for them. With ``checkpoints`` a killed
    training goes on where the newest one was written, and ``on_epoch`` hears the epochs before it again; they are
    the caller's to remove once the result is safe.

    Raises:
        TrainingError: a loss or a validation score is not finite (the videos are named), or a checkpoint cannot be
            written or belongs to another run.
    """
    spec = LossSpec(params.loss, params.positive_weight, params.focal_gamma)
    prior = class_prior(train_set.labels or []) if params.loss == "logit_adjusted" else torch.full((1, 2), 0.5)
    labelled = WithLoss(classifier.network, ClassificationLoss(spec, prior))
    collator = collator or classifier.collator
    if isinstance(classifier.network, AttentionClassifier):
        standardise(classifier.network, train_set, collator)
    return optimize(
        _objective(labelled, described, lesson),
        train_set,
        val_set,
        collator,
        params,
        seed,
        on_epoch,
        ValidationMetrics(params.metric_for_best_model, val_set.video_ids, classifier.config.issues, val_weight),
        checkpoints,
        sampler,
    )


def _objective(labelled: WithLoss, described: tuple[Words, float] | None, lesson: Lesson | None) -> nn.Module:
    if described is not None:
        return WithDescriptions(labelled, *described)
    return labelled if lesson is None else WithTeacher(labelled, lesson)


def optimize(
    objective: nn.Module,
    train_set: TrainingSet,
    val_set: TrainingSet,
    collator: Collate,
    params: Training,
    seed: int,
    on_epoch: EpochListener = lambda _: None,
    metrics: ValidationMetrics | None = None,
    checkpoints: CheckpointFolder | None = None,
    sampler: Sampler[int] | None = None,
) -> FitResult:
    """Train any module whose forward takes the collator's batch and returns ``{"loss", …}``, in place.

    Without ``metrics`` the criterion is the validation loss, whatever ``metric_for_best_model`` says. The best epoch's
    weights are put back and the module is left in eval mode.

    Raises:
        TrainingError: as `fit`.
    """
    model = Monitored(objective, train_set.video_ids)
    criterion = "loss" if metrics is None else params.metric_for_best_model
    keeper = KeepBest(model, criterion, params.early_stopping_patience, on_epoch)
    average = AverageWeights(model, params.average_weights) if params.average_weights > 0.0 else None
    dtypes = [parameter.dtype for parameter in model.parameters()]
    resume = None if checkpoints is None else Resume(checkpoints, model, keeper, average)
    with tempfile.TemporaryDirectory(prefix="coefvq-train-") as scratch:
        arguments = training_arguments(params, seed, Path(scratch))
        trainer = ResumableTrainer(
            model=model,
            args=arguments,
            data_collator=IndexedCollate(collator),
            train_dataset=Indexed(train_set),
            eval_dataset=Indexed(val_set),
            compute_metrics=metrics,
            optimizer_cls_and_kwargs=optimizer_class(model, params, arguments),
            callbacks=[part for part in (keeper, average, resume) if part is not None],
        )
        trainer.sampler = sampler
        trainer.remove_callback(PrinterCallback)  # the listener prints one line per epoch
        for rows in (train_set, val_set):
            _check_same_rows(rows, arguments.device)
        found = None if resume is None else resume.find(arguments.device)
        for row in keeper.progress.curve if rank() == 0 else ():
            on_epoch(row)  # replay the epochs of the killed run to the new listener
        # autocast and DeepSpeed look after precision and layout themselves
        fixed = () if arguments.bf16 or arguments.deepspeed else (model,)
        if resume is None or not resume.is_finished():
            with packed_frozen(fixed):
                trainer.train(resume_from_checkpoint=None if found is None else str(found.path))
    for parameter, dtype in zip(model.parameters(), dtypes, strict=True):
        parameter.data = parameter.data.to(dtype)  # DeepSpeed leaves a bf16 module behind
    keeper.restore()
    objective.eval()
    return _result(keeper, model, criterion)


def _check_same_rows(rows: TrainingSet, device: torch.device) -> None:
    """All ranks must go through the same rows, or they would wait for each other for ever."""
    mine = int(sha256_json(list(rows.video_ids))[:15], 16)
    if from_first(mine, device) != mine:
        raise TrainingError(
            f"rank {rank()} holds other videos than rank 0 ({len(rows)} here): a clip decodes on one machine only; "
            "build the features first (coefvq features build), or share COEFVQ_CACHE between machines"
        )


def _result(keeper: KeepBest, model: Monitored, criterion: str) -> FitResult:
    count = [(p.numel(), p.requires_grad) for p in model.parameters()]
    best = keeper.progress.best or {}
    return FitResult(
        curve=tuple(keeper.progress.curve),
        best_epoch=best["epoch"],
        best_criterion=best[f"val_{criterion}"],
        best_average_precision=best.get("val_average_precision"),
        trainable_parameters=sum(n for n, trains in count if trains),
        total_parameters=sum(n for n, _ in count),
        cost=model.meter.cost(),
    )
