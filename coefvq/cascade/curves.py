"""Precision-recall curves by counting: the arithmetic under the metrics, the threshold search and the plots.

Three conventions hold in every function here and in ``coefvq.evaluation.metrics``:

- ``label`` may be soft. A row with label y and weight w counts as w·y of a positive and w·(1 − y) of a
  negative, so a known posterior can stand in for a drawn label; 0 and 1 are the ordinary case.
- ``score`` of −inf means *withheld*: the row is never predicted positive at any threshold, but its
  positives stay in the denominator of recall. This is how a video that the cascade filtered out counts.
- Thresholds are distinct scores and a prediction is ``score >= threshold``: a group of equal scores is
  never cut in two.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from operator import neg

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coefvq.errors import DataError

FloatArray = NDArray[np.float64]

# Slack when a precision is compared with its target. Sums of fractional weights and soft labels carry
# rounding near 1e-14. With 0/1 labels and equal weights the sums are whole numbers, and a ratio of counts
# that misses a target p/q misses it by at least 1/(n·q): below 1e10 rows and q = 100 the slack decides
# exactly as rational arithmetic would.
PRECISION_SLACK = 1e-12


@dataclass(frozen=True)
class PRCurve:
    """Weighted counts at each distinct threshold.

    ``threshold`` [k] descends strictly; ``true_positive`` [k] and ``predicted`` [k] are the weights of the
    positives and of all rows at or above it; ``positives`` and ``total`` are those of the whole input,
    withheld rows included. k is 0 when every row is withheld.
    """

    threshold: FloatArray
    true_positive: FloatArray
    predicted: FloatArray
    positives: float
    total: float

    # kept: a bootstrap reads each several times, and a curve has as many points as there are scores
    @cached_property
    def precision(self) -> FloatArray:
        """Share of positives among the predicted, [k]."""
        return self.true_positive / self.predicted

    @cached_property
    def recall(self) -> FloatArray:
        """Share of all positives that are predicted, [k], ascending."""
        return self.true_positive / self.positives

    @property
    def f1(self) -> FloatArray:
        """Harmonic mean of precision and recall, [k]."""
        return 2.0 * self.true_positive / (self.predicted + self.positives)


@dataclass(frozen=True)
class RecallAtPrecision:
    """R@P. Unreachable: recall 0, no threshold, and ``precision`` is the best one seen."""

    recall: float
    threshold: float | None
    precision: float
    reachable: bool


@dataclass(frozen=True)
class OperatingPoint:
    """One threshold and what it gives; ``precision`` is None where nothing is predicted positive."""

    threshold: float
    precision: float | None
    recall: float
    f1: float


def precision_recall_points(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> PRCurve:
    """Count at every distinct threshold, descending.

    Args:
        label: [n] in [0, 1].
        score: [n], any finite scale or −inf for a withheld row.
        weight: [n] sampling weights >= 0, default ones; a row of weight 0 is not there.

    Raises:
        DataError: lengths differ, a value is out of its range, or there is one class only.
    """
    labels, scores, weights = checked_rows(label, score, weight)
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    true_positive = np.cumsum((labels * weights)[order])
    predicted = np.cumsum(weights[order])
    group_end = np.append(scores[1:] != scores[:-1], True) & (scores > -np.inf)
    return PRCurve(
        threshold=scores[group_end],
        true_positive=true_positive[group_end],
        predicted=predicted[group_end],
        positives=float(true_positive[-1]),
        total=float(predicted[-1]),
    )


def recall_at_precision(
    label: ArrayLike, score: ArrayLike, precision: float, weight: ArrayLike | None = None
) -> RecallAtPrecision:
    """Highest recall at any threshold whose precision is at least ``precision`` (a share, not percent).

    Among thresholds with the same recall the highest one wins, which is the one with the best precision.

    Raises:
        DataError: as :func:`precision_recall_points`.
        ValueError: ``precision`` is not in (0, 1].
    """
    return curve_recall_at_precision(precision_recall_points(label, score, weight), precision)


def curve_recall_at_precision(curve: PRCurve, precision: float) -> RecallAtPrecision:
    """:func:`recall_at_precision` on a curve already counted."""
    if not 0.0 < precision <= 1.0:
        raise ValueError(f"precision {precision}: expected a share in (0, 1], not percent")
    reached = curve.precision >= precision - PRECISION_SLACK
    if not reached.any():
        best = float(curve.precision.max(initial=0.0))
        return RecallAtPrecision(recall=0.0, threshold=None, precision=best, reachable=False)
    # true positives ascend, so the last point that reaches it has most; the first one with as many is the highest
    last = len(reached) - 1 - int(np.argmax(reached[::-1]))
    equal = int(np.searchsorted(curve.true_positive, curve.true_positive[last]))
    at = equal + int(np.argmax(reached[equal : last + 1]))
    return RecallAtPrecision(
        recall=float(curve.recall[at]),
        threshold=float(curve.threshold[at]),
        precision=float(curve.precision[at]),
        reachable=True,
    )


def best_f1_threshold(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> OperatingPoint:
    """The threshold with the highest F1; among equals the highest threshold.

    Raises:
        DataError: as :func:`precision_recall_points`, or every row is withheld.
    """
    curve = precision_recall_points(label, score, weight)
    if not len(curve.threshold):
        raise DataError("no row can be predicted positive at any threshold: check the MLLM scores for zeros")
    at = int(np.argmax(curve.f1))
    return _operating_point(curve, at, float(curve.threshold[at]))


def at_threshold(
    label: ArrayLike, score: ArrayLike, threshold: float, weight: ArrayLike | None = None
) -> OperatingPoint:
    """Precision, recall and F1 of ``score >= threshold``.

    Raises:
        DataError: as :func:`precision_recall_points`.
    """
    return curve_at_threshold(precision_recall_points(label, score, weight), threshold)


def curve_at_threshold(curve: PRCurve, threshold: float) -> OperatingPoint:
    """:func:`at_threshold` on a curve already counted."""
    # thresholds descend: the last one not below ``threshold`` has counted exactly the rows predicted
    at = bisect_right(curve.threshold, -threshold, key=neg) - 1
    return _operating_point(curve, at, threshold)


def f1_at_threshold(label: ArrayLike, score: ArrayLike, threshold: float, weight: ArrayLike | None = None) -> float:
    """F1 of ``score >= threshold``; 0 when nothing is predicted positive.

    Raises:
        DataError: as :func:`precision_recall_points`.
    """
    return at_threshold(label, score, threshold, weight).f1


def spread_indices(values: FloatArray, limit: int) -> NDArray[np.intp]:
    """At most ``limit`` positions of an ascending array, even in value, first and last always kept."""
    if len(values) <= limit:
        return np.arange(len(values))
    grid = np.linspace(values[0], values[-1], limit)
    inner = np.searchsorted(values, grid[1:-1])
    return np.unique(np.concatenate(([0], inner, [len(values) - 1])))


def checked_rows(
    label: ArrayLike, score: ArrayLike, weight: ArrayLike | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The three columns as float64 [n] without rows of weight 0.

    Equal weights become 1: sums are then whole numbers and comparisons of counts are exact.

    Raises:
        DataError: lengths differ, a value is out of its range, or there is one class only.
    """
    labels = np.asarray(label, dtype=np.float64)
    scores = np.asarray(score, dtype=np.float64)
    weights = np.ones_like(labels) if weight is None else np.asarray(weight, dtype=np.float64)
    if labels.ndim != 1 or scores.shape != labels.shape or weights.shape != labels.shape:
        raise DataError(
            f"label, score and weight must be columns of one length, got shapes {labels.shape}, "
            f"{scores.shape}, {weights.shape}"
        )
    _refuse(~((labels >= 0.0) & (labels <= 1.0)), labels, "label", "a number in [0, 1]")
    _refuse(np.isnan(scores) | (scores == np.inf), scores, "score", "a finite number")
    _refuse(~((weights >= 0.0) & (weights < np.inf)), weights, "weight", "a finite number >= 0")
    counted = weights > 0.0
    labels, scores, weights = labels[counted], scores[counted], weights[counted]
    if not (labels > 0.0).any() or not (labels < 1.0).any():
        raise DataError(
            f"{len(labels)} labelled rows hold one class only: both positives and negatives are needed; "
            "use a larger split"
        )
    if (weights == weights[0]).all():
        weights = np.ones_like(weights)
    return labels, scores, weights


def _operating_point(curve: PRCurve, at: int, threshold: float) -> OperatingPoint:
    if at < 0:
        return OperatingPoint(threshold=threshold, precision=None, recall=0.0, f1=0.0)
    return OperatingPoint(
        threshold=threshold,
        # of the one point: a bootstrap asks thousands of curves
        precision=float(curve.true_positive[at] / curve.predicted[at]),
        recall=float(curve.true_positive[at] / curve.positives),
        f1=float(2.0 * curve.true_positive[at] / (curve.predicted[at] + curve.positives)),
    )


def _refuse(bad: NDArray[np.bool_], values: FloatArray, name: str, expected: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(f"{name} of row {row} is {values[row]}: expected {expected}; run predict again")
