"""Confidence intervals: Clopper–Pearson for a share of counts, the bootstrap for everything else.

Pure numpy and scipy. Where videos of one creator or one source resemble each other they are no independent
draws; the bootstrap then draws whole groups, and intervals become honestly wider.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coefvq.cascade.curves import FloatArray, PRCurve, checked_rows
from coefvq.errors import DataError

Statistic = Callable[[PRCurve], float | None]

CONFIDENCE = 0.95
#: fewer valid replicates than this say nothing about a 95 % interval
MIN_REPLICATES = 100


@dataclass(frozen=True)
class Interval:
    """``value`` with its ``low`` and ``high`` end; ``undefined`` is the share of replicates without a value."""

    value: float | None
    low: float | None
    high: float | None
    undefined: float = 0.0

    def to_dict(self) -> dict[str, float | None]:
        """Ready for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}


def clopper_pearson(successes: float, trials: float, confidence: float = CONFIDENCE) -> Interval:
    """Exact two-sided interval of a binomial share (Clopper and Pearson 1934, beta quantiles).

    Counts need not be whole: :func:`weighted_share` passes effective ones (Korn and Graubard 1998). No
    trials: value None and the interval [0, 1].

    Raises:
        ValueError: not 0 <= successes <= trials, or ``confidence`` is not in (0, 1).
    """
    # the quantiles of scipy.stats.beta without its second of import
    from scipy.special import betainccinv, betaincinv

    if not 0.0 <= successes <= trials:
        raise ValueError(f"{successes} of {trials}: expected 0 <= successes <= trials")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence {confidence}: expected a share in (0, 1)")
    if trials == 0:
        return Interval(None, 0.0, 1.0)
    tail = (1.0 - confidence) / 2.0
    failures = trials - successes
    low = float(betaincinv(successes, failures + 1.0, tail)) if successes > 0 else 0.0
    high = float(betainccinv(successes + 1.0, failures, tail)) if failures > 0 else 1.0
    return Interval(successes / trials, low, high)


def weighted_share(
    hit: ArrayLike, weight: ArrayLike | None = None, confidence: float = CONFIDENCE, design_effect: float = 1.0
) -> Interval:
    """Interval of the weighted share of ``hit`` [n] in [0, 1]: precision among the predicted, recall among positives.

    Equal weights: Clopper–Pearson as it is. Unequal weights: the same on Kish's effective number of rows,
    (Σw)²/Σw², which is Korn and Graubard's interval for survey data: near-exact, not exact. ``design_effect``: how
    many times the variance of independent rows the share has beyond that.

    Raises:
        DataError: lengths differ or a weight is negative.
    """
    hits = np.asarray(hit, dtype=np.float64)
    weights = np.ones_like(hits) if weight is None else np.asarray(weight, dtype=np.float64)
    if hits.ndim != 1 or weights.shape != hits.shape or (weights < 0.0).any():
        raise DataError("hit and weight: expected two columns of one length, weights >= 0")
    if not weights.sum() > 0.0:
        return Interval(None, 0.0, 1.0)
    share = float(np.clip(np.sum(hits * weights) / weights.sum(), 0.0, 1.0))
    effective = float(weights.sum() ** 2 / np.sum(weights**2)) / design_effect
    bounds = clopper_pearson(share * effective, effective, confidence)
    return Interval(share, bounds.low, bounds.high)


def bootstrap_intervals(
    label: ArrayLike,
    score: ArrayLike,
    weight: ArrayLike | None,
    statistics: Mapping[str, Statistic],
    *,
    groups: ArrayLike | None = None,
    replicates: int = 1000,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> dict[str, Interval]:
    """Percentile bootstrap (Efron 1979) of any figures that can be read off the curve of counts.

    Rows are sorted once. A replicate draws multinomial counts, of rows or of whole ``groups``, and multiplies
    them into the weights: no row is copied, a replicate costs two cumulative sums. A replicate without one
    of the classes has no curve; it is skipped and counted in ``undefined``, as is one whose statistic is
    None. Under :data:`MIN_REPLICATES` usable replicates the ends are None.

    Args:
        statistics: name -> function of a :class:`~coefvq.cascade.curves.PRCurve`.
        groups: [n] creator, source or any other key; None or missing values: each such row on its own.

    Raises:
        DataError: a column is unusable or there is one class only.
    """
    scores = {"": (score, statistics)}
    return bootstrap_scores(
        label, scores, weight, groups=groups, replicates=replicates, confidence=confidence, seed=seed
    )[""]


def bootstrap_scores(
    label: ArrayLike,
    scores: Mapping[str, tuple[ArrayLike, Mapping[str, Statistic]]],
    weight: ArrayLike | None,
    *,
    groups: ArrayLike | None = None,
    replicates: int = 1000,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> dict[str, dict[str, Interval]]:
    """:func:`bootstrap_intervals` of several score columns of the same rows, by name; a replicate is drawn once.

    Raises:
        DataError: a column is unusable or there is one class only.
    """
    codes = group_codes(groups, np.size(label))
    samplers = {name: Resampler(label, score, weight, codes) for name, (score, _) in scores.items()}
    rng = np.random.default_rng(seed)
    drawn: dict[str, dict[str, list[float]]] = {
        name: {key: [] for key in statistics} for name, (_, statistics) in scores.items()
    }
    first = next(iter(samplers.values()))
    for _ in range(replicates):
        counts = first.draw(rng)
        for name, sampler in samplers.items():
            curve = sampler.curve(counts)
            for key, statistic in scores[name][1].items() if curve is not None else ():
                value = statistic(curve)  # type: ignore[arg-type]
                if value is not None:
                    drawn[name][key].append(value)
    wholes = {name: sampler.whole() for name, sampler in samplers.items()}
    return {
        name: {
            key: _percentiles(statistic(wholes[name]), drawn[name][key], replicates, confidence)
            for key, statistic in statistics.items()
        }
        for name, (_, statistics) in scores.items()
    }


def bootstrap_difference(
    label: ArrayLike,
    new: tuple[ArrayLike, Statistic],
    old: tuple[ArrayLike, Statistic],
    weight: ArrayLike | None = None,
    *,
    groups: ArrayLike | None = None,
    replicates: int = 1000,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval:
    """Interval of a figure's difference, new minus old, on the same rows: each replicate is drawn once for both.

    ``new`` and ``old`` are a score column [n] and the statistic to read off its curve (which may hold a
    threshold of its own). Otherwise as :func:`bootstrap_intervals`.

    Raises:
        DataError: a column is unusable or there is one class only.
    """
    return _paired(lambda a, b: a - b, label, new, old, weight, groups, replicates, confidence, seed)


def bootstrap_ratio(
    label: ArrayLike,
    new: tuple[ArrayLike, Statistic],
    old: tuple[ArrayLike, Statistic],
    weight: ArrayLike | None = None,
    *,
    groups: ArrayLike | None = None,
    replicates: int = 1000,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval:
    """As :func:`bootstrap_difference`, new divided by old; no value where old is 0."""
    return _paired(lambda a, b: a / b if b else None, label, new, old, weight, groups, replicates, confidence, seed)


def _paired(
    combine: Callable[[float, float], float | None],
    label: ArrayLike,
    new: tuple[ArrayLike, Statistic],
    old: tuple[ArrayLike, Statistic],
    weight: ArrayLike | None,
    groups: ArrayLike | None,
    replicates: int,
    confidence: float,
    seed: int,
) -> Interval:
    codes = group_codes(groups, np.size(label))
    sides = [(Resampler(label, score, weight, codes), statistic) for score, statistic in (new, old)]

    def combined(curves: Sequence[PRCurve | None]) -> float | None:
        values = [None if curve is None else side[1](curve) for curve, side in zip(curves, sides, strict=True)]
        return None if values[0] is None or values[1] is None else combine(values[0], values[1])

    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(replicates):
        counts = sides[0][0].draw(rng)
        value = combined([side.curve(counts) for side, _ in sides])
        if value is not None:
            drawn.append(value)
    whole = combined([side.whole() for side, _ in sides])
    return _percentiles(whole, drawn, replicates, confidence)


class Resampler:
    """Rows in the order of their scores, ready to be counted under many weightings."""

    def __init__(self, label: ArrayLike, score: ArrayLike, weight: ArrayLike | None, groups: ArrayLike | None) -> None:
        given = np.ones(np.shape(label)) if weight is None else np.asarray(weight, dtype=np.float64)
        labels, scores, weights = checked_rows(label, score, weight)
        order = np.argsort(-scores, kind="stable")
        self._weight = weights[order]
        self._positive = labels[order] * self._weight
        scores = scores[order]
        self._ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True) & (scores > -np.inf))
        self._threshold = scores[self._ends]
        codes = group_codes(groups, len(given))
        rows = np.arange(len(scores)) if codes is None else np.unique(codes[given > 0.0], return_inverse=True)[1]
        self._unit = rows[order]  # drawn by the row's place in the input: two scores can share their draws
        self._units = int(rows.max()) + 1

    def whole(self) -> PRCurve:
        """All rows once; :func:`checked_rows` saw both classes."""
        return cast(PRCurve, self._counted(np.ones(len(self._weight))))

    def draw(self, rng: np.random.Generator) -> FloatArray:
        """How often each unit is drawn: multinomial counts."""
        return np.bincount(rng.integers(0, self._units, self._units), minlength=self._units).astype(np.float64)

    def curve(self, counts: FloatArray) -> PRCurve | None:
        """The curve of one draw; None if it holds one class only."""
        return self._counted(counts[self._unit])

    def _counted(self, times: FloatArray) -> PRCurve | None:
        true_positive, predicted = np.cumsum(self._positive * times), np.cumsum(self._weight * times)
        positives, total = float(true_positive[-1]), float(predicted[-1])
        if not 0.0 < positives < total:
            return None
        if len(self._threshold) < len(times):
            true_positive, predicted = true_positive[self._ends], predicted[self._ends]
        # thresholds above the first row drawn predict nothing
        first = int(np.searchsorted(predicted, 0.0, side="right"))
        return PRCurve(self._threshold[first:], true_positive[first:], predicted[first:], positives, total)


def group_codes(groups: ArrayLike | None, n: int) -> NDArray[np.intp] | None:
    """Groups as whole numbers [n]; a missing key (None, NaN, empty text) is a group of its own.

    Whole numbers are taken as they are, so that rows which are cut many times need be numbered once.

    Raises:
        DataError: not one key per row.
    """
    if groups is None:
        return None
    if isinstance(groups, np.ndarray) and groups.dtype == np.intp and groups.shape == (n,):
        return groups
    keys = np.asarray(groups, dtype=object)
    if keys.shape != (n,):
        raise DataError(f"groups: expected one key per row ({n}), got shape {keys.shape}")
    alone = np.array([key is None or key != key or key == "" for key in keys.tolist()], dtype=bool)
    codes = np.empty(n, dtype=np.intp)
    names, known = np.unique([str(key) for key in keys[~alone].tolist()], return_inverse=True)
    codes[~alone] = known
    codes[alone] = len(names) + np.arange(int(alone.sum()))
    return codes


def _percentiles(value: float | None, drawn: list[float], replicates: int, confidence: float) -> Interval:
    undefined = 1.0 - len(drawn) / replicates
    if value is None or len(drawn) < min(MIN_REPLICATES, replicates):
        return Interval(value, None, None, undefined)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(drawn, (tail, 1.0 - tail))
    return Interval(value, float(low), float(high), undefined)
