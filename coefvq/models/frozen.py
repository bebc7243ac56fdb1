"""Parts of a network that do not train: their outputs per video can be kept (see ``training.features``).

A network lists them as ``FrozenPart``s; whether a part is frozen is read off ``requires_grad``. A part's output
depends on one video alone, never on its neighbours in the batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

SEES = ("pixel_values",)
HEARS = ("log_mel", "has_audio")
READS = ("input_ids", "attention_mask")


@dataclass(frozen=True)
class Wider:
    """Settings of a part whose output begins with another one's, which has ``rows_per_frame`` rows of each frame."""

    settings: dict[str, Any]
    rows_per_frame: int


@dataclass(frozen=True, eq=False)
class FrozenPart:
    """``compute(*[batch[name] for name in reads])`` -> [B, ...]; ``name`` is an argument of the network's forward.

    ``modules`` hold the weights and ``settings`` (JSON) whatever else decides the output. Where a part of the ``wider``
    settings was computed, this one's output is its beginning.
    """

    name: str
    reads: tuple[str, ...]
    compute: Callable[..., torch.Tensor]
    modules: tuple[nn.Module | nn.Parameter, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    wider: Wider | None = None


def is_frozen(*modules: nn.Module | nn.Parameter) -> bool:
    """Whether no parameter of these trains."""
    return not any(parameter.requires_grad for module in modules for parameter in _parameters(module))


def features_of(parts: Sequence[FrozenPart], batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Outputs by name of the parts whose inputs are in the batch."""
    with torch.no_grad():
        return {
            part.name: part.compute(*(batch[name] for name in part.reads))
            for part in parts
            if all(name in batch for name in part.reads)
        }


def weights_sha256(modules: Sequence[nn.Module | nn.Parameter]) -> str:
    """Hex SHA-256 over names, shapes, dtypes and bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    for index, module in enumerate(modules):
        named = [("", module)] if isinstance(module, nn.Parameter) else _named_tensors(module)
        for name, tensor in named:
            digest.update(f"{index}.{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            flat = tensor.detach().cpu().contiguous().view(-1)
            digest.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
    return digest.hexdigest()


def _named_tensors(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    # unlike state_dict, with the buffers that are not saved: means, position tables
    return [*module.named_parameters(), *module.named_buffers()]


def _parameters(module: nn.Module | nn.Parameter) -> list[nn.Parameter]:
    return [module] if isinstance(module, nn.Parameter) else list(module.parameters())
