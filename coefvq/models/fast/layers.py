"""Modules that stand in for a layer, a convolution or a tower and compute less for the same result."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class PatchMatmul(nn.Module):
    """SigLIP's patch embedding: a convolution whose stride is its kernel is a matrix product over patches.

    The result leaves in the layout that the tower wants, so that ``flatten`` and ``transpose`` copy nothing and
    every later layer sees contiguous rows.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.side = int(convolution.kernel_size[0])
        self.weight = convolution.weight
        flat = self.weight.detach().flatten(1)
        self.linear = nn.Linear(flat.shape[1], flat.shape[0], bias=convolution.bias is not None, device="meta")
        self.linear.weight = nn.Parameter(flat, requires_grad=False)
        if convolution.bias is not None:
            self.linear.bias = nn.Parameter(convolution.bias.detach(), requires_grad=False)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """pixel_values [n,3,S,S] -> [n,D,g,g], where g = S // patch size."""
        count, channels, height, width = pixel_values.shape
        side, rows, columns = self.side, height // self.side, width // self.side
        covered = pixel_values[..., : rows * side, : columns * side]
        cells = covered.reshape(count, channels, rows, side, columns, side).permute(0, 2, 4, 1, 3, 5)
        patches: torch.Tensor = self.linear(cells.reshape(count, rows * columns, channels * side * side))
        return patches.transpose(1, 2).view(count, -1, rows, columns)


def is_patch_embedding(module: nn.Module) -> bool:
    """Whether a convolution cuts its input into patches that neither overlap nor leave gaps."""
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == module.stride
        and module.kernel_size[0] == module.kernel_size[1]
        and module.padding in ("valid", (0, 0))
        and module.groups == 1
    )


class ChunkedTower(nn.Module):
    """A SigLIP tower that sees few frames at a time and keeps one hidden state instead of every layer's.

    LLaVA-OneVision reads the last layer's output before the final norm. Few frames fit the cache, and their
    activations are reused memory instead of new pages.
    """

    def __init__(self, tower: nn.Module, images: int) -> None:
        super().__init__()
        tower.post_layernorm = nn.Identity()  # its output would be thrown away
        self.tower: Any = tower
        self.images = images

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> Any:
        """pixel_values [n,3,S,S] -> transformers' output with ``hidden_states`` of the last layer only."""
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        options = {**kwargs, "output_hidden_states": False, "return_dict": True}
        parts = [self.tower(part, **options).last_hidden_state for part in torch.split(pixel_values, self.images)]
        states = parts[0] if len(parts) == 1 else torch.cat(parts)
        return BaseModelOutputWithPooling(last_hidden_state=states, hidden_states=(states,))
