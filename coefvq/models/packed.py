"""Frozen linear layers whose weights lie as oneDNN wants them, forward and backward, while a block runs.

LoRA leaves nearly all weights of a decoder as they are, and frozen towers all of theirs. PyTorch's CPU build hands a
float32 product to MKL with the weight as it comes; oneDNN with a weight that was laid out once was faster where it
was measured (docs/performance.md). The product is the same to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch
from torch import nn

from coefvq.models.fast.linear import private_op

#: below this many weights Python's share of the time is larger than what is gained
_MIN_WEIGHTS = 2**14


class FrozenLinear(nn.Module):
    """``linear``, whose weight does not train: same names, same numbers to rounding; [..., in] -> [..., out]."""

    def __init__(self, linear: nn.Linear, reorder: Any, multiply: Any) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self._reorder, self._multiply = reorder, multiply
        # an opaque layout, so neither parameter nor buffer; the transposed one is made when a gradient asks for it
        self._packed = self._reorder(self.weight.detach().contiguous())
        self._transposed: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x W^T + b."""
        if torch.is_grad_enabled() and x.requires_grad:
            product: torch.Tensor = _Product.apply(x, self)  # type: ignore[no-untyped-call]
            return product
        return self.product(x)

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """x W^T + b, without a graph."""
        result: torch.Tensor = self._multiply(x, self._packed, self.bias, "none", [], "")
        return result

    def product_of_gradient(self, gradient: torch.Tensor) -> torch.Tensor:
        """g W, the gradient of the layer's input."""
        if self._transposed is None:
            self._transposed = self._reorder(self.weight.detach().t().contiguous())
        result: torch.Tensor = self._multiply(gradient.contiguous(), self._transposed, None, "none", [], "")
        return result


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: FrozenLinear) -> torch.Tensor:
        ctx.layer = layer
        return layer.product(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.layer.product_of_gradient(gradient), None


@contextmanager
def packed_frozen(modules: Iterable[nn.Module]) -> Iterator[int]:
    """Within the block, large frozen float32 ``nn.Linear`` layers on the CPU are packed; yields how many.

    Not for use under autocast, which would no longer lower their precision. Parameters keep their names.
    """
    reorder, multiply = private_op("_reorder_linear_weight"), private_op("_linear_pointwise")
    before = [(module, dict(module._modules)) for root in modules for module in root.modules()]
    count = 0
    try:
        for module, children in before if reorder is not None and multiply is not None else ():
            for name, child in children.items():
                if _can_pack(child):
                    module._modules[name] = FrozenLinear(child, reorder, multiply)
                    count += 1
        yield count
    finally:
        for module, children in before:
            module._modules.update(children)


def _can_pack(child: nn.Module | None) -> TypeGuard[nn.Linear]:
    if type(child) is not nn.Linear or child.weight.requires_grad or child.weight.numel() < _MIN_WEIGHTS:
        return False
    trains = child.bias is not None and child.bias.requires_grad
    return not trains and child.weight.dtype == torch.float32 and child.weight.device.type == "cpu"
