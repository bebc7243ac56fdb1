"""Which epoch is kept, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback

from coefvq.training.objective import Monitored

EpochListener = Callable[[dict[str, float]], None]
Row = dict[str, float]
Tensors = dict[str, torch.Tensor]


@dataclass
class Progress:
    """What must survive a kill: the curve so far, the best epoch, and how many epochs have passed since."""

    curve: list[Row]
    best: Row | None = None
    since_best: int = 0
    stopped: bool = False


class KeepBest(TrainerCallback):
    """Collects the curve, keeps the weights of the best epoch and stops when patience is over.

    ``criterion`` is a figure of the validation; ``loss`` is better when lower, all others when higher. Of epochs
    with an equal criterion (an R@P that is not reached yet is 0) the higher average precision wins, then the first.
    """

    def __init__(self, model: Monitored, criterion: str, patience: int | None, on_epoch: EpochListener) -> None:
        self.progress = Progress([])
        self.best_weights: Tensors = {}
        self._model, self._on_epoch = model, on_epoch
        self._criterion, self._patience = f"val_{criterion}", patience

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        figures = {f"val_{k[5:]}": float(v) for k, v in metrics.items() if k.startswith("eval_") and k not in _TIMINGS}
        row = {"epoch": round(float(state.epoch or 0.0), 4), "loss": self._model.mean_loss(), **figures}
        progress = self.progress
        progress.curve.append(row)
        progress.since_best += 1
        if progress.best is None or self._rank(row) > self._rank(progress.best):
            progress.best, progress.since_best = row, 0
            self.best_weights = {name: tensor.detach().clone() for name, tensor in changing(self._model)}
        if self._patience is not None and progress.since_best >= self._patience:
            progress.stopped = control.should_training_stop = True
        if state.is_world_process_zero:
            self._on_epoch(row)

    def restore(self) -> None:
        """Put the best epoch's weights back."""
        copy_into(self._model, self.best_weights)

    def _rank(self, row: Row) -> tuple[float, float]:
        value = row[self._criterion]
        return (-value if self._criterion == "val_loss" else value), row.get("val_average_precision", -math.inf)


_TIMINGS = {"eval_runtime", "eval_samples_per_second", "eval_steps_per_second", "eval_model_preparation_time"}


def changing(model: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Everything that training changes: parameters that train, and buffers."""
    parameters = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return [*parameters, *model.named_buffers()]


def copy_into(model: torch.nn.Module, tensors: Tensors) -> None:
    """Overwrite what training changed, in place, so that an optimiser keeps its hold on it."""
    with torch.no_grad():
        for name, tensor in changing(model):
            if name in tensors:
                tensor.copy_(tensors[name])
