"""Logits of one or several heads: [B, 2] of a single issue, [B, K, 2] of K issues that share one MLLM."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from coefvq.errors import ModelError

#: label of a video that nobody judged for an issue, torch's own ``ignore_index``
MISSING_LABEL = -100


def logits_of(logits: torch.Tensor, issues: Sequence[str], issue: str) -> torch.Tensor:
    """Logits [B,2] or [B,K,2] with K = len(issues) -> those of ``issue``, [B,2].

    Raises:
        ModelError: no head answers for ``issue``, or there are not as many heads as issues.
    """
    heads = 1 if logits.dim() == 2 else logits.shape[1]
    if issue not in issues or heads != len(issues):
        raise ModelError(
            f"issue {issue!r}: the model answers for {', '.join(issues)} with {heads} head(s); name one of these"
        )
    return logits if logits.dim() == 2 else logits[:, list(issues).index(issue)]


def probability_of(logits: torch.Tensor, issues: Sequence[str], issue: str) -> torch.Tensor:
    """P(positive) of ``issue``, float64 [B]; arguments and errors as of ``logits_of``."""
    return logits_of(logits, issues, issue).double().softmax(dim=-1)[:, 1]
