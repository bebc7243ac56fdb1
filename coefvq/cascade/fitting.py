"""Which pair of thresholds is wanted, and the search for it on labelled rows; stricter checks than the pipeline's.

``thresholds`` makes a scikit-learn estimator of it. It stands apart, since importing scikit-learn takes seconds, which
a command need not wait for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from coefvq.cascade.curves import FloatArray, checked_rows
from coefvq.cascade.guarantees import certify
from coefvq.cascade.objectives import Prices, ScoredRows, Thresholds, least_cost, with_recall_floor, within_budget
from coefvq.cascade.promises import Promise
from coefvq.errors import DataError, ScoresError

Mode = Literal["budget", "cost", "recall_floor", "guarantee"]
MODES: tuple[Mode, ...] = ("budget", "cost", "recall_floor", "guarantee")


@dataclass(frozen=True)
class ThresholdSearch:
    """What is wanted of a pair of thresholds; the arguments are those of ``CascadeThresholds``."""

    mode: Mode = "budget"
    precision: float = 0.8
    qps: float = 100.0
    recall: float | None = None
    max_recall_loss: float = 0.01
    call_cost: float = 1.0
    false_positive_cost: float = 10.0
    miss_cost: float = 100.0
    delta: float = 0.1
    random_state: int = 0

    def find(self, rows: ScoredRows) -> Thresholds:
        """The thresholds on rows that ``check_rows`` has passed.

        Raises:
            InfeasibleError: no pair meets the constraints; says which fails and by how much.
            ValueError: a parameter is out of its range.
        """
        if self.mode == "budget":
            return within_budget(rows, self.precision, self.qps)
        if self.mode == "recall_floor":
            return with_recall_floor(rows, self.precision, self.max_recall_loss)
        if self.mode == "cost":
            prices = Prices(self.call_cost, self.false_positive_cost, self.miss_cost)
            return least_cost(rows, prices, self.qps)
        if self.mode == "guarantee":
            return self._certified(rows)
        raise ValueError(f"mode {self.mode!r}: expected one of {', '.join(MODES)}")

    def _certified(self, rows: ScoredRows) -> Thresholds:
        promise = Promise(self.precision, self.recall, self.qps if self.qps < 100.0 else None, self.delta)
        found = certify(rows.label, rows.base, rows.mllm, promise, weight=rows.weight, seed=self.random_state)
        reason = (
            f"holds on new data with probability {1 - self.delta:g}: certified on {found.n_test} rows "
            f"(p = {found.p_value:.2g}), proposed on {found.n_tune} others; figures are those of the {found.n_test}"
        )
        return Thresholds(
            found.base_threshold,
            found.decision_threshold,
            found.precision,
            found.recall,
            found.qps_ratio,
            reason,
        )


def check_rows(
    base: FloatArray, mllm: FloatArray, y: ArrayLike, sample_weight: ArrayLike | None = None
) -> tuple[FloatArray, FloatArray]:
    """Labels and weights [n] as float64, after every check that fitted thresholds need.

    Raises:
        ScoresError: what is wrong, with the first row.
    """
    for scores, name in ((base, "base"), (mllm, "mllm")):
        refuse_not_finite(scores, name)
    try:
        labels = np.asarray(y, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ScoresError(f"y: expected numbers in [0, 1], 1 being positive ({error})") from error
    weights = np.ones_like(labels) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    for column, name in ((mllm, "mllm"), (labels, "y"), (weights, "sample_weight")):
        if column.shape != base.shape:
            raise ScoresError(f"{name} has shape {column.shape}, base {base.shape}: expected columns of one length")
    bad = ~((weights > 0.0) & (weights < np.inf))
    if bad.any():
        row = int(np.argmax(bad))
        raise ScoresError(
            f"sample_weight of row {row} is {weights[row]}: expected a finite number above zero; drop the row"
        )
    try:
        checked_rows(labels, base, weights)
    except DataError as error:
        raise ScoresError(str(error)) from error
    for scores, name in ((base, "base"), (mllm, "mllm")):
        if scores.min() == scores.max():
            raise ScoresError(
                f"{name} scores are all {scores[0]:g}: no threshold can tell rows apart; check the column"
            )
    return labels, weights


def refuse_not_finite(scores: FloatArray, name: str) -> None:
    """Raise a ``ScoresError`` that names the first row [n] whose score is NaN or infinite."""
    bad = ~np.isfinite(scores)
    if bad.any():
        row = int(np.argmax(bad))
        what = "NaN" if np.isnan(scores[row]) else "infinity (inf)"
        raise ScoresError(f"{name} score of row {row} is {what}: expected a finite number; score the row again")
