"""Figures on validation data after each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from transformers import EvalPrediction

from coefvq.cascade.curves import best_f1_threshold, recall_at_precision
from coefvq.errors import TrainingError
from coefvq.evaluation.metrics import average_precision, roc_auc
from coefvq.models.heads import MISSING_LABEL


@dataclass(frozen=True)
class ValidationMetrics:
    """Average precision and the criterion, each a mean over the issues that have labels.

    ``issues`` are in the order of the heads. ``weight`` [N] are sampling weights; F1 is that of the best threshold,
    since thresholds are picked on validation.
    """

    criterion: str
    video_ids: Sequence[str]
    issues: Sequence[str]
    weight: ArrayLike | None = None

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        """Logits [N,2] or [N,K,2] and labels [N] or [N,K] -> figures by name; several issues add ``<issue>_<figure>``.

        Raises:
            TrainingError: a logit is not finite; its video is named.
        """
        logits = np.asarray(prediction.predictions, np.float32)
        logits = logits.reshape(len(logits), -1, logits.shape[-1])
        self._check(logits)
        labels = np.asarray(prediction.label_ids).reshape(len(logits), -1)
        scores = _softmax(logits)[:, :, 1]
        names = dict.fromkeys(["average_precision", *([] if self.criterion == "loss" else [self.criterion])])
        figures = {name: self._per_issue(name, labels, scores) for name in names}
        result = {name: float(np.mean(list(by_issue.values()))) for name, by_issue in figures.items()}
        if len(self.issues) > 1:
            result |= {
                f"{issue}_{name}": value for name, by_issue in figures.items() for issue, value in by_issue.items()
            }
        return result

    def _per_issue(self, name: str, labels: NDArray[np.int64], scores: NDArray[np.float32]) -> dict[str, float]:
        weight = None if self.weight is None else np.asarray(self.weight)
        values = {}
        for issue, label, score in zip(self.issues, labels.T, scores.T, strict=True):
            known = label != MISSING_LABEL
            if known.any():
                values[issue] = _figure(name, label[known], score[known], None if weight is None else weight[known])
        return values

    def _check(self, logits: NDArray[np.float32]) -> None:
        bad = np.flatnonzero(~np.isfinite(logits).all(axis=(1, 2)))
        if bad.size:
            names = ", ".join(self.video_ids[i] for i in bad[:8])
            raise TrainingError(f"validation: no finite score for videos {names}; look at these clips")


def _figure(name: str, label: ArrayLike, score: ArrayLike, weight: ArrayLike | None) -> float:
    if name == "average_precision":
        return average_precision(label, score, weight)
    if name == "roc_auc":
        return roc_auc(label, score, weight)
    if name == "f1":
        return best_f1_threshold(label, score, weight).f1
    return recall_at_precision(label, score, float(name.removeprefix("r_at_p")) / 100.0, weight).recall


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    import torch

    return torch.from_numpy(logits).softmax(dim=-1).numpy()
