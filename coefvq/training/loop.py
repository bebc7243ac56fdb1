"""Fine-tune with transformers' Trainer.

The Trainer is used as it is: our parts are the loss for a rare class and missing labels (`losses`), groups of
learning rates (`parameters`), the figure that decides which epoch is kept (`validation`, `keeper`). Nothing is
pickled to disk.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import ArrayLike
from torch import nn
from torch.utils.data import Sampler
from transformers import PrinterCallback, TrainerCallback, TrainingArguments, set_seed

from coefvq.config import Training
from coefvq.errors import TrainingError
from coefvq.files import sha256_json
from coefvq.models.attention_base import AttentionClassifier
from coefvq.models.dataset import Collator
from coefvq.models.loader import plain_errors
from coefvq.models.packed import packed_frozen
from coefvq.models.short_attention import short_attention
from coefvq.training.arguments import DdpNeeds, training_arguments
from coefvq.training.averaging import AverageWeights
from coefvq.training.card_errors import card_errors
from coefvq.training.checkpoints import CheckpointFolder
from coefvq.training.cost import Cost
from coefvq.training.distilling import Lesson, WithTeacher, standardise
from coefvq.training.hidden_states import known_collator, known_rows, stays_the_same
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
from coefvq.training.parameters import held_still, optimizer_class
from coefvq.training.ranks import from_first, rank, world_size
from coefvq.training.resume import ResumableTrainer, Resume
from coefvq.training.validation import ValidationMetrics
from coefvq.training.word_alignment import Words

if TYPE_CHECKING:
    from coefvq.models.classifier import Classifier

__all__ = ["EpochListener", "FitData", "FitPlan", "FitResult", "fit", "seed_everything"]


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
    # cuBLAS reads it when its first product is computed
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    set_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # it would also fill every new tensor, which repeatability does not need
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@dataclass(frozen=True)
class FitData:
    """What a fit reads; neither the sets nor ``collator`` (default: the classifier's) may draw random numbers.

    Labels are [N], or [N,K] for a network with K heads; -100 is missing. ``val_weight`` [len(val)] are sampling weights
    for validation. The losses know none: where negatives were thinned on purpose, the model is meant to train on what
    is left, and ``positive_weight`` is the knob. ``sampler`` gives another order of ``train`` than a random one.
    ``descriptions`` are the words of its rows and their weight beside the labels, ``lesson`` the teacher's logits.
    """

    train: TrainingSet
    val: TrainingSet
    val_weight: ArrayLike | None = None
    collator: Collate | None = None
    sampler: Sampler[int] | None = None
    descriptions: tuple[Words, float] | None = None
    lesson: Lesson | None = None


@dataclass(frozen=True)
class FitPlan:
    """How a fit proceeds; ``seed`` seeds the order of rows and dropout.

    With ``checkpoints`` a killed training resumes from the newest one, and ``on_epoch`` is called again for the epochs
    before it. The caller removes the checkpoints once the result is safe. ``loaders`` processes make batches ahead.
    Of training clips that are read for the first time a share up to ``max_bad_share`` may fail: the next row stands in.
    """

    training: Training
    seed: int
    on_epoch: EpochListener = lambda _: None
    checkpoints: CheckpointFolder | None = None
    loaders: int = 0
    max_bad_share: float | None = None


def fit(classifier: Classifier, data: FitData, plan: FitPlan) -> FitResult:
    """Train in place and leave the weights of the epoch that is best on validation by ``metric_for_best_model``.

    Raises:
        TrainingError: a loss or a validation score is not finite (the videos are named), or a checkpoint cannot be
            written or belongs to another run.
    """
    training = plan.training
    spec = LossSpec(training.loss, training.positive_weight, training.focal_gamma)
    prior = class_prior(data.train.labels or []) if training.loss == "logit_adjusted" else torch.full((1, 2), 0.5)
    labelled = WithLoss(classifier.network, ClassificationLoss(spec, prior))
    collator = data.collator or classifier.collator
    if isinstance(classifier.network, AttentionClassifier):
        standardise(classifier.network, data.train, collator)
    criterion, issues = training.metric_for_best_model, classifier.config.issues
    metrics = ValidationMetrics(criterion, data.val.video_ids, issues, data.val_weight)
    with held_still(classifier.network, training):
        if _only_the_head(classifier.network, collator, data, plan):
            data, collator = _known(classifier.network, data, collator, training.per_device_train_batch_size)
            plan = replace(plan, loaders=0)  # nothing is left to read
        return _optimize(_objective(labelled, data), collator, metrics, data, plan)


def _only_the_head(network: nn.Module, collator: Collate, data: FitData, plan: FitPlan) -> bool:
    """Whether H can be computed ahead; not for words, which ask the layers, nor by ranks, which would all do all."""
    apart = data.descriptions is None and plan.max_bad_share is None and world_size() == 1
    return apart and stays_the_same(network, collator, len(data.train) + len(data.val))


def _known(network: Any, data: FitData, collator: Any, size: int) -> tuple[FitData, Collator]:
    train, val = (known_rows(network, rows, collator, size) for rows in (data.train, data.val))
    return replace(data, train=train, val=val), known_collator(collator)


def _objective(labelled: WithLoss, data: FitData) -> nn.Module:
    if data.descriptions is not None:
        return WithDescriptions(labelled, *data.descriptions)
    return labelled if data.lesson is None else WithTeacher(labelled, data.lesson)


def _optimize(
    objective: nn.Module, collator: Collate, metrics: ValidationMetrics, data: FitData, plan: FitPlan
) -> FitResult:
    """Train a module whose forward takes the collator's batch and returns ``{"loss", …}``, in place.

    The best epoch's weights are put back and the module is left in eval mode.
    """
    training = plan.training
    model = Monitored(objective, data.train.video_ids)
    keeper = KeepBest(model, training.metric_for_best_model, training.early_stopping_patience, plan.on_epoch)
    average = AverageWeights(model, training.average_weights) if training.average_weights > 0.0 else None
    dtypes = [parameter.dtype for parameter in model.parameters()]
    resume = None if plan.checkpoints is None else Resume(plan.checkpoints, model, keeper, average)
    with tempfile.TemporaryDirectory(prefix="coefvq-train-") as scratch:
        arguments = training_arguments(training, plan.seed, Path(scratch), plan.loaders, DdpNeeds.of(model))
        train_rows = Indexed(data.train, plan.max_bad_share)
        trainer = _trainer(model, collator, metrics, data, train_rows, plan, arguments, [keeper, average, resume])
        for rows in (data.train, data.val):
            _check_same_rows(rows, arguments.device)
        checkpoint = None if resume is None else resume.find(arguments.device)
        for row in keeper.progress.curve if rank() == 0 else ():
            plan.on_epoch(row)  # replay the epochs of the killed run to the new listener
        if resume is None or not resume.is_finished():
            with _lighter_steps(model, arguments), plain_errors(plan.loaders), card_errors(), _quiet_ddp():
                trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint.path))
    for parameter, dtype in zip(model.parameters(), dtypes, strict=True):
        parameter.data = parameter.data.to(dtype)  # DeepSpeed leaves a bf16 module behind
    keeper.restore()
    objective.eval()
    return _result(keeper, model, training.metric_for_best_model)


@contextmanager
def _lighter_steps(model: nn.Module, arguments: TrainingArguments) -> Iterator[None]:
    """What makes a step take less time and changes it by rounding only."""
    # autocast and DeepSpeed look after precision and layout themselves
    fixed = () if arguments.bf16 or arguments.deepspeed else (model,)
    attention = short_attention(model) if arguments.bf16 and arguments.device.type == "cpu" else nullcontext()
    with packed_frozen(fixed), attention:
        yield


@contextmanager
def _quiet_ddp() -> Iterator[None]:
    """accelerate calls what ``ddp_broadcast_buffers`` sets by the name that torch 2.13 warns of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*broadcast_buffers. is deprecated", FutureWarning)
        yield


def _trainer(
    model: Monitored,
    collator: Collate,
    metrics: ValidationMetrics,
    data: FitData,
    train_rows: Indexed,
    plan: FitPlan,
    arguments: TrainingArguments,
    callbacks: Sequence[TrainerCallback | None],
) -> ResumableTrainer:
    trainer = ResumableTrainer(
        model=model,
        args=arguments,
        data_collator=IndexedCollate(collator),
        train_dataset=train_rows,
        eval_dataset=Indexed(data.val),
        compute_metrics=metrics,
        optimizer_cls_and_kwargs=optimizer_class(model, plan.training, arguments),
        callbacks=[callback for callback in callbacks if callback is not None],
    )
    trainer.sampler = data.sampler
    trainer.remove_callback(PrinterCallback)  # the listener prints one line per epoch
    return trainer


def _check_same_rows(rows: TrainingSet, device: torch.device) -> None:
    """Raise where a rank holds other rows than rank 0: the ranks would wait for each other for ever."""
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
