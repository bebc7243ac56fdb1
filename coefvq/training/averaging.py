"""The mean of the weights over the last part of a training, in place of the last ones (Izmailov et al. 2018)."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import TrainerCallback

from coefvq.training.keeper import Tensors, copy_into


class AverageWeights(TrainerCallback):
    """Averages the trained parameters over the last ``share`` of all steps, each step alike.

    From then on validation and the kept epoch use the mean; the optimiser continues with the live weights.
    This callback stands behind the one that keeps the best epoch and before the one that writes checkpoints.
    """

    def __init__(self, model: nn.Module, share: float) -> None:
        self.mean: Tensors = {}
        self.count = 0
        self._model, self._share = model, share
        self._live: Tensors = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step <= state.max_steps * (1.0 - self._share):
            return
        self.count += 1
        for name, parameter in self._trained():
            value = parameter.detach().float()
            if self.count == 1:
                self.mean[name] = value.clone()
            else:
                self.mean[name] = self.mean[name].to(value.device).lerp_(value, 1.0 / self.count)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.count > 0:
            self._live = {name: parameter.detach().clone() for name, parameter in self._trained()}
            copy_into(self._model, self.mean)

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        copy_into(self._model, self._live)
        self._live = {}

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in self._model.named_parameters() if p.requires_grad]
