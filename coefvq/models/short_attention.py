"""Attention of short sequences while a model trains in bfloat16 on a CPU: whole matrix products.

torch's flash kernel multiplies head by head and tile by tile. At the 60 tokens of a clip its backward pass alone took
a fifth of a step of ``starter``'s MLLM (docs/performance.md); all heads of a batch in one product take a part of that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from coefvq.models.fast.attention import causal_of, scale_of, through_sdpa

SHORT = "coefvq_short"
#: positions up to which whole products were faster; their scores are kept for the backward pass, so memory grows
#: with the square
LONGEST = 256


@contextmanager
def short_attention(network: nn.Module) -> Iterator[None]:
    """Within the block, transformers models in ``network`` that use SDPA train on short sequences by whole products."""
    from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(SHORT, short_forward)
    AttentionMaskInterface.register(SHORT, sdpa_mask)
    changed = [
        module
        for module in network.modules()
        if isinstance(module, PreTrainedModel) and module.config._attn_implementation == "sdpa"
    ]
    try:
        for module in changed:
            module.set_attn_implementation(SHORT)
        yield
    finally:
        for module in changed:
            module.set_attn_implementation("sdpa")


def short_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """query [B,H,S,d], key and value [B,G,K,d], boolean mask [B,1,S,K] or None -> [B,S,H,d].

    Without a gradient, with dropout, beyond ``LONGEST`` keys, outside CPU autocast: transformers' SDPA.
    """
    suits = query.device.type == "cpu" and torch.is_autocast_enabled("cpu") and key.shape[2] <= LONGEST
    plain_mask = attention_mask is None or attention_mask.dtype == torch.bool
    if dropout or not suits or not plain_mask or not torch.is_grad_enabled():
        return through_sdpa(module, query, key, value, attention_mask, dropout, scaling, is_causal, **kwargs)
    ratio = query.shape[1] // key.shape[1]
    if ratio > 1:  # query heads that share a key head lie side by side
        key, value = key.repeat_interleave(ratio, dim=1), value.repeat_interleave(ratio, dim=1)
    scores = query @ key.transpose(2, 3) * scale_of(query, scaling)
    if attention_mask is None and causal_of(module, is_causal) and query.shape[2] > 1:
        attention_mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril()
    if attention_mask is not None:
        # not -inf: a row that sees nothing, as padding does, must stay finite
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    shares = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
    return (shares @ value).transpose(1, 2).contiguous(), None
