"""Promises about a cascade on new data, and the exact tests of them: p-values, and the labels a test would need.

Why these tests, and what may be done with their results: ``guarantees``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coefvq.cascade.curves import FloatArray

#: the chance with which the number of labels named in a refusal would suffice
POWER = 0.8
MOST_LABELS = 10**8


@dataclass(frozen=True)
class Promise:
    """What has to hold on new data: shares for precision and recall, percent for ``qps``; None: not asked.

    ``delta`` is the accepted chance that it does not.
    """

    precision: float | None = None
    recall: float | None = None
    qps: float | None = None
    delta: float = 0.1

    def __post_init__(self) -> None:
        for name, top in (("precision", 1.0), ("recall", 1.0), ("qps", 100.0)):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < top:
                raise ValueError(f"{name} {value}: expected a number in (0, {top:g}); {top:g} cannot be certified")
        if self.precision is None and self.recall is None:
            raise ValueError("a promise needs a precision or a recall")
        if not 0.0 < self.delta < 1.0:
            raise ValueError(f"delta {self.delta}: expected a share in (0, 1)")


@dataclass(frozen=True)
class Counts:
    """What pairs of thresholds do on n rows, each column [k]."""

    true_positive: NDArray[np.int64]
    predicted: NDArray[np.int64]
    escalated: NDArray[np.int64]
    positives: int
    n: int


def p_values(counts: Counts, promise: Promise) -> FloatArray:
    """The largest p-value per pair, [k]: small is evidence that every promise holds."""
    from scipy.stats import binom

    largest = np.zeros(len(counts.predicted))
    if promise.precision is not None:
        largest = np.maximum(largest, binom.sf(counts.true_positive - 1, counts.predicted, promise.precision))
    if promise.recall is not None:
        largest = np.maximum(largest, binom.sf(counts.true_positive - 1, counts.positives, promise.recall))
    if promise.qps is not None:
        largest = np.maximum(largest, binom.cdf(counts.escalated, counts.n, promise.qps / 100.0))
    return largest


def count_pairs(
    label: FloatArray, base: FloatArray, mllm: FloatArray, base_cut: FloatArray, decision_cut: FloatArray
) -> Counts:
    """Count what each pair of thresholds [k] does on the rows [n]."""
    true_positive, predicted, escalated = (np.zeros(len(base_cut), dtype=np.int64) for _ in range(3))
    for k, (low, cut) in enumerate(zip(base_cut, decision_cut, strict=True)):
        reached = base >= low
        hit = reached & (mllm >= cut)
        escalated[k], predicted[k] = np.count_nonzero(reached), np.count_nonzero(hit)
        true_positive[k] = int(label[hit].sum())
    return Counts(true_positive, predicted, escalated, int(label.sum()), len(label))


def labels_needed(counts: Counts, promise: Promise, power: float = POWER) -> NDArray[np.float64]:
    """Rows of the *test* part per pair, [k], with which it would pass with chance ``power``; inf: never.

    The rates seen in ``counts`` are taken for the true ones, so it is an estimate.
    """
    n, hits = counts.n, counts.true_positive
    needed = np.zeros(len(hits))
    if promise.precision is not None:
        tests = _trials(hits, counts.predicted, promise.precision, promise.delta, power)
        needed = np.maximum(needed, np.ceil(tests * n / np.maximum(counts.predicted, 1)))
    if promise.recall is not None:
        tests = _trials(hits, np.full(len(hits), counts.positives), promise.recall, promise.delta, power)
        needed = np.maximum(needed, np.ceil(tests * n / counts.positives))
    if promise.qps is not None:
        spared = n - counts.escalated
        needed = np.maximum(
            needed, _trials(spared, np.full(len(hits), n), 1.0 - promise.qps / 100.0, promise.delta, power)
        )
    return needed


def _trials(
    successes: NDArray[np.int64], trials: NDArray[np.int64], target: float, delta: float, power: float
) -> FloatArray:
    """Trials with which a share as seen is certified above ``target``; inf where it lies below."""
    from scipy.stats import binom

    share = successes / np.maximum(trials, 1)
    better = share > target
    # a share of 1 in the sample is not 1 in truth; half a failure keeps the estimate sober
    share = np.minimum(share, 1.0 - 0.5 / np.maximum(trials, 1))
    low, high = np.ones(len(share)), np.full(len(share), float(MOST_LABELS))
    for _ in range(int(np.log2(MOST_LABELS)) + 2):
        middle = np.floor((low + high) / 2.0)
        enough = binom.sf(binom.ppf(1.0 - power, middle, share) - 1, middle, target) <= delta
        low, high = np.where(enough, low, np.minimum(middle + 1, high)), np.where(enough, middle, high)
    return np.where(better & (high < MOST_LABELS), high, np.inf)
