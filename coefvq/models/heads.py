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


def masked_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, class_weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean cross-entropy over the labels that are there; ``MISSING_LABEL`` marks the others.

    logits [B,2] with labels [B], or [B,K,2] with [B,K]; class_weight [2] or, per issue, [K,2]. The mean is
    weighted as in torch: divided by the sum of the weights of the labels that are there. A batch without any
    gives 0 with a gradient path through every logit, so that no rank of a distributed step stays away.
    """
    log_probability = logits.float().log_softmax(dim=-1)
    there = labels != MISSING_LABEL
    classes = labels.masked_fill(~there, 0).unsqueeze(-1)
    weight = log_probability.new_ones(2) if class_weight is None else class_weight.to(log_probability)
    weights = weight.expand(log_probability.shape).gather(-1, classes).squeeze(-1) * there
    losses = -log_probability.gather(-1, classes).squeeze(-1) * weights
    return losses.sum() / weights.sum().clamp(min=torch.finfo(torch.float32).tiny)
