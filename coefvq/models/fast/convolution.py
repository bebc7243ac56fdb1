"""A convolution, its batch norm and its ReLU6 as one operation of oneDNN, with weights laid out once.

``torch.ops.mkldnn._convolution_pointwise`` is what torch.compile itself emits for such layers. It is private, so it
is looked up at run time (``coefvq.models.fast.linear.private_op``). The result is the same to rounding.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from coefvq.models.fast.linear import private_op

_RELU6 = ("hardtanh", [0.0, 6.0], "")
_NONE: tuple[str, list[float], str] = ("none", [], "")
#: shapes of inputs for which weights are kept; a video's images come in one or two
_MAX_SHAPES = 8


class FusedConvolution:
    """``conv``, ``norm`` and, with ``act``, ReLU6, with "same" padding as TensorFlow has it; float32 on the CPU.

    The weights are those of the moment: ``of_now`` says whether a parameter or a statistic changed since then.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, act: bool) -> None:
        self._conv, self._norm = conv, norm
        self._state = _state(conv, norm)
        mean, variance = cast(torch.Tensor, norm.running_mean), cast(torch.Tensor, norm.running_var)
        weight, bias = fuse_conv_bn_weights(conv.weight, None, mean, variance, norm.eps, norm.weight, norm.bias)
        self._weight, self._bias = weight.detach(), bias.detach()
        self._post = _RELU6 if act else _NONE
        self._packed: dict[tuple[int, ...], tuple[Any, list[int]]] = {}

    def of_now(self) -> bool:
        """Whether the weights are certainly still the module's; tensors made in inference mode count no changes."""
        return self._state is not None and self._state == _state(self._conv, self._norm)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[B,C,H,W] -> [B,C',ceil(H/stride),ceil(W/stride)], both in channels_last."""
        shape = tuple(x.shape)
        if shape not in self._packed:
            if len(self._packed) >= _MAX_SHAPES:
                self._packed.clear()
            self._packed[shape] = self._pack(shape)
        weight, padding = self._packed[shape]
        stride, groups = list(self._conv.stride), self._conv.groups
        multiply = torch.ops.mkldnn._convolution_pointwise
        result: torch.Tensor = multiply(x, weight, self._bias, padding, stride, [1, 1], groups, *self._post)
        return result

    def _pack(self, shape: tuple[int, ...]) -> tuple[Any, list[int]]:
        """Weights for inputs of ``shape``, and the padding of both sides in pixels.

        Where "same" pads one pixel more at the end than at the start, the kernel gets a first row or column of
        zeros: padding is then alike on both sides and no padded copy of the input is needed.
        """
        padding, zeros = [], []
        for size, kernel, step in zip(shape[-2:], self._conv.kernel_size, self._conv.stride, strict=True):
            needed = missing_pixels(size, kernel, step)
            padding.append(needed - needed // 2)
            zeros.append(needed % 2)
        weight = nn.functional.pad(self._weight, (zeros[1], 0, zeros[0], 0))
        reorder = torch.ops.mkldnn._reorder_convolution_weight
        stride, groups = list(self._conv.stride), self._conv.groups
        return reorder(weight, padding, stride, [1, 1], groups, list(shape)), padding


def missing_pixels(size: int, kernel: int, stride: int) -> int:
    """How many pixels "same" padding adds to a side of ``size``, both ends together."""
    return max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)


def fuses(conv: nn.Conv2d) -> bool:
    """Whether this torch has the operation for ``conv``."""
    found = all(private_op(name) is not None for name in ("_convolution_pointwise", "_reorder_convolution_weight"))
    return found and conv.weight.dtype == torch.float32


def _tensors(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> list[torch.Tensor]:
    return [
        conv.weight,
        norm.weight,
        norm.bias,
        cast(torch.Tensor, norm.running_mean),
        cast(torch.Tensor, norm.running_var),
    ]


def _state(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> list[tuple[int, int]] | None:
    """Changes when a tensor is replaced or written to; None where that cannot be seen."""
    tensors = _tensors(conv, norm)
    if any(tensor.is_inference() for tensor in tensors):
        return None
    return [(tensor.data_ptr(), tensor._version) for tensor in tensors]
