"""Towers of other packages: made by entry point, and held to what docs/extend.md says that they return."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from coefvq.errors import ModelError
from coefvq.extensions import FRAME_TOWERS, SOUND_TOWERS, TEXT_TOWERS, blamed, extension
from coefvq.models.parts import OwnFramePart, OwnSoundPart, OwnTextPart

OwnPart = OwnFramePart | OwnTextPart | OwnSoundPart
_GROUPS: dict[type, tuple[str, str]] = {
    OwnFramePart: ("frame tower", FRAME_TOWERS),
    OwnTextPart: ("text tower", TEXT_TOWERS),
    OwnSoundPart: ("sound tower", SOUND_TOWERS),
}


def own_tower(part: OwnPart, **given: Any) -> nn.Module:
    """What the package makes of ``given`` and the part's options.

    Raises:
        ConfigError: no package has it, or it raised.
        ModelError: it is no torch module.
    """
    what, group = _GROUPS[type(part)]
    made = extension(group, part.name)(**given, **part.options)
    if not isinstance(made, nn.Module):
        raise ModelError(f"{what} {part.name!r}: returned {type(made).__name__}; expected a torch module")
    return made


def own_vectors(part: OwnPart, tower: nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
    """What a package's tower makes of its inputs, [N,...] each -> [N,width].

    Raises:
        ConfigError: it raised.
        ModelError: its answer has another form.
    """
    what, group = _GROUPS[type(part)]
    count = len(inputs[0])
    with blamed(group, part.name):
        vectors = tower(*inputs)
    if not isinstance(vectors, torch.Tensor) or vectors.shape != (count, part.width):
        shape = tuple(vectors.shape) if isinstance(vectors, torch.Tensor) else type(vectors).__name__
        raise ModelError(f"{what} {part.name!r}: returned {shape}; expected [{count}, {part.width}] (width)")
    return vectors
