"""Logits of one or several heads: [B, 2] of a single issue, [B, K, 2] of K issues that share one MLLM."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from coefvq.errors import ModelError

#: label of a video that nobody judged for an issue, torch's own ``ignore_index``
MISSING_LABEL = -100


def head_of(issues: Sequence[str], issue: str | None) -> int:
    """Number of the head that answers for ``issue``; a model of one issue needs no name.

    Raises:
        ModelError: no head answers for it, or there are several and none is named.
    """
    if issue is None and len(issues) == 1:
        return 0
    if issue is None or issue not in issues:
        raise ModelError(f"issue {issue!r}: the model answers for {', '.join(issues)}; name one of these")
    return list(issues).index(issue)


def probabilities_of(logits: torch.Tensor, issues: Sequence[str]) -> torch.Tensor:
    """Logits [B,2] or [B,K,2] -> P(positive) of K issues, float64 [B,K].

    Raises:
        ModelError: there are not as many heads as issues.
    """
    heads = 1 if logits.dim() == 2 else logits.shape[1]
    if heads != len(issues):
        raise ModelError(f"the model of {', '.join(issues)} has {heads} head(s); expected one for each")
    return logits.double().softmax(dim=-1).view(len(logits), heads, -1)[:, :, 1]
