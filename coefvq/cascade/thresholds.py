"""Cascade thresholds for any two columns of scores, as a scikit-learn estimator.

    CascadeThresholds(precision=0.8, qps=5).fit(base_scores, mllm_scores, y).predict(base_scores, mllm_scores)

scikit-learn's ``X`` is the pair of columns: ``fit(X, y)`` and ``predict(X)`` with X [n, 2] (base, MLLM) do the
same, which is what pipelines and cross-validation call. Scores may be on any finite scale. The checks are
stricter than the pipeline's: there, a row weight of 0 marks a video that was thinned away; here it is a mistake.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, check_is_fitted

from coefvq.cascade.curves import FloatArray
from coefvq.cascade.escalation import BoolArray
from coefvq.cascade.fitting import Mode, ThresholdSearch, check_rows, refuse_not_finite
from coefvq.cascade.objectives import ScoredRows
from coefvq.errors import ScoresError


class CascadeThresholds(BaseEstimator):
    """Base and decision threshold of a two-stage cascade, exact over all pairs of distinct scores.

    A row goes to the second model when ``base >= base_threshold_`` and is positive when it did and
    ``mllm >= decision_threshold_``.

    Args:
        mode: ``budget``: highest recall at ``precision`` with at most ``qps`` percent of rows escalated.
            ``recall_floor``: fewest escalations with recall at ``precision`` within ``max_recall_loss`` of the
            second model on every row. ``cost``: least ``call_cost``·calls + ``false_positive_cost``·FP +
            ``miss_cost``·FN, calls within ``qps`` percent. ``guarantee``: ``precision``, ``recall`` (if given)
            and ``qps`` hold on new data with probability 1 − ``delta`` (see ``guarantees``).
        random_state: seed of the two parts that ``guarantee`` divides the rows into.

    Attributes:
        base_threshold_, decision_threshold_: the thresholds.
        precision_, recall_, qps_ratio_: on the fitted rows (``guarantee``: on its test part); shares and percent.
        expected_cost_: per row, None unless mode is ``cost``.
        reason_: one sentence on why this pair.
        n_features_in_: 2.
    """

    def __init__(
        self,
        *,
        mode: Mode = "budget",
        precision: float = 0.8,
        qps: float = 100.0,
        recall: float | None = None,
        max_recall_loss: float = 0.01,
        call_cost: float = 1.0,
        false_positive_cost: float = 10.0,
        miss_cost: float = 100.0,
        delta: float = 0.1,
        random_state: int = 0,
    ) -> None:
        self.mode = mode
        self.precision = precision
        self.qps = qps
        self.recall = recall
        self.max_recall_loss = max_recall_loss
        self.call_cost = call_cost
        self.false_positive_cost = false_positive_cost
        self.miss_cost = miss_cost
        self.delta = delta
        self.random_state = random_state

    def fit(
        self,
        base_scores: ArrayLike,
        mllm_scores: ArrayLike | None = None,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Find the thresholds.

        Args:
            base_scores, mllm_scores: [n] finite scores of the first and the second model.
            y: [n] in [0, 1], 1 being positive.
            sample_weight: [n] > 0, default ones.

        With two positional arguments they are X [n, 2] and y.

        Raises:
            ScoresError: NaN or infinite scores, one class only, constant scores, weights that are not above 0.
            InfeasibleError: no pair meets the constraints; says which fails and by how much.
            ValueError: a parameter is out of its range, or an array's shape does not fit.
        """
        if y is None:
            mllm_scores, y = None, mllm_scores
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None; thresholds are fitted on labels")
        base, mllm = _two_columns(base_scores, mllm_scores)
        labels, weights = check_rows(base, mllm, y, sample_weight)
        found = ThresholdSearch(**self.get_params()).find(ScoredRows(labels, base, mllm, weights))
        self.n_features_in_ = 2
        self.base_threshold_ = found.base_threshold
        self.decision_threshold_ = found.decision_threshold
        self.precision_ = found.precision
        self.recall_ = found.recall
        self.qps_ratio_ = found.qps_ratio
        self.expected_cost_ = found.expected_cost
        self.reason_ = found.reason
        return self

    def escalates(self, base_scores: ArrayLike) -> BoolArray:
        """Which rows the second model has to be asked about, [n] bool; known before it is asked.

        Raises:
            sklearn.exceptions.NotFittedError: ``fit`` was not called.
            ScoresError: a score is NaN or infinite.
        """
        check_is_fitted(self)
        base = np.asarray(base_scores, dtype=np.float64)
        refuse_not_finite(base, "base")
        escalated: BoolArray = base >= self.base_threshold_
        return escalated

    def predict(self, base_scores: ArrayLike, mllm_scores: ArrayLike | None = None) -> NDArray[np.int64]:
        """1 for positive, 0 for negative, [n]; the second score may be NaN where it is not asked for.

        Raises:
            sklearn.exceptions.NotFittedError: ``fit`` was not called.
            ScoresError: a score that counts is NaN or infinite.
        """
        check_is_fitted(self)
        base, mllm = _two_columns(base_scores, mllm_scores)
        escalated = self.escalates(base)
        refuse_not_finite(np.where(escalated, mllm, 0.0), "mllm")
        return (escalated & (mllm >= self.decision_threshold_)).astype(np.int64)


def _two_columns(base_scores: ArrayLike, mllm_scores: ArrayLike | None) -> tuple[FloatArray, FloatArray]:
    if mllm_scores is not None:
        base, mllm = (np.asarray(column, dtype=np.float64) for column in (base_scores, mllm_scores))
        if base.ndim != 1 or mllm.shape != base.shape:
            raise ScoresError(f"base has shape {base.shape}, mllm {mllm.shape}: expected two columns of one length")
        return base, mllm
    X = check_array(base_scores, dtype=np.float64, ensure_all_finite=False, ensure_min_features=2)
    if X.shape[1] != 2:
        raise ValueError(f"X has {X.shape[1]} features, but CascadeThresholds is expecting 2 features: base and MLLM")
    return X[:, 0], X[:, 1]
