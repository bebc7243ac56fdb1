"""Linear layers with weights laid out for oneDNN, and with the activation or the three projections joined.

``torch.ops.mkldnn._linear_pointwise`` is what torch.compile itself emits for such layers. It is private, so it is
looked up at run time; without it the same modules compute the same numbers in the plain way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

_NONE = ("none", "")
# transformers' and torch's activation classes -> oneDNN's post-operation and its algorithm
_ACTIVATIONS = {
    "GELU": ("gelu", "none"),
    "GELUActivation": ("gelu", "none"),
    "GELUTanh": ("gelu", "tanh"),
    "SiLU": ("swish", ""),
    "SiLUActivation": ("swish", ""),
}
_PLAIN: dict[tuple[str, str], Callable[[torch.Tensor], torch.Tensor]] = {
    _NONE: lambda x: x,
    ("gelu", "none"): nn.functional.gelu,
    ("gelu", "tanh"): lambda x: nn.functional.gelu(x, approximate="tanh"),
    ("swish", ""): nn.functional.silu,
}
_HALF_SUPPORT = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
# a linear layer and the activation that alone reads it, by attribute, in transformers' MLPs and projectors
_ACTIVATED = (("fc1", "activation_fn"), ("linear_1", "act"), ("gate_proj", "act_fn"))
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")


def has_onednn() -> bool:
    """Whether this torch was built with oneDNN."""
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def private_op(name: str) -> Any | None:
    """``torch.ops.mkldnn.<name>``, or None in a torch that has no such operation."""
    if not has_onednn():
        return None
    return getattr(torch.ops.mkldnn, name, None)


def packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN lays out weights of this type here: half precision needs more than AVX2 of the processor."""
    if private_op("_reorder_linear_weight") is None or private_op("_linear_pointwise") is None:
        return False
    if dtype == torch.float32:
        return True
    supported = private_op(_HALF_SUPPORT[dtype]) if dtype in _HALF_SUPPORT else None
    return supported is not None and bool(supported())


class PackedLinear(nn.Module):
    """A ``Linear`` and the activation after it as one operation; [..., in] -> [..., out]."""

    def __init__(self, linear: nn.Linear, activation: tuple[str, str] = _NONE) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.activation = activation
        self.bias = linear.bias
        reorder, self._compute = private_op("_reorder_linear_weight"), private_op("_linear_pointwise")
        self.packed = packs(linear.weight.dtype)
        weight = linear.weight.detach().contiguous()
        # an opaque layout: neither a parameter nor a buffer can hold it
        self._weight = reorder(weight) if self.packed and reorder is not None else weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., in_features] -> activation(x W^T + b) [..., out_features]."""
        if self.packed and self._compute is not None:
            name, algorithm = self.activation
            found: torch.Tensor = self._compute(x, self._weight, self.bias, name, [], algorithm)
            return found
        return _PLAIN[self.activation](nn.functional.linear(x, self._weight, self.bias))

    @property
    def weight(self) -> torch.Tensor:
        """The weight in whatever layout it has, for those who ask its type."""
        return self._weight

    def extra_repr(self) -> str:
        """For print."""
        return f"{self.in_features}, {self.out_features}, activation={self.activation[0]}, packed={self.packed}"


def pack_linears(network: nn.Module) -> int:
    """Replace every plain ``Linear`` (with its activation where one follows); how many were replaced."""
    count = 0
    for module, linear_name, activation_name in _activated(network):
        activation = _ACTIVATIONS[type(getattr(module, activation_name)).__name__]
        setattr(module, linear_name, PackedLinear(getattr(module, linear_name), activation))
        setattr(module, activation_name, nn.Identity())
        count += 1
    for module, name, linear in list(plain_linears(network)):
        setattr(module, name, PackedLinear(linear))
        count += 1
    return count


def plain_linears(network: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """Parent, attribute and layer of each ``nn.Linear`` that is nothing more than that; adapters' own are left out."""
    for module in list(network.modules()):
        if isinstance(module, nn.ModuleDict):  # peft keeps A and B in these, and looks at their weights
            continue
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                yield module, name, child


def _activated(network: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    for module in list(network.modules()):
        for linear_name, activation_name in _ACTIVATED:
            activation = getattr(module, activation_name, None)
            plain = type(getattr(module, linear_name, None)) is nn.Linear
            if plain and type(activation).__name__ in _ACTIVATIONS:
                yield module, linear_name, activation_name
