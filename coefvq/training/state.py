"""What a training consists of besides its weights, as tensors and JSON: optimiser, scheduler, random numbers."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

Tensors = dict[str, torch.Tensor]


def pack_optimizer(optimizer: Any) -> tuple[Tensors, list[dict[str, Any]]]:
    """State tensors named ``<parameter>.<name>``, ZeRO's fp32 partitions, and the parameter groups as JSON."""
    state = _inner(optimizer).state_dict()
    tensors = {
        f"state.{index}.{name}": torch.as_tensor(value).contiguous()
        for index, values in state["state"].items()
        for name, value in values.items()
    }
    tensors |= {f"partition.{i}": part.detach().contiguous() for i, part in enumerate(_partitions(optimizer))}
    return tensors, state["param_groups"]


def unpack_optimizer(optimizer: Any, tensors: Tensors, groups: list[dict[str, Any]]) -> None:
    """Put back what `pack_optimizer` took."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        kind, index, *name = key.split(".", 2)
        if kind == "state":
            state.setdefault(int(index), {})[name[0]] = tensor
    # JSON has no tuples, and Adam compares its betas by position only
    restored = [{k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in groups]
    _inner(optimizer).load_state_dict({"state": state, "param_groups": restored})
    with torch.no_grad():
        for i, part in enumerate(_partitions(optimizer)):
            part.copy_(tensors[f"partition.{i}"])


def is_sharded(optimizer: Any) -> bool:
    """Whether each rank holds another part of the optimiser's state (ZeRO)."""
    return bool(_partitions(optimizer))


def pack_random() -> tuple[Tensors, dict[str, Any]]:
    """States of torch (one per device), Python and NumPy."""
    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors |= {f"cuda.{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return tensors, {
        "python": [version, list(numbers), gauss],
        "numpy": [name, np.asarray(keys).tolist(), position, has_gauss, cached],
    }


def unpack_random(tensors: Tensors, state: dict[str, Any]) -> None:
    """Put back what `pack_random` took."""
    torch.set_rng_state(tensors["cpu"])
    if torch.cuda.is_available():
        devices = range(torch.cuda.device_count())
        torch.cuda.set_rng_state_all([tensors[f"cuda.{i}"] for i in devices if f"cuda.{i}" in tensors])
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), position, has_gauss, cached))


def _inner(optimizer: Any) -> torch.optim.Optimizer:
    """The torch optimiser below the wrappers of accelerate and DeepSpeed."""
    while not isinstance(optimizer, torch.optim.Optimizer) or hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def _partitions(optimizer: Any) -> list[torch.Tensor]:
    while optimizer is not None:
        if hasattr(optimizer, "single_partition_of_fp32_groups"):
            return list(optimizer.single_partition_of_fp32_groups)
        optimizer = getattr(optimizer, "optimizer", None)
    return []
