"""Which parameter learns how fast: optimiser groups for head, projector and the rest (LoRA, towers)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import Trainer, TrainingArguments

from coefvq.config import Training


def part_of(name: str) -> str:
    """``head``, ``projector`` or ``rest`` by a parameter's dotted name.

    The norm on H counts as head: both are made anew for the task and see the same scale.
    """
    parts = name.split(".")
    if any("projector" in part for part in parts):
        return "projector"
    top = next((part for part in parts if part not in ("objective", "labelled", "network")), "")
    return "head" if top in ("head", "norm") else "rest"


@contextmanager
def held_still(model: nn.Module, params: Training) -> Iterator[None]:
    """Within this, parameters whose rate is 0 do not train: nothing is computed or kept for their gradients.

    They are no published weights for that, so they train as before once it ends, and are saved with the model.
    """
    rates = params.rates
    held = [p for name, p in model.named_parameters() if p.requires_grad and not rates[part_of(name)]]
    for parameter in held:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)


def optimizer_groups(model: nn.Module, params: Training) -> list[dict[str, Any]]:
    """Groups by learning rate and by whether weights decay (biases and norms do not, as in transformers).

    Raises:
        AttributeError: never for a module; transformers' own rule names the decaying parameters.
    """
    rates = params.rates
    decaying = set(Trainer.get_decay_parameter_names(None, model))
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {
        (rate, decays): [] for decays in (True, False) for rate in dict.fromkeys(rates[k] for k in rates)
    }
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[rates[part_of(name)], name in decaying].append(parameter)
    return [
        {"params": chosen, "lr": rate, "weight_decay": params.weight_decay if decays else 0.0}
        for (rate, decays), chosen in groups.items()
        if chosen
    ]


def optimizer_class(model: nn.Module, params: Training, args: TrainingArguments) -> tuple[type, dict[str, Any]]:
    """What ``Trainer(optimizer_cls_and_kwargs=…)`` takes: the Trainer's own optimiser, with our groups."""
    kind, options = Trainer.get_optimizer_cls_and_kwargs(args)
    return kind, {**options, "params": optimizer_groups(model, params)}
