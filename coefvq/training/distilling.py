"""Teaching a base model what the MLLM says: the teacher's clamped logits as a second target beside the labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from coefvq.errors import DataError
from coefvq.models.attention_base import AttentionClassifier
from coefvq.training.objective import Collate, CollatedRows, TrainingSet, WithLoss, for_each_head
from coefvq.training.ranks import summed, world_size

#: probabilities nearer to 0 or 1 are taken as this near: logits within ±9.21
_CLAMP = 1e-4
_SCALED_ROWS = 2048  # videos that mean and standard deviation are taken from
_BATCH = 64


@dataclass(frozen=True)
class Lesson:
    """The teacher's ``logits`` [N] for the rows of the training set, NaN where it says nothing, and their weight.

    ``row_weights`` [N] are those of the rows among each other, 1 on average; None: all alike.
    """

    logits: torch.Tensor
    weight: float
    row_weights: torch.Tensor | None = None


def teacher_logits(probability: ArrayLike) -> NDArray[np.float64]:
    """P(positive) [N] of the teacher as clamped logits; NaN stays NaN.

    Raises:
        DataError: a value is no probability.
    """
    values = np.asarray(probability, dtype=np.float64)
    known = values[~np.isnan(values)]
    if ((known < 0.0) | (known > 1.0)).any():
        raise DataError("teacher: a score is no probability; run the stage teach again")
    clamped = np.clip(values, _CLAMP, 1.0 - _CLAMP)
    logits: NDArray[np.float64] = np.log(clamped) - np.log1p(-clamped)
    return logits


class WithTeacher(nn.Module):
    """Beside the labels, the difference of the two logits follows the teacher's by squared error.

    A row without a label has the teacher's loss alone, a row that the teacher does not know the label's alone.
    Validation knows labels only.
    """

    def __init__(self, labelled: WithLoss, lesson: Lesson) -> None:
        super().__init__()
        self.labelled, self.weight = labelled, lesson.weight
        device = next(labelled.network.parameters()).device
        self.teacher: torch.Tensor
        self.register_buffer("teacher", lesson.logits.float().to(device), persistent=False)
        rows = torch.ones_like(lesson.logits) if lesson.row_weights is None else lesson.row_weights
        self.row_weights: torch.Tensor
        self.register_buffer("row_weights", rows.float().to(device), persistent=False)

    def forward(self, labels: torch.Tensor, index: torch.Tensor, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """The network's inputs, ``labels`` [B] and the rows ``index`` [B] -> loss and logits."""
        output: dict[str, torch.Tensor] = self.labelled(labels, **inputs)
        if self.training:
            logits = output["logits"]
            teacher, weights = (for_each_head(part[index], logits) for part in (self.teacher, self.row_weights))
            output["loss"] = output["loss"] + self.weight * teacher_loss(logits, teacher, weights)
        return output


def teacher_loss(logits: torch.Tensor, teacher: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Squared error of logits [B,2], as log-odds, against the teacher's [B] where it is not NaN, times ``weights`` [B].

    The sum is divided by the number of rows that the teacher knows; on several ranks of the whole batch.
    """
    odds = logits.float()[:, 1] - logits.float()[:, 0]
    known = ~teacher.isnan()
    errors = weights * torch.where(known, odds - teacher.where(known, 0.0), 0.0).square()
    # the whole batch's count over the number of ranks, because gradients are averaged over them
    count = summed(known.float().sum()) / world_size()
    return errors.sum() / count.clamp(min=1e-9)


def standardise(network: AttentionClassifier, rows: TrainingSet, collate: Collate) -> None:
    """Set the mean and the standard deviation by which ``network`` scales its towers' vectors, from training videos."""
    numbers = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _SCALED_ROWS)).round().astype(int)).tolist()
    batches = CollatedRows(rows, collate, next(network.parameters()).device)
    sums: dict[str, list[torch.Tensor]] = {}
    network.eval()
    with torch.no_grad():
        for start in range(0, len(numbers), _BATCH):
            for name, vectors in network.vectors(batches(numbers[start : start + _BATCH])).items():
                flat = vectors.double().flatten(0, 1)
                count = torch.full_like(flat[0], len(flat))
                sums.setdefault(name, []).append(torch.stack([flat.sum(0), flat.square().sum(0), count]))
        for name, parts in sums.items():
            total, squares, count = torch.stack(parts).sum(0)
            mean = total / count
            network.standardise(name, mean, (squares / count - mean.square()).clamp(min=0.0).sqrt())
