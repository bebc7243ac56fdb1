"""The exact frontier: for every distinct base threshold the best decision threshold, in one sweep.

Lowering the base threshold only ever adds videos to the set that the MLLM sees. So the videos are added one
by one in the order of the base score, each at the leaf of its MLLM score in a segment tree (leaves in
descending order of score). A video's value is w·(y − P): a prefix of leaves has precision >= P exactly if its
sum is not negative. Each node keeps the sum, the largest prefix sum and the number of positives below it, so
the longest such prefix, which is the decision threshold with the highest recall, is found by one walk down:
O(n log n) for all pairs of thresholds, where a precision-recall curve per base threshold costs O(n² log n).

Only scores of positives are candidates for a decision threshold: between two of them a lower threshold adds
negatives alone. Groups of equal scores are never cut. With 0/1 labels and equal weights the sums are whole
numbers (P as a fraction p/q, value q − p or −p) and nothing is rounded; weights and soft labels use float64
with the slack of ``curves.PRECISION_SLACK``.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coefvq.cascade.curves import PRECISION_SLACK, FloatArray, checked_rows
from coefvq.cascade.sweep import LOWEST, sweep_kernel
from coefvq.errors import DataError

LARGEST_DENOMINATOR = 10**6


@dataclass(frozen=True)
class ExactFrontier:
    """One row per distinct base threshold, descending; what the best decision threshold gives there.

    Columns [k]: ``decision_threshold`` is NaN where no threshold qualifies, and the counts beside it are 0.
    ``escalated``, ``predicted`` and ``true_positive`` are sums of weights. Among decision thresholds of one
    recall the highest is taken.
    """

    base_threshold: FloatArray
    decision_threshold: FloatArray
    escalated: FloatArray
    predicted: FloatArray
    true_positive: FloatArray
    positives: float
    total: float

    @property
    def qps_ratio(self) -> FloatArray:
        """MLLM calls in percent of all videos, [k], ascending."""
        return 100.0 * self.escalated / self.total

    @property
    def recall(self) -> FloatArray:
        """Share of all positives that are decided positive, [k]."""
        return self.true_positive / self.positives

    @property
    def precision(self) -> FloatArray:
        """Share of positives among the decided, [k]; NaN where nothing is."""
        precision = np.full(len(self.predicted), np.nan)
        np.divide(self.true_positive, self.predicted, out=precision, where=self.predicted > 0)
        return precision

    def undominated(self) -> NDArray[np.intp]:
        """Positions where more calls buy more recall than any fewer calls do: the steps of the frontier."""
        best = np.maximum.accumulate(self.true_positive)
        return np.flatnonzero(self.true_positive > np.append(0.0, best[:-1]))


@dataclass(frozen=True)
class _Rows:
    """Columns in the order of the sweep: the forced ones first, then by base score, descending."""

    label: FloatArray
    base: FloatArray
    mllm: FloatArray
    weight: FloatArray
    calls: FloatArray
    ends: NDArray[np.intp]
    thresholds: FloatArray


def exact_frontier(
    label: ArrayLike,
    base: ArrayLike,
    mllm: ArrayLike,
    precision: float,
    weight: ArrayLike | None = None,
    *,
    always: ArrayLike | None = None,
    accept_threshold: float | None = None,
) -> ExactFrontier:
    """The whole frontier of MLLM calls against recall at ``precision`` (a share), over all pairs of thresholds.

    Args:
        label, base, weight: [n] as in ``curves``; any finite scale of scores.
        mllm: [n], −inf where the MLLM's answer can never count as positive.
        always: [n] bool, videos escalated whatever their base score (the engagement rule).
        accept_threshold: a base score from here on is decided positive without a call.

    Raises:
        DataError: a column is unusable or there is one class only.
        ValueError: ``precision`` is not in (0, 1].
    """
    if not 0.0 < precision <= 1.0:
        raise ValueError(f"precision {precision}: expected a share in (0, 1], not percent")
    rows = _ordered(label, base, mllm, weight, always, accept_threshold)
    value = _precision_values(rows, precision)
    return _swept(rows, value, largest=False)


def cost_frontier(
    label: ArrayLike,
    base: ArrayLike,
    mllm: ArrayLike,
    false_positive: float,
    miss: float,
    weight: ArrayLike | None = None,
    *,
    always: ArrayLike | None = None,
    accept_threshold: float | None = None,
) -> ExactFrontier:
    """Per base threshold the decision threshold with the least ``false_positive``·FP + ``miss``·FN.

    NaN where predicting nothing is cheapest. Arguments and errors otherwise as :func:`exact_frontier`.
    """
    rows = _ordered(label, base, mllm, weight, always, accept_threshold)
    value = rows.weight * (rows.label * miss - (1.0 - rows.label) * false_positive)
    return _swept(rows, value, largest=True)


def _ordered(
    label: ArrayLike,
    base: ArrayLike,
    mllm: ArrayLike,
    weight: ArrayLike | None,
    always: ArrayLike | None,
    accept_threshold: float | None,
) -> _Rows:
    labels, bases, weights = checked_rows(label, base, weight)
    answers = np.asarray(mllm, dtype=np.float64)
    weighted = np.ones(answers.shape, dtype=bool) if weight is None else np.asarray(weight, dtype=np.float64) > 0.0
    if answers.shape != weighted.shape or np.shape(label) != answers.shape:
        raise DataError(f"mllm has shape {answers.shape}, label {np.shape(label)}: expected columns of one length")
    answers = answers[weighted]
    if np.isnan(answers).any() or (answers == np.inf).any() or (bases == -np.inf).any():
        raise DataError("base and mllm: expected finite scores; run predict again")
    forced = np.zeros(len(bases), dtype=bool) if always is None else np.asarray(always, dtype=bool)[weighted]
    accepted = np.zeros(len(bases), dtype=bool) if accept_threshold is None else bases >= accept_threshold
    accepted &= ~forced  # the engagement rule wins: a much-seen video is worth a second look
    if accepted.any():
        # positive at every decision threshold: as if the MLLM had given its highest answer
        answers = np.where(accepted, answers.max(initial=0.0), answers)
    first = forced | accepted
    order = np.argsort(np.where(first, -np.inf, -bases), kind="stable")
    sorted_bases, head = bases[order], int(first.sum())
    ends = np.flatnonzero(np.append(sorted_bases[1:] != sorted_bases[:-1], True))
    ends = ends[ends >= head]
    thresholds = sorted_bases[ends]
    if accepted.any():  # nothing but what is accepted or forced: the cheapest policy of all
        ends, thresholds = np.append(head - 1, ends), np.append(float(accept_threshold or 0.0), thresholds)
    elif not len(ends):
        ends, thresholds = np.array([len(bases) - 1]), np.array([bases.max()])
    return _Rows(
        label=labels[order],
        base=sorted_bases,
        mllm=answers[order],
        weight=weights[order],
        calls=np.where(accepted, 0.0, weights)[order],
        ends=ends,
        thresholds=thresholds,
    )


def _precision_values(rows: _Rows, precision: float) -> NDArray[Any]:
    """w·(y − P) [n], whole numbers where labels are 0/1, weights equal and P a fraction of a small denominator."""
    fraction = Fraction(precision).limit_denominator(LARGEST_DENOMINATOR)
    p, q = fraction.numerator, fraction.denominator
    whole = bool((rows.weight == 1.0).all() and ((rows.label == 0.0) | (rows.label == 1.0)).all())
    if whole and abs(float(fraction) - precision) < PRECISION_SLACK / 2:
        kind = np.int32 if q * len(rows.label) < -LOWEST[np.dtype(np.int32)] else np.int64
        return np.where(rows.label == 1.0, q - p, -p).astype(kind)
    return rows.weight * (rows.label - (precision - PRECISION_SLACK))


def _swept(rows: _Rows, value: NDArray[Any], *, largest: bool) -> ExactFrontier:
    positive = rows.label * rows.weight
    candidates = np.unique(-rows.mllm[(rows.label > 0.0) & (rows.mllm > -np.inf)])
    # the highest candidate threshold that admits the row; beyond the last one: none does
    leaf = np.searchsorted(candidates, -rows.mllm, side="left").astype(np.int32)
    kind = value.dtype
    cut, true_positive, predicted = sweep_kernel()(
        leaf,
        value,
        positive.astype(kind),
        rows.weight.astype(kind),
        rows.ends,
        len(candidates),
        kind.type(LOWEST[kind]),
        largest,
    )
    return ExactFrontier(
        base_threshold=rows.thresholds,
        decision_threshold=-np.append(candidates, np.nan)[cut],  # no cut is −1: the NaN at the end
        escalated=np.cumsum(rows.calls)[rows.ends],
        predicted=predicted.astype(np.float64),
        true_positive=true_positive.astype(np.float64),
        positives=float(positive.sum()),
        total=float(rows.weight.sum()),
    )
