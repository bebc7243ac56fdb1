"""Savings that change the answer: int8 weights, pooled visual tokens, fewer frames, a shorter stretch of sound."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from coefvq.models.classifier import Classifier
from coefvq.models.fast.linear import plain_linears
from coefvq.models.vision import visual_tokens

_ENGINE = "onednn"


class Int8Linear(nn.Module):
    """Weights as int8 per output channel, inputs as uint8 per call (dynamic quantisation), sums in int32.

    Computed by torch's quantised ``linear_dynamic`` on oneDNN; float32 or bfloat16 [..., in] -> [..., out].
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(dim=1).clamp(min=1e-8) / 127
        zero = torch.zeros(len(weight), dtype=torch.long)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch announces that this maker of quantised tensors will move
            quantised = torch.quantize_per_channel(weight, scale, zero, 0, torch.qint8)
        before, torch.backends.quantized.engine = torch.backends.quantized.engine, _ENGINE
        try:
            bias = None if linear.bias is None else linear.bias.detach().float()
            self._packed = torch.ops.quantized.linear_prepack(quantised, bias)
        finally:
            torch.backends.quantized.engine = before

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., in_features] -> about x W^T + b, in the type of x."""
        product: torch.Tensor = torch.ops.quantized.linear_dynamic(
            x.float(), self._packed, reduce_range=sums_saturate()
        )
        return product.to(x.dtype)


def sums_saturate() -> bool:
    """Whether two products of uint8 and int8 are added in int16 here, which clips: processors without VNNI.

    Seven bits per input leave room for the sum (oneDNN's documented remedy); the answer is a little coarser.
    """
    vnni = getattr(torch.cpu, "_is_vnni_supported", None)
    return vnni is None or not vnni()


def int8_possible() -> bool:
    """Whether this torch has the quantised product on oneDNN."""
    return _ENGINE in torch.backends.quantized.supported_engines


def quantise(network: nn.Module) -> int:
    """Replace every plain ``Linear`` below ``network``; how many were replaced."""
    found = list(plain_linears(network))
    for parent, name, linear in found:
        setattr(parent, name, Int8Linear(linear))
    return len(found)


class PooledTokens(nn.Module):
    """A vision branch whose token grid of each image is averaged over cells of ``factor`` by ``factor``."""

    def __init__(self, branch: Any, factor: int) -> None:
        super().__init__()
        self.branch = branch
        self.factor = factor
        side = self.side = math.isqrt(branch.tokens_per_frame)
        self.tokens_per_frame = (-(-side // factor)) ** 2
        self.extra_tokens: int = branch.extra_tokens

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """pixel_values [B,F,3,S,S] -> H_f [B, images * tokens_per_frame + extra, D_lm]."""
        tokens = self.branch(pixel_values)
        batch, count, width = tokens.shape
        seen, rest = tokens.split([count - self.extra_tokens, self.extra_tokens], dim=1)
        grid = seen.reshape(-1, self.side, self.side, width).permute(0, 3, 1, 2)
        pooled = nn.functional.avg_pool2d(grid, self.factor, ceil_mode=True)
        cells = pooled.flatten(2).transpose(1, 2).reshape(batch, -1, width)
        return torch.cat([cells, rest], dim=1)


def pool_tokens(classifier: Classifier, factor: int) -> Classifier:
    """Fewer visual tokens for the language model; the network's count of them follows."""
    network: Any = classifier.network
    old = network.vision
    images = (network.visual_tokens - old.extra_tokens) // old.tokens_per_frame
    network.vision = PooledTokens(old, factor)
    network.visual_tokens = images * network.vision.tokens_per_frame + old.extra_tokens
    return classifier


def fewer_frames(classifier: Classifier, frames: int) -> Classifier:
    """Decode and look at ``frames`` frames, evenly spread as before."""
    network: Any = classifier.network
    if hasattr(network, "visual_tokens"):
        network.visual_tokens = visual_tokens(network.vision, frames)
    return _with_media(classifier, frames=frames)


def shorter_sound(classifier: Classifier, seconds: float) -> Classifier:
    """Hear the first ``seconds`` only: Whisper's positions are cut to them."""
    encoder: Any = classifier.network.audio.encoder  # type: ignore[union-attr]
    encoder.positional_embedding = encoder.positional_embedding[: round(seconds * 50)].clone()
    return _with_media(classifier, audio_seconds=seconds)


def _with_media(classifier: Classifier, **changes: Any) -> Classifier:
    media = classifier.config.media.model_copy(update=changes)
    return replace(classifier, config=classifier.config.model_copy(update={"media": media}))
