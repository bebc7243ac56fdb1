"""Which videos are escalated, as columns: the masks and final scores that the policy and the searches share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coefvq.cascade.curves import FloatArray
from coefvq.errors import DataError

BoolArray = NDArray[np.bool_]


def escalation_mask(
    base: ArrayLike, views: ArrayLike | None, base_threshold: float, views_trigger: int | None
) -> BoolArray:
    """Which videos reach the base threshold or the views trigger, [n].

    Raises:
        DataError: a base score is NaN or outside [0, 1], or lengths differ.
    """
    scores = np.asarray(base, dtype=np.float64)
    check_length(scores, scores, "base")
    _check_probabilities(scores, np.ones(scores.shape, dtype=bool), "base")
    escalated: BoolArray = scores >= base_threshold
    return escalated | engagement_mask(scores, views, views_trigger)


def engagement_mask(base: ArrayLike, views: ArrayLike | None, views_trigger: int | None) -> BoolArray:
    """Which videos are watched so much that they are escalated whatever their score, [n]; unknown views never are.

    Raises:
        DataError: lengths differ.
    """
    scores = np.asarray(base, dtype=np.float64)
    if views_trigger is None or views is None:
        return np.zeros(scores.shape, dtype=bool)
    counts = np.asarray(views, dtype=np.float64)
    check_length(counts, scores, "views")
    watched: BoolArray = counts >= views_trigger
    return watched


def zero_filtered(mllm: ArrayLike, escalated: BoolArray) -> FloatArray:
    """The final score, [n]: the MLLM's where escalated, else 0.

    Raises:
        DataError: an escalated video's score is NaN or outside [0, 1], or lengths differ.
    """
    scores = np.asarray(mllm, dtype=np.float64)
    check_length(scores, escalated, "MLLM")
    _check_probabilities(scores, escalated, "MLLM")
    return np.where(escalated, scores, 0.0)


def withhold_zeros(final: FloatArray) -> FloatArray:
    """Replace final scores of 0 and NaN, which are never positive, by −inf, [n]."""
    return np.where(final > 0.0, final, -np.inf)


def _check_probabilities(scores: FloatArray, counts: BoolArray, name: str) -> None:
    bad = counts & ~((scores >= 0.0) & (scores <= 1.0))
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(
            f"{name} score of row {row} is {scores[row]}: expected a probability in [0, 1]; run predict again"
        )


def check_length(values: NDArray[Any], like: NDArray[Any], name: str) -> None:
    """Refuse a column that is not as long as the base scores.

    Raises:
        DataError: it is not, or is no column.
    """
    if like.ndim != 1 or values.shape != like.shape:
        raise DataError(f"{name} has shape {values.shape}, base has {like.shape}: expected two columns of one length")
