"""Figures of one score column against labels: R@P, F1, average precision, ROC-AUC, calibration error.

Everything is weighted and takes soft labels and withheld rows, as ``coefvq.cascade.curves`` defines them;
the curve functions are that module's, offered here under the name people look for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from coefvq.cascade.curves import (
    FloatArray,
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
    "Reliability",
    "at_prevalence",
    "at_threshold",
    "average_precision",
    "best_f1_threshold",
    "classification_summary",
    "curve_average_precision",
    "curve_roc_auc",
    "estimated_prevalence",
    "expected_calibration_error",
    "f1_at_threshold",
    "precision_recall_points",
    "recall_at_precision",
    "recall_key",
    "reliability",
    "roc_auc",
]

#: the threshold of ``f1_fixed``: what a probability means without any tuning
FIXED_THRESHOLD = 0.5

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
    return curve_average_precision(precision_recall_points(label, score, weight))


def roc_auc(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Chance that a positive outranks a negative, ties counting half; withheld rows tie at the bottom.

    Raises:
        DataError: a column is unusable or there is one class only.
    """
    return curve_roc_auc(precision_recall_points(label, score, weight))


def expected_calibration_error(
    label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None, bins: int = 15
) -> float:
    """Mean distance between score and observed frequency over ``bins`` equal intervals of [0, 1].

    Naeini et al. 2015; Guo et al. 2017 for 15 bins. Scores must be probabilities.

    Raises:
        DataError: a column is unusable, a score is outside [0, 1], or there is one class only.
    """
    table = reliability(label, score, weight, bins)
    return float(np.sum(table.weight * np.abs(table.mean_score - table.frequency)) / table.weight.sum())


@dataclass(frozen=True)
class Reliability:
    """The reliability diagram's filled bins, each column [k]: edges, mean score, observed frequency, weight."""

    low: FloatArray
    high: FloatArray
    mean_score: FloatArray
    frequency: FloatArray
    weight: FloatArray


def reliability(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None, bins: int = 15) -> Reliability:
    """Mean score against observed frequency in ``bins`` equal intervals of [0, 1]; empty ones are skipped.

    Raises:
        DataError: a column is unusable, a score is outside [0, 1], or there is one class only.
    """
    labels, scores, weights = checked_rows(label, score, weight)
    if scores.min() < 0.0 or scores.max() > 1.0:
        raise DataError("calibration needs scores in [0, 1]; run predict again")
    which = np.minimum((scores * bins).astype(np.intp), bins - 1)
    mass: FloatArray = np.bincount(which, weights=weights, minlength=bins).astype(np.float64)
    filled = np.flatnonzero(mass > 0.0)
    mean = np.bincount(which, weights=weights * scores, minlength=bins)[filled] / mass[filled]
    frequency = np.bincount(which, weights=weights * labels, minlength=bins)[filled] / mass[filled]
    return Reliability(filled / bins, (filled + 1) / bins, mean, frequency, mass[filled])


def at_prevalence(label: ArrayLike, weight: ArrayLike | None, prevalence: float) -> tuple[FloatArray, FloatArray]:
    """Label and weight columns [n] of the same rows as if a share ``prevalence`` of them were positive.

    Importance weights under label shift (Saerens et al. 2002): what a positive or a negative looks like stays,
    only how many there are changes. Recall and ROC-AUC stay, precision and the QPS ratio move. The weights
    add up to what they did before; a soft label shifts its odds.

    Raises:
        DataError: a column is unusable or there is one class only.
        ValueError: ``prevalence`` is not in (0, 1).
    """
    if not 0.0 < prevalence < 1.0:
        raise ValueError(f"prevalence {prevalence}: expected a share in (0, 1), not percent")
    labels = np.asarray(label, dtype=np.float64)
    weights = np.ones_like(labels) if weight is None else np.asarray(weight, dtype=np.float64)
    checked_rows(labels, np.zeros_like(labels), weights)
    now = float(np.sum(labels * weights) / weights.sum())
    positive, negative = prevalence / now, (1.0 - prevalence) / (1.0 - now)
    factor = labels * positive + (1.0 - labels) * negative
    return labels * positive / factor, weights * factor


def estimated_prevalence(
    label: ArrayLike,
    score: ArrayLike,
    traffic_score: ArrayLike,
    weight: ArrayLike | None = None,
    traffic_weight: ArrayLike | None = None,
) -> float:
    """Share of positives in unlabelled traffic, from how often a labelled threshold fires there.

    Adjusted count (Forman 2008; Lipton et al. 2018): (q − FPR) / (TPR − FPR) at the threshold where TPR − FPR
    is widest on the labelled rows, q being the share of traffic above it; clipped to [0, 1]. It rests on label
    shift: positives and negatives look alike in both places.

    Raises:
        DataError: a column is unusable, there is one class only, or the score separates nothing.
    """
    curve = precision_recall_points(label, score, weight)
    true_rate = curve.recall
    false_rate = (curve.predicted - curve.true_positive) / (curve.total - curve.positives)
    gap = true_rate - false_rate
    if not len(gap) or not gap.max() > 0.0:
        raise DataError("score: positives do not score higher than negatives; the prevalence cannot be told from it")
    at = int(np.argmax(gap))
    traffic = np.asarray(traffic_score, dtype=np.float64)
    weights = np.ones_like(traffic) if traffic_weight is None else np.asarray(traffic_weight, dtype=np.float64)
    if weights.shape != traffic.shape or not weights.sum() > 0.0 or np.isnan(traffic).any():
        raise DataError("traffic: expected a score and a weight per row, no NaN; run predict again")
    fired = float(weights[traffic >= curve.threshold[at]].sum() / weights.sum())
    return float(np.clip((fired - false_rate[at]) / gap[at], 0.0, 1.0))


def classification_summary(
    label: ArrayLike,
    score: ArrayLike,
    weight: ArrayLike | None,
    decision_threshold: float,
    precision_targets: Iterable[float],
) -> Summary:
    """All figures of one score column as JSON-ready values.

    Keys: n, positives (expected number under soft labels), prevalence (weighted), decision_threshold,
    f1, precision, recall (at ``decision_threshold``, which must come from other data: the best on validation),
    f1_fixed (at 0.5, tuned on nothing), average_precision, roc_auc and one ``r_at_p<P>`` per target in percent.
    All shares are in [0, 1]. An R@P that no threshold reaches is None, and so is the precision when nothing is
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
        "f1_fixed": curve_at_threshold(curve, FIXED_THRESHOLD).f1,
        "average_precision": curve_average_precision(curve),
        "roc_auc": curve_roc_auc(curve),
    }
    for target in precision_targets:
        found = curve_recall_at_precision(curve, target / 100.0)
        summary[recall_key(target)] = found.recall if found.reachable else None
    return summary


def curve_average_precision(curve: PRCurve) -> float:
    """:func:`average_precision` on a curve already counted."""
    return float(np.sum(np.diff(curve.recall, prepend=0.0) * curve.precision))


def curve_roc_auc(curve: PRCurve) -> float:
    """:func:`roc_auc` on a curve already counted."""
    # the closing point adds the withheld rows as one tie group; without any it has no area
    true_positive = np.concatenate(([0.0], curve.true_positive, [curve.positives]))
    predicted = np.concatenate(([0.0], curve.predicted, [curve.total]))
    negatives = curve.total - curve.positives
    return float(np.trapezoid(true_positive / curve.positives, (predicted - true_positive) / negatives))
