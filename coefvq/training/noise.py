"""Noise on what the projector reads, while it trains: a small set of clips is then seen a little differently each time.

The hook stands before the projector, so that cached features and decoded clips are treated alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from coefvq.errors import ModelError
from coefvq.models.mllm import MultimodalLLM


@dataclass(frozen=True)
class FeatureNoise:
    """Gaussian noise of so many standard deviations of each number over the batch, then a share of numbers set to 0."""

    deviation: float = 0.0
    dropout: float = 0.0

    @property
    def is_off(self) -> bool:
        """Whether nothing changes."""
        return self.deviation == 0.0 and self.dropout == 0.0

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """[...,D] -> [...,D]; draws from torch's global generator, which a resumed training puts back."""
        values = features.float()
        if self.deviation > 0.0:
            spread = values.flatten(0, -2).std(dim=0, correction=0)
            values = values + self.deviation * spread * torch.randn_like(values)
        return nn.functional.dropout(values, self.dropout)


@contextmanager
def noisy_features(network: nn.Module, noise: FeatureNoise) -> Iterator[None]:
    """Within the block the projector of vision reads noisy features whenever it is in training mode.

    Raises:
        ModelError: there is noise, and no projector that trains.
    """
    if noise.is_off:
        yield
        return
    projector = network.vision.projector if isinstance(network, MultimodalLLM) else None
    if projector is None or not any(parameter.requires_grad for parameter in projector.parameters()):
        raise ModelError("mllm.feature_noise, feature_dropout: no projector trains on the features; set both to 0")

    def disturb(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        return (noise(inputs[0]), *inputs[1:]) if module.training else None

    hook = projector.register_forward_pre_hook(disturb)
    try:
        yield
    finally:
        hook.remove()
