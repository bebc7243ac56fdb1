"""Figures of one score column against labels: R@P, F1, average precision, ROC-AUC, calibration error.

Everything is weighted and takes soft labels and withheld rows, as ``coefvq.cascade.curves`` defines them;
the curve functions are that module's, offered here under the name people look for.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from coefvq.cascade.curves import (
    OperatingPoint,
    PRCurve,
    RecallAtPrecision,
    at_threshold,
    best_f1_threshold,
    checked_rows,
    curve_at_threshold,
    curve_recall_at_precision,
    f1_at_threshold,
    precision_recall_points,
    recall_at_precision,
)
from coefvq.errors import DataError

__all__ = [
    "OperatingPoint",
    "PRCurve",
    "RecallAtPrecision",
    "at_threshold",
    "average_precision",
    "best_f1_threshold",
    "classification_summary",
    "expected_calibration_error",
    "f1_at_threshold",
    "precision_recall_points",
    "recall_at_precision",
    "recall_key",
    "roc_auc",
]

Summary = dict[str, float | None]


def recall_key(target: float) -> str:
    """Key of R@P in a summary: ``recall_key(60) == "r_at_p60"``; ``target`` in percent."""
    return f"r_at_p{target:g}"


def average_precision(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Sum of precision × gain in recall over the thresholds, not interpolated (scikit-learn's definition).

    Withheld rows are never retrieved, so the sum ends at the recall they leave.

    Raises:
        DataError: a column is unusable or there is one class only.
    """
    return _average_precision(precision_recall_points(label, score, weight))


def roc_auc(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Chance that a positive outranks a negative, ties counting half; withheld rows tie at the bottom.

    Raises:
        DataError: a column is unusable or there is one class only.
    """
    return _roc_auc(precision_recall_points(label, score, weight))


def expected_calibration_error(
    label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None, bins: int = 15
) -> float:
    """Mean distance between score and observed frequency over ``bins`` equal intervals of [0, 1].

    Naeini et al. 2015; Guo et al. 2017 for 15 bins. Scores must be probabilities.

    Raises:
        DataError: a column is unusable, a score is outside [0, 1], or there is one class only.
    """
    labels, scores, weights = checked_rows(label, score, weight)
    if scores.min() < 0.0 or scores.max() > 1.0:
        raise DataError("calibration needs scores in [0, 1]; run predict again")
    which = np.minimum((scores * bins).astype(np.intp), bins - 1)
    gap = np.bincount(which, weights=weights * (scores - labels), minlength=bins)
    return float(np.abs(gap).sum() / weights.sum())


def classification_summary(
    label: ArrayLike,
    score: ArrayLike,
    weight: ArrayLike | None,
    decision_threshold: float,
    precision_targets: Iterable[float],
) -> Summary:
    """All figures of one score column as JSON-ready values.

    Keys: n, positives (expected number under soft labels), prevalence (weighted), decision_threshold,
    f1, precision, recall, average_precision, roc_auc and one ``r_at_p<P>`` per target in percent. All
    shares are in [0, 1]. An R@P that no threshold reaches is None, and so is the precision when nothing is
    predicted positive.

    Raises:
        DataError: a column is unusable or there is one class only.
    """
    curve = precision_recall_points(label, score, weight)
    point = curve_at_threshold(curve, decision_threshold)
    labels = np.asarray(label, dtype=np.float64)
    summary: Summary = {
        "n": len(labels),
        "positives": float(labels.sum()),
        "prevalence": curve.positives / curve.total,
        "decision_threshold": decision_threshold,
        "f1": point.f1,
        "precision": point.precision,
        "recall": point.recall,
        "average_precision": _average_precision(curve),
        "roc_auc": _roc_auc(curve),
    }
    for target in precision_targets:
        found = curve_recall_at_precision(curve, target / 100.0)
        summary[recall_key(target)] = found.recall if found.reachable else None
    return summary


def _average_precision(curve: PRCurve) -> float:
    return float(np.sum(np.diff(curve.recall, prepend=0.0) * curve.precision))


def _roc_auc(curve: PRCurve) -> float:
    # the closing point adds the withheld rows as one tie group; without any it has no area
    true_positive = np.concatenate(([0.0], curve.true_positive, [curve.positives]))
    predicted = np.concatenate(([0.0], curve.predicted, [curve.total]))
    negatives = curve.total - curve.positives
    return float(np.trapezoid(true_positive / curve.positives, (predicted - true_positive) / negatives))
