"""Attention functions that are registered with transformers and chosen by name, as its own ones are.

``coefvq_blocked`` multiplies a block of queries with the keys it may see by oneDNN's matrix product, takes the
softmax and multiplies with the values. torch's own flash kernel for CPUs multiplies tiles of 32 by 512 one by one,
which is fast where the CPU has matrix tiles (AMX) and slow in bfloat16 where it has none.

``coefvq_padded`` pads keys and values with masked positions to a length that the flash kernel packs for AMX.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

BLOCKED, PADDED = "coefvq_blocked", "coefvq_padded"
_ROWS_CAUSAL, _ROWS = 448, 768  # rows of one block: query positions times query heads per key head
_GROUPS = 4  # key heads per block; a block of scores should stay in the cache
_MULTIPLE = 16  # keys are padded to a multiple of this


def register() -> None:
    """Make the functions known to transformers; again is harmless."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    for name, function in ((BLOCKED, blocked_forward), (PADDED, padded_forward)):
        AttentionInterface.register(name, function)
        AttentionMaskInterface.register(name, sdpa_mask)


def blocked_forward(
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

    What it cannot do (gradients, dropout, other masks, one query) goes to transformers' SDPA.
    """
    plain_mask = attention_mask is None or (attention_mask.dtype == torch.bool and attention_mask.shape[1] == 1)
    if dropout or torch.is_grad_enabled() or not plain_mask or query.shape[2] == 1:
        return through_sdpa(module, query, key, value, attention_mask, dropout, scaling, is_causal, **kwargs)
    causal = causal_of(module, is_causal)
    # a mask made for a causal model is causal itself: keys behind a block need not be looked at either way
    causal = causal and query.shape[2] == key.shape[2]
    return blocked_attention(query, key, value, attention_mask, causal, scale_of(query, scaling)), None


def blocked_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    scale: float,
) -> torch.Tensor:
    """softmax(Q K^T * scale) V by blocks; shapes as in ``blocked_forward``.

    A row without any visible key gives the mean of the values, not NaN.
    """
    batch, heads, length, width = query.shape
    groups, keys = key.shape[1], key.shape[2]
    if not causal and (extra := -keys % _MULTIPLE):
        key, value = (nn.functional.pad(part, (0, 0, 0, extra)) for part in (key, value))
    ratio = heads // groups
    rows = max((_ROWS_CAUSAL if causal else _ROWS) // ratio, 1)
    output = query.new_empty(batch, length, heads, width)
    for b in range(batch):
        for start in range(0, length, rows):
            stop = min(start + rows, length)
            visible = stop if causal else keys
            part = None if mask is None else mask[b, 0, start:stop, :visible]
            for g in range(0, groups, _GROUPS):
                chosen = slice(g, min(g + _GROUPS, groups))
                these = slice(chosen.start * ratio, chosen.stop * ratio)
                ends = visible if causal else key.shape[2]
                block = _block(
                    query[b, these, start:stop].reshape(chosen.stop - chosen.start, -1, width),
                    key[b, chosen, :ends],
                    value[b, chosen, :ends],
                    _hidden(part, stop - start, start, visible, causal, query.device),
                    visible,
                    scale,
                )
                output[b, start:stop, these] = block.view(-1, stop - start, width).transpose(0, 1)
    return output


def _block(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    hidden: torch.Tensor | None,
    visible: int,
    scale: float,
) -> torch.Tensor:
    """query [g, r*m, d] (r heads share a key head), key and value [g, K, d] -> [g, r*m, d]."""
    lowest = torch.finfo(query.dtype).min  # not -inf: a row that sees nothing must stay finite
    scores = query.new_empty(*query.shape[:2], key.shape[1])
    torch.baddbmm(scores, query, key.transpose(1, 2), beta=0, alpha=scale, out=scores)
    if hidden is not None:
        by_head = scores.view(query.shape[0], -1, hidden.shape[0], scores.shape[-1])
        by_head[..., visible - hidden.shape[1] : visible].masked_fill_(hidden, lowest)
    if visible < scores.shape[-1]:
        scores[..., visible:] = float("-inf")
    torch.softmax(scores, dim=-1, out=scores)
    return torch.bmm(scores, value)


def _hidden(
    mask: torch.Tensor | None, rows: int, start: int, visible: int, causal: bool, device: torch.device
) -> torch.Tensor | None:
    """True where a key must not be seen, for the last columns up to ``visible``; None hides nothing."""
    if mask is not None:
        return ~mask
    if not causal or visible - start == 1:
        return None
    return torch.ones(rows, visible - start, dtype=torch.bool, device=device).triu_(1)


def padded_forward(
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
    """transformers' SDPA over keys padded to a multiple of 16; shapes as in ``blocked_forward``."""
    extra = -key.shape[2] % _MULTIPLE
    causal = causal_of(module, is_causal)
    if extra and attention_mask is None and not causal:
        bias = query.new_zeros(1, 1, 1, key.shape[2] + extra)
        bias[..., key.shape[2] :] = float("-inf")
        attention_mask = bias.expand(query.shape[0], 1, query.shape[2], -1)
        key, value = (nn.functional.pad(part, (0, 0, 0, extra)) for part in (key, value))
    return through_sdpa(module, query, key, value, attention_mask, dropout, scaling, is_causal, **kwargs)


def causal_of(module: nn.Module, is_causal: bool | None) -> bool:
    """Whether a layer looks back only, as transformers' SDPA decides it: the caller's word, else the layer's."""
    return bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)


def scale_of(query: torch.Tensor, scaling: float | None) -> float:
    """What scores are multiplied by; without a word of the caller 1/√d."""
    return float(query.shape[-1] ** -0.5) if scaling is None else scaling


def through_sdpa(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    query, key, value, mask, dropout, scaling, is_causal = args
    output: tuple[torch.Tensor, None] = sdpa_attention_forward(
        module, query, key, value, mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **kwargs
    )
    return output
