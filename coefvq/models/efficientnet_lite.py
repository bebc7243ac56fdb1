"""EfficientNet-Lite: the CNN whose feature grid stands in for SigLIP in the preset ``starter``.

Architecture: Tan & Le, EfficientNet (2019), in the "lite" form of the TPU authors: no squeeze-and-excite,
ReLU6, first and last stage not deepened. transformers has the full EfficientNet only, and timm needs
torchvision. Input is (x - 127) / 128 of uint8 RGB.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from coefvq.models.fast.convolution import FusedConvolution, fuses, missing_pixels

# (repeats, kernel, stride, expansion, channels) of EfficientNet-B0's stages
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD = 32, 1280
#: pixels that go through at once without a gradient: the activations of more leave the processor's cache
_CHUNK_PIXELS = 16 * 160 * 160


@dataclass(frozen=True)
class EfficientNetLiteSizes:
    """Width and depth multipliers; Lite2 is 1.1 and 1.2 at 260 px."""

    width: float
    depth: float


class SamePad(nn.Module):
    """TensorFlow's "same" padding: the odd pixel goes to the right and the bottom."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B,C,H,W] -> padded [B,C,H',W']."""
        height, width = (missing_pixels(size, self.kernel, self.stride) for size in x.shape[-2:])
        return nn.functional.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))


class ConvNorm(nn.Sequential):
    """ "Same" padding, convolution, batch norm and, where it is asked for, ReLU6; [B,C,H,W] -> [B,C',H',W'].

    Without a gradient on the CPU all this is one operation of oneDNN in float32 (``FusedConvolution``). In another
    precision the norm is folded into the convolution's weights, a 1 x 1 convolution is a matrix product, and odd
    kernels of stride 1 pad by themselves. Both give the same numbers to rounding (docs/performance.md), and the
    weights are always those of now.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True
    ) -> None:
        layers: list[nn.Module] = [
            SamePad(kernel, stride),
            nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01),
        ]
        super().__init__(*layers, *([nn.ReLU6()] if act else []))
        self._fused: FusedConvolution | None = None

    def __getstate__(self) -> dict[str, Any]:
        # packed weights have an opaque layout, which neither copies nor pickles
        return {**self.__dict__, "_fused": None}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B,C,H,W] -> [B,C',ceil(H/stride),ceil(W/stride)]."""
        if self.training or torch.is_grad_enabled() or x.device.type != "cpu":
            return cast(torch.Tensor, super().forward(x))  # type: ignore[no-untyped-call]
        if x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu"):
            fused = self._fused_now()
            if fused is not None:
                return fused(x)
        y = self._folded(x)
        return y.clamp_(0.0, 6.0) if len(self) == 4 else y

    def _fused_now(self) -> FusedConvolution | None:
        conv, norm = cast(nn.Conv2d, self[1]), cast(nn.BatchNorm2d, self[2])
        if self._fused is None or not self._fused.of_now():
            self._fused = FusedConvolution(conv, norm, act=len(self) == 4) if fuses(conv) else None
        return self._fused

    def _folded(self, x: torch.Tensor) -> torch.Tensor:
        conv, norm = cast(nn.Conv2d, self[1]), cast(nn.BatchNorm2d, self[2])
        mean, variance = cast(torch.Tensor, norm.running_mean), cast(torch.Tensor, norm.running_var)
        weight, bias = fuse_conv_bn_weights(conv.weight, None, mean, variance, norm.eps, norm.weight, norm.bias)
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        if kernel == stride == 1:
            # in channels_last this permutation moves nothing
            return nn.functional.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)
        if stride == 1 and kernel % 2:
            return nn.functional.conv2d(x, weight, bias, padding=kernel // 2, groups=conv.groups)
        return nn.functional.conv2d(self[0](x), weight, bias, stride, groups=conv.groups)


class InvertedResidual(nn.Module):
    """Expand, depthwise, project; the input is added where shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = ConvNorm(inputs, inner, 1) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(inner, inner, kernel, stride, groups=inner)
        self.project = ConvNorm(inner, outputs, 1, act=False)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B,C,H,W] -> [B,C',H/stride,W/stride]."""
        y: torch.Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.adds else y


class EfficientNetLite(nn.Module):
    """Feature grid, without the published classifier."""

    def __init__(self, sizes: EfficientNetLiteSizes) -> None:
        super().__init__()
        self.stem = ConvNorm(3, _STEM, 3, 2)
        blocks: list[nn.Module] = []
        channels = _STEM
        for place, (repeats, kernel, stride, expansion, base) in enumerate(_STAGES):
            outputs = round_channels(base * sizes.width)
            ends = place in (0, len(_STAGES) - 1)
            for index in range(repeats if ends else math.ceil(repeats * sizes.depth)):
                blocks.append(InvertedResidual(channels, outputs, kernel, stride if index == 0 else 1, expansion))
                channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = ConvNorm(channels, _HEAD, 1)
        self.output_size = _HEAD
        # depthwise layers read their neighbours in this layout without being laid out anew
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B,3,H,W] -> [B,1280,ceil(H/32),ceil(W/32)]."""
        x = x.contiguous(memory_format=torch.channels_last)
        at_once = max(1, _CHUNK_PIXELS // (x.shape[-2] * x.shape[-1]))
        # a gradient keeps the activations anyway, and batch statistics are those of the whole batch
        if x.device.type != "cpu" or self.training or torch.is_grad_enabled() or len(x) <= at_once:
            return self._grid(x)
        return torch.cat([self._grid(part) for part in torch.split(x, at_once)])

    def _grid(self, x: torch.Tensor) -> torch.Tensor:
        grid: torch.Tensor = self.head(self.blocks(self.stem(x)))
        return grid


def round_channels(wanted: float, divisor: int = 8) -> int:
    """Nearest multiple of ``divisor``, never more than 10 % below ``wanted`` (MobileNet's rule)."""
    rounded = max(divisor, int(wanted + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * wanted else rounded
