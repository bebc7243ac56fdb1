"""Fine-tune one classifier with transformers' Trainer.

The Trainer is used as it is: our part is the loss for a rare class, the metric that decides which
epoch is kept, and one progress line per epoch. Weights of the best epoch are kept in memory (the
trainable part only), so that no optimiser state is ever pickled to disk here.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import ArrayLike
from torch import nn
from transformers import EvalPrediction, PrinterCallback, Trainer, TrainerCallback, TrainingArguments, set_seed

from coefvq.config import Training
from coefvq.data.dataset import VideoDataset
from coefvq.evaluation.metrics import average_precision

if TYPE_CHECKING:
    from coefvq.models.classifier import Classifier

#: the figure on validation data that decides which epoch is kept
CRITERION = "eval_average_precision"
EpochListener = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class FitResult:
    """One row per epoch (epoch, loss, val_loss, val_average_precision) and the epoch that was kept."""

    curve: tuple[dict[str, float], ...]
    best_epoch: float
    best_average_precision: float
    trainable_parameters: int
    total_parameters: int


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch and ask torch for repeatable kernels."""
    set_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # it would also fill every new tensor, which repeatability does not need
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def fit(
    classifier: Classifier,
    train_set: VideoDataset,
    val_set: VideoDataset,
    params: Training,
    seed: int,
    on_epoch: EpochListener = lambda _: None,
    val_weight: ArrayLike | None = None,
) -> FitResult:
    """Train in place and leave the weights of the epoch with the best validation average precision.

    ``val_weight`` [len(val_set)] are sampling weights for that figure. The losses know none: where negatives were
    thinned on purpose, the model is meant to train on what is left, and ``positive_weight`` is the knob.
    """
    model = _WithLoss(classifier.network, params.positive_weight)
    keeper = _KeepBest(model, on_epoch)
    with tempfile.TemporaryDirectory(prefix="coefvq-train-") as scratch:
        trainer = Trainer(
            model=model,
            args=_arguments(params, seed, scratch),
            data_collator=classifier.collator,
            train_dataset=train_set,
            eval_dataset=val_set,
            compute_metrics=partial(_validation_metrics, weight=val_weight),
            callbacks=[keeper],
        )
        trainer.remove_callback(PrinterCallback)  # the listener prints one line per epoch
        trainer.train()
    keeper.restore()
    classifier.network.eval()
    count = [(p.numel(), p.requires_grad) for p in classifier.network.parameters()]
    return FitResult(
        curve=tuple(keeper.curve),
        best_epoch=keeper.best_epoch,
        best_average_precision=keeper.best,
        trainable_parameters=sum(n for n, trains in count if trains),
        total_parameters=sum(n for n, _ in count),
    )


class _WithLoss(nn.Module):
    """Class-weighted cross-entropy around a network that returns logits [B, C]."""

    # the Trainer would otherwise hand over num_items_in_batch and expect a summed loss
    accepts_loss_kwargs = False

    def __init__(self, network: nn.Module, positive_weight: float) -> None:
        super().__init__()
        self.network = network
        self.class_weight: torch.Tensor
        self.register_buffer("class_weight", torch.tensor([1.0, positive_weight]), persistent=False)

    def forward(self, labels: torch.Tensor, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.network(**inputs)
        loss = nn.functional.cross_entropy(logits.float(), labels, weight=self.class_weight)
        return {"loss": loss, "logits": logits}


class _KeepBest(TrainerCallback):
    """Collects the curve and keeps the trainable weights and buffers of the best epoch."""

    def __init__(self, model: nn.Module, on_epoch: EpochListener) -> None:
        self.curve: list[dict[str, float]] = []
        self.best, self.best_epoch = -math.inf, 0.0
        self._model, self._on_epoch = model, on_epoch
        self._kept: dict[str, torch.Tensor] = {}
        self._train_loss = math.nan

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self._train_loss = float(logs["loss"])

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        score = float(metrics[CRITERION])
        row = {
            "epoch": round(float(state.epoch or 0.0), 4),
            "loss": self._train_loss,
            "val_loss": float(metrics["eval_loss"]),
            "val_average_precision": score,
        }
        self.curve.append(row)
        self._on_epoch(row)
        if score > self.best:
            self.best, self.best_epoch = score, row["epoch"]
            self._kept = {name: tensor.detach().clone() for name, tensor in self._changing()}

    def restore(self) -> None:
        """Put the best epoch's weights back."""
        with torch.no_grad():
            for name, tensor in self._changing():
                if name in self._kept:
                    tensor.copy_(self._kept[name])

    def _changing(self) -> list[tuple[str, torch.Tensor]]:
        parameters = [(name, p) for name, p in self._model.named_parameters() if p.requires_grad]
        return [*parameters, *self._model.named_buffers()]


def _validation_metrics(prediction: EvalPrediction, weight: ArrayLike | None) -> dict[str, float]:
    logits = torch.as_tensor(prediction.predictions).float()
    score = logits.softmax(dim=1)[:, 1].numpy()
    return {"average_precision": average_precision(prediction.label_ids, score, weight)}


def _arguments(params: Training, seed: int, scratch: str) -> TrainingArguments:
    # bf16 pays where the hardware multiplies it natively; the tiny preset stays exact in fp32 on CPU
    return TrainingArguments(
        output_dir=scratch,
        num_train_epochs=params.num_train_epochs,
        per_device_train_batch_size=params.per_device_train_batch_size,
        per_device_eval_batch_size=2 * params.per_device_train_batch_size,
        learning_rate=params.learning_rate,
        weight_decay=params.weight_decay,
        warmup_steps=params.warmup_steps,
        lr_scheduler_type=params.lr_scheduler_type,
        eval_strategy="epoch",
        logging_strategy="epoch",
        save_strategy="no",
        report_to=[],
        remove_unused_columns=False,
        label_names=["labels"],
        seed=seed,
        data_seed=seed,
        dataloader_pin_memory=torch.cuda.is_available(),
        bf16=torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
        disable_tqdm=not sys.stderr.isatty(),
    )
