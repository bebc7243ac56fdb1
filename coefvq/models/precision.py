"""Casts that leave alone what must stay as it is: tables such as rotary frequencies, and a frozen Whisper."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

from coefvq.models.audio import AudioBranch
from coefvq.models.frozen import is_frozen

#: as config.json of a model and ``predict.dtype`` name them
Dtype = Literal["float32", "bfloat16"]
DTYPES: dict[Dtype, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@contextmanager
def fixed_precision(root: nn.Module) -> Iterator[None]:
    """Within the block, ``root`` may be cast as a whole (``root.to(torch.bfloat16)``, or by DeepSpeed).

    Fixed tensors move with the others and keep their precision. These are the buffers of modules without parameters
    of their own: a rotary frequency rounded to bfloat16 is wrong by 1.5 rad at position 1,632, a counter stands still
    at 256. And all of a frozen Whisper, whose normalisations compute in float32.
    """
    before = list(_fixed(root))
    yield
    for owner, name, tensor in before:
        cast: torch.Tensor = getattr(owner, name)
        if cast.dtype == tensor.dtype or (tensor.is_meta and not cast.is_meta):
            continue
        kept = tensor.to(cast.device)
        if isinstance(cast, nn.Parameter):
            cast.data = kept
        else:
            owner._buffers[name] = kept


def _fixed(root: nn.Module) -> Iterator[tuple[nn.Module, str, torch.Tensor]]:
    """Owner, name and value of each fixed tensor."""
    frozen = {
        id(inner)
        for module in root.modules()
        if isinstance(module, AudioBranch) and is_frozen(module)
        for inner in module.modules()
    }
    for module in root.modules():
        whole = id(module) in frozen
        named: list[tuple[str, torch.Tensor | None]] = list(module._parameters.items()) if whole else []
        if whole or not module._parameters:
            named += module._buffers.items()
        # a cast replaces the data of a parameter, so the old data are held here
        yield from ((module, name, tensor.data) for name, tensor in named if tensor is not None)
