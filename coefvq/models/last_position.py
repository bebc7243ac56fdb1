"""A decoder's last layer, computed for the position that is read: exact, in training and in inference.

All positions give keys and values; the last one alone has a query and goes through the MLP, as in decoding with a
cache. transformers' own layer computes it and finds the other keys in place of its cache. Parameter names stay.
"""

from __future__ import annotations

import sys
from types import MethodType
from typing import Any

import torch
from torch import nn

#: keyword for the decoder's forward that asks for it; without it the layer does what it always did
ASK = "last_position_only"


def teach_last_layer(decoder: Any) -> None:
    """Let the last layer of a transformers decoder understand ``last_position_only=True``."""
    layer = decoder.layers[-1]
    layer.forward = MethodType(_forward, layer)


def _forward(layer: Any, hidden_states: torch.Tensor, **options: Any) -> torch.Tensor:
    """hidden_states [B,S,D] -> [B,S,D], or [B,1,D] where the caller needs the last position only."""
    last_only = options.pop(ASK, False)
    rotary = options.get("position_embeddings")
    # under activation checkpointing transformers drops every cache from a layer's arguments
    recomputed = bool(getattr(layer, "gradient_checkpointing", False)) and layer.training
    cached = options.get("past_key_values") is not None
    if not last_only or recomputed or rotary is None or cached or hidden_states.shape[1] == 1:
        whole: torch.Tensor = type(layer).forward(layer, hidden_states, **options)
        return whole
    cos, sin = rotary
    mask = options.get("attention_mask")
    changed = {
        "attention_mask": mask[..., -1:, :] if isinstance(mask, torch.Tensor) and mask.dim() == 4 else mask,
        "position_embeddings": (cos[:, -1:], sin[:, -1:]),
        "past_key_values": _earlier(layer, hidden_states[:, :-1], cos[:, :-1], sin[:, :-1]),
        "use_cache": False,
    }
    if options.get("position_ids") is not None:
        changed["position_ids"] = options["position_ids"][:, -1:]
    last: torch.Tensor = type(layer).forward(layer, hidden_states[:, -1:], **options | changed)
    return last


class _Earlier:
    """Keys and values [B,G,S-1,d] of all positions but the last, with the one method of a cache that is called."""

    def __init__(self, key: torch.Tensor, value: torch.Tensor) -> None:
        self._key, self._value = key, value

    def update(self, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """The last position's key and value behind the earlier ones."""
        return torch.cat([self._key, key], dim=2), torch.cat([self._value, value], dim=2)


def _earlier(layer: nn.Module, hidden_states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> _Earlier:
    attention: Any = layer.self_attn
    states = layer.input_layernorm(hidden_states)  # type: ignore[operator]
    shape = (*states.shape[:-1], -1, attention.head_dim)
    key = attention.k_proj(states).view(shape).transpose(1, 2)
    value = attention.v_proj(states).view(shape).transpose(1, 2)
    rotate = sys.modules[type(attention).__module__].apply_rotary_pos_emb
    return _Earlier(rotate(key, key, cos, sin)[1], value)
