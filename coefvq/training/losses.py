"""Losses for a rare class and for several issues, some without a label.

Cross-entropy, focal loss (Lin et al. 2017, eq. 5) and logit adjustment (Menon et al. 2021, eq. 10), each with class
weights. A label of -100 is missing: it is left out, as in torch's own losses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from coefvq.config.models import LOSS_NAMES
from coefvq.errors import ConfigError, DataError
from coefvq.extensions import LOSSES, extension
from coefvq.models.heads import MISSING_LABEL
from coefvq.training.ranks import summed, world_size

Labels = Sequence[int] | Sequence[Sequence[int]]


@dataclass(frozen=True)
class LossSpec:
    """Which loss, with what weight on the positive class (the negative class has 1)."""

    kind: str = "cross_entropy"  # of config.models.LOSS_NAMES, or one that a package registers
    positive_weight: float = 1.0
    focal_gamma: float = 2.0


class ClassificationLoss(nn.Module):
    """Mean loss over labelled examples, weighted by class, then over issues.

    ``prior`` [K,2] are the shares of the classes in training, for ``logit_adjusted``.
    """

    def __init__(self, spec: LossSpec, prior: torch.Tensor) -> None:
        super().__init__()
        self.spec = spec
        self._own = None if spec.kind in LOSS_NAMES else extension(LOSSES, spec.kind)
        self.class_weight: torch.Tensor
        self.log_prior: torch.Tensor
        self.register_buffer("class_weight", torch.tensor([1.0, spec.positive_weight]), persistent=False)
        self.register_buffer("log_prior", prior.float().log(), persistent=False)

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """logits [B,2] with labels [B], or [B,K,2] with [B,K] -> scalar.

        An issue without any label contributes a zero that stays in the graph, so that every rank of a distributed
        step has gradients for the same parameters. On several ranks the means are those of the whole batch.
        """
        logits = logits.float().reshape(len(labels), -1, logits.shape[-1])
        labels = labels.reshape(len(labels), -1)
        issues = range(labels.shape[1])
        sums = torch.stack([self._sum(logits[:, k], labels[:, k], k) for k in issues])
        weights = torch.stack([self._weight(labels[:, k]) for k in issues])
        if self.training:
            # the whole batch's over the number of ranks, because gradients are averaged over them
            weights = summed(weights) / world_size()
        means = torch.where(weights > 0, sums / weights.where(weights > 0, 1.0), 0.0 * sums)
        return means.mean()

    def _sum(self, logits: torch.Tensor, labels: torch.Tensor, issue: int) -> torch.Tensor:
        if self.spec.kind == "logit_adjusted":
            logits = logits + self.log_prior[issue]
        if self._own is not None:
            return self._sum_of_own(logits, labels, self._own)
        if self.spec.kind != "focal":
            return cross_entropy(logits, labels, self.class_weight, ignore_index=MISSING_LABEL, reduction="sum")
        loss = cross_entropy(logits, labels, ignore_index=MISSING_LABEL, reduction="none")
        known = labels != MISSING_LABEL
        weight = torch.where(known, self.class_weight[labels.where(known, 0)], 0.0)
        # -log p = loss, so 1 - p = 1 - exp(-loss), without a cancellation where p is near 1; away from 0, where a
        # power below 1 has no gradient
        missed = (-torch.expm1(-loss)).clamp(min=1e-12)
        return (weight * missed**self.spec.focal_gamma * loss).sum()

    def _sum_of_own(self, logits: torch.Tensor, labels: torch.Tensor, own: Callable[..., torch.Tensor]) -> torch.Tensor:
        """Of a package's loss: logits [n,2] and labels [n] of the labelled examples -> losses [n]."""
        known = labels != MISSING_LABEL
        if not known.any():
            return 0.0 * logits.sum()
        losses = own(logits[known], labels[known])
        if not isinstance(losses, torch.Tensor) or losses.shape != (int(known.sum()),):
            shape = tuple(losses.shape) if isinstance(losses, torch.Tensor) else type(losses).__name__
            raise ConfigError(
                f"loss {self.spec.kind!r}: returned {shape}; expected a loss per example, [{known.sum()}]"
            )
        return (self.class_weight[labels[known]] * losses).sum()

    def _weight(self, labels: torch.Tensor) -> torch.Tensor:
        known = labels != MISSING_LABEL  # a selection through a mask would make the host wait for the GPU
        return torch.where(known, self.class_weight[labels.where(known, 0)], 0.0).sum()


def class_prior(labels: Labels) -> torch.Tensor:
    """Shares of both classes among the labelled examples of each issue: float64 [K,2].

    An issue without examples of a class gets half an example of it, so that the logarithm exists.
    """
    table = label_table(labels)
    counts = torch.tensor([[np.count_nonzero(column == c) for c in (0, 1)] for column in table.T], dtype=torch.float64)
    counts = counts.clamp(min=0.5)
    return counts / counts.sum(dim=1, keepdim=True)


def label_table(labels: Labels) -> np.ndarray:
    """Labels as int64 [N,K].

    Raises:
        DataError: a label is none of 0, 1 and -100.
    """
    table = np.asarray(labels, dtype=np.int64).reshape(len(labels), -1)
    if not np.isin(table, (0, 1, MISSING_LABEL)).all():
        raise DataError("labels for training: expected 0, 1 or -100 (missing)")
    return table
