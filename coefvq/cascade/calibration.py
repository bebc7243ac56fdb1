"""Calibrated probabilities: temperature, Platt, isotonic. Fitted on validation, plain JSON, no pickle.

A score of 0.8 should be right in 8 of 10 cases. Networks trained with a class weight or on thinned negatives are
far from it. Calibration leaves the order of the videos as it is (isotonic may join neighbours), so no threshold
gets better or worse by it; what changes is what the number means: for a reviewer's eye, for expected costs, and
where base and MLLM scores stand in one column (``filtered: keep_base_score``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coefvq.cascade.curves import FloatArray, checked_rows
from coefvq.errors import DataError

Kind = Literal["temperature", "platt", "isotonic"]
KINDS: tuple[Kind, ...] = ("temperature", "platt", "isotonic")

# a probability of exactly 0 or 1 has no logit; float32 softmax saturates near here anyway
EDGE = 1e-7
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Calibrator:
    """A non-decreasing map from score to probability.

    ``temperature`` and ``platt``: σ(slope·logit(score) + intercept), the former with intercept 0.
    ``isotonic``: piecewise linear through ``x`` and ``y`` (both ascending), flat outside.
    """

    kind: Kind
    slope: float = 1.0
    intercept: float = 0.0
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()

    def __call__(self, score: ArrayLike) -> FloatArray:
        """Calibrated probabilities [n] of scores [n] in [0, 1]; NaN stays NaN.

        Raises:
            DataError: a score is outside [0, 1].
        """
        scores = np.asarray(score, dtype=np.float64)
        if ((scores < 0.0) | (scores > 1.0)).any():
            raise DataError("calibration needs scores in [0, 1]; run predict again")
        if self.kind == "isotonic":
            return np.asarray(np.interp(scores, self.x, self.y), dtype=np.float64)
        return _sigmoid(self.slope * logit(scores) + self.intercept)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; only what the kind uses."""
        head: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "kind": self.kind}
        if self.kind == "isotonic":
            return {**head, "x": list(self.x), "y": list(self.y)}
        return {**head, "slope": self.slope, "intercept": self.intercept}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], source: str = "calibration") -> Calibrator:
        """Check what :meth:`to_dict` made; ``source`` is named in errors.

        Raises:
            DataError: a key is missing or unknown, or the map is not one from [0, 1] to [0, 1] that never falls.
        """
        kind = raw.get("kind")
        keys = {"schema_version", "kind"} | ({"x", "y"} if kind == "isotonic" else {"slope", "intercept"})
        if kind not in KINDS or set(raw) != keys or raw["schema_version"] != SCHEMA_VERSION:
            raise DataError(f"{source}: expected the keys {', '.join(sorted(keys))} of one of {', '.join(KINDS)}")
        try:
            numbers = {name: np.asarray(raw[name], dtype=np.float64) for name in keys - {"schema_version", "kind"}}
        except (TypeError, ValueError) as error:
            raise DataError(f"{source}: expected numbers ({error})") from error
        if not all(np.isfinite(column).all() for column in numbers.values()):
            raise DataError(f"{source}: expected finite numbers; run the thresholds stage again")
        if kind == "isotonic":
            x, y = numbers["x"], numbers["y"]
            if x.ndim != 1 or x.shape != y.shape or not len(x) or (np.diff(x) <= 0).any() or (np.diff(y) < 0).any():
                raise DataError(f"{source}: x must ascend and y must not fall, as columns of one length")
            if y.min() < 0.0 or y.max() > 1.0:
                raise DataError(f"{source}: y must lie in [0, 1]")
            return cls("isotonic", x=tuple(x.tolist()), y=tuple(y.tolist()))
        if numbers["slope"].ndim or numbers["intercept"].ndim or numbers["slope"] < 0.0:
            raise DataError(f"{source}: slope must be a number >= 0, intercept a number")
        return cls(kind, slope=float(numbers["slope"]), intercept=float(numbers["intercept"]))


def fit_calibrator(kind: Kind, label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> Calibrator:
    """Fit on validation rows; labels may be soft, weights are used.

    ``temperature`` (Guo et al. 2017) and ``platt`` (Platt 1999) minimise the log loss; ``isotonic`` (Zadrozny and
    Elkan 2002) the squared error. Isotonic needs about a thousand rows to be worth it.

    Raises:
        DataError: a column is unusable, a score is outside [0, 1], all are equal, or there is one class only.
    """
    labels, scores, weights = checked_rows(label, score, weight)
    if scores.min() < 0.0 or scores.max() > 1.0:
        raise DataError("calibration needs scores in [0, 1]; run predict again")
    if scores.min() == scores.max():
        raise DataError(f"all scores are {scores[0]:g}: nothing to calibrate; train the model")
    if kind == "isotonic":
        return _isotonic(labels, scores, weights)
    return _logistic(kind, labels, scores, weights)


def logit(score: ArrayLike) -> FloatArray:
    """log(p/(1 − p)) of probabilities [n], kept finite at 0 and 1."""
    inner = np.clip(np.asarray(score, dtype=np.float64), EDGE, 1.0 - EDGE)
    return np.log(inner) - np.log1p(-inner)


def log_loss(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Weighted mean of −y·log(p) − (1 − y)·log(1 − p), with p kept within 1e-7 of 0 and 1.

    Raises:
        DataError: a column is unusable or there is one class only.
    """
    labels, scores, weights = checked_rows(label, score, weight)
    inner = np.clip(scores, EDGE, 1.0 - EDGE)
    return float(-np.average(labels * np.log(inner) + (1.0 - labels) * np.log1p(-inner), weights=weights))


def _logistic(kind: Kind, labels: FloatArray, scores: FloatArray, weights: FloatArray) -> Calibrator:
    from scipy.optimize import minimize

    z, total = logit(scores), weights.sum()
    free = kind == "platt"

    def loss(theta: FloatArray) -> tuple[float, FloatArray]:
        at = theta[0] * z + (theta[1] if free else 0.0)
        # log(1 + e^a) − y·a without overflow
        value = np.sum(weights * (np.logaddexp(0.0, at) - labels * at)) / total
        gap = weights * (_sigmoid(at) - labels) / total
        return float(value), np.array([np.sum(gap * z), np.sum(gap)] if free else [np.sum(gap * z)])

    # a slope below 0 would turn the order round; one without bound is what separable classes ask for
    bounds = [(0.0, 1e3), (-1e3, 1e3)][: 2 if free else 1]
    optimum = minimize(
        loss,
        np.array([1.0, 0.0] if free else [1.0]),
        jac=True,
        bounds=bounds,
        method="L-BFGS-B",
        options={"ftol": 1e-14},
    )
    return Calibrator(kind, slope=float(optimum.x[0]), intercept=float(optimum.x[1]) if free else 0.0)


def _isotonic(labels: FloatArray, scores: FloatArray, weights: FloatArray) -> Calibrator:
    """What scikit-learn's ``IsotonicRegression`` fits, to the last bit, without the seconds of its import."""
    from scipy.optimize import isotonic_regression

    order = np.lexsort((labels, scores))
    order = order[weights[order] > 0]
    x, weight = scores[order], weights[order]
    first = _firsts(x)
    group = np.repeat(np.arange(len(first)), np.diff(np.append(first, len(x))))
    total = np.bincount(group, weight)
    y = isotonic_regression(np.bincount(group, labels[order] * weight) / total, weights=total).x.clip(0.0, 1.0)
    # a point between two of its height changes nothing
    kept = np.ones(len(y), bool)
    kept[1:-1] = (y[1:-1] != y[:-2]) | (y[1:-1] != y[2:])
    return Calibrator("isotonic", x=tuple(x[first][kept].tolist()), y=tuple(y[kept].tolist()))


def _firsts(x: FloatArray) -> NDArray[np.intp]:
    """Where in ascending numbers [n] a group begins that counts as one number: all within 1e-15 of its first."""
    least, current = np.finfo(np.float64).resolution, -np.inf
    first = []
    changes = np.flatnonzero(np.diff(x, prepend=-np.inf))
    for place, value in zip(changes.tolist(), x[changes].tolist(), strict=True):
        if value - current >= least:
            first.append(place)
            current = value
    return np.array(first, np.intp)


def _sigmoid(x: FloatArray) -> FloatArray:
    from scipy.special import expit

    return np.asarray(expit(x), dtype=np.float64)
