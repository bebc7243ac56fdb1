"""Correlated binormal scores: two models' scores with given R@P curves, for `paper_tables.py` and for what-ifs.

In each class both latent scores are jointly normal. Negatives are standard normal; positives have a mean
(``shift``) and a standard deviation (``scale``) per model; the two models' correlation may differ by class.
The binormal ROC model is Dorfman and Alf's (1969). Only the order of scores matters to a cascade, so the
sample's scores are the latent ones pressed into (0, 1).

Everything but ``ScoreSimulator.sample`` is computed by quadrature, not by drawing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import brentq, least_squares, minimize_scalar
from scipy.special import ndtr

from coefvq.cascade.curves import FloatArray

_GRID = np.linspace(-4.0, 12.0, 1601)
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(96)
_CORRELATIONS = np.array([0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98])
_TAIL = 9.0  # standard deviations beyond which a normal holds nothing that a float can tell from 0


@dataclass(frozen=True)
class Binormal:
    """Latent score of one model: negatives N(0, 1), positives N(``shift``, ``scale``²)."""

    shift: float
    scale: float

    def recall(self, threshold: FloatArray | float) -> FloatArray:
        """Share of positives at or above a latent threshold."""
        return np.asarray(ndtr((self.shift - np.asarray(threshold)) / self.scale))

    def precision(self, threshold: FloatArray | float, prevalence: float) -> FloatArray:
        """Share of positives among what is at or above a latent threshold."""
        hits = prevalence * self.recall(threshold)
        false = (1.0 - prevalence) * np.asarray(ndtr(-np.asarray(threshold)))
        return np.asarray(hits / (hits + false))

    def threshold_at(self, precision: float, prevalence: float) -> float | None:
        """Lowest latent threshold with that precision, which has the highest recall; None if there is none."""
        reached = self.precision(_GRID, prevalence) >= precision
        if not reached.any():
            return None
        first = int(np.argmax(reached))
        if first == 0:
            return float(_GRID[0])
        return float(brentq(lambda t: float(self.precision(t, prevalence)) - precision, _GRID[first - 1], _GRID[first]))

    def recall_at_precision(self, precision: float, prevalence: float) -> float:
        """R@P as a share; 0 where the precision is not reached."""
        threshold = self.threshold_at(precision, prevalence)
        return 0.0 if threshold is None else float(self.recall(threshold))


@dataclass(frozen=True)
class SimulatedScores:
    """Columns [n]: labels 0/1 and both models' scores in (0, 1)."""

    label: FloatArray
    base: FloatArray
    mllm: FloatArray


@dataclass(frozen=True)
class ScoreSimulator:
    """Both models' latent scores at one prevalence; correlations are those within a class."""

    prevalence: float
    base: Binormal
    mllm: Binormal
    positive_correlation: float
    negative_correlation: float

    def qps_ratio(self, p_base: float) -> float | None:
        """MLLM calls per 100 videos when the base model must reach ``p_base`` percent; None if it cannot."""
        threshold = self.base.threshold_at(p_base / 100.0, self.prevalence)
        if threshold is None:
            return None
        hits = self.prevalence * float(self.base.recall(threshold))
        return 100.0 * (hits + (1.0 - self.prevalence) * float(ndtr(-threshold)))

    def cascade_recall(self, p_base: float, precision: float) -> float:
        """R@P of the cascade as a share, filtered-out videos counted as negatives; both arguments in percent."""
        threshold = self.base.threshold_at(p_base / 100.0, self.prevalence)
        if threshold is None:
            return 0.0
        hits, false = self._positives.above(threshold), self._negatives.above(threshold)
        hits, false = self.prevalence * hits, (1.0 - self.prevalence) * false
        reached = hits >= precision / 100.0 * (hits + false)
        return float(np.max(np.where(reached, hits, 0.0)) / self.prevalence)

    def sample(self, n: int, seed: int) -> SimulatedScores:
        """Draw ``n`` videos."""
        rng = np.random.default_rng(seed)
        label = rng.random(n) < self.prevalence
        first, second = rng.standard_normal((2, n))
        rho = np.where(label, self.positive_correlation, self.negative_correlation)
        second = rho * first + np.sqrt(1.0 - rho**2) * second
        columns = [
            np.asarray(ndtr((np.where(label, m.shift + m.scale * z, z) - m.shift) / max(m.scale, 1.0)))
            for m, z in ((self.base, first), (self.mllm, second))
        ]
        return SimulatedScores(label.astype(np.float64), *columns)

    @cached_property
    def _positives(self) -> _Pair:
        return _Pair(self.base, self.mllm, self.positive_correlation)

    @cached_property
    def _negatives(self) -> _Pair:
        return _Pair(_STANDARD, _STANDARD, self.negative_correlation)


@dataclass(frozen=True)
class _Pair:
    """Both scores within one class."""

    base: Binormal
    mllm: Binormal
    correlation: float

    def above(self, threshold: float) -> FloatArray:
        """P(base >= threshold and mllm >= u) for each u of the grid, by Gauss-Legendre over the base score."""
        low = np.clip((threshold - self.base.shift) / self.base.scale, -_TAIL, _TAIL)
        half = (_TAIL - low) / 2.0
        x = low + half * (_NODES + 1.0)
        density = half * _NODE_WEIGHTS * np.exp(-(x**2) / 2.0) / np.sqrt(2.0 * np.pi)
        u = (_GRID[:, None] - self.mllm.shift) / self.mllm.scale
        conditional = ndtr((self.correlation * x[None, :] - u) / np.sqrt(1.0 - self.correlation**2))
        return np.asarray(conditional @ density)


_STANDARD = Binormal(0.0, 1.0)


def fit_binormal(recall_at: Mapping[float, float], prevalence: float) -> Binormal:
    """Least squares on R@P: two parameters against as many points as are given; percent in."""
    targets = np.array(sorted(recall_at)) / 100.0
    wanted = np.array([recall_at[target] for target in sorted(recall_at)]) / 100.0

    def miss(x: FloatArray) -> FloatArray:
        model = Binormal(float(x[0]), float(np.exp(x[1])))
        return np.array([model.recall_at_precision(float(p), prevalence) for p in targets]) - wanted

    # an R@P that is not reached is flat in the parameters: start where all are
    fitted = least_squares(miss, [3.5, 0.0], diff_step=1e-5)
    return Binormal(float(fitted.x[0]), float(np.exp(fitted.x[1])))


def fit_prevalence(base_recall_at: Mapping[float, float], qps: Mapping[float, float], low: float, high: float) -> float:
    """The prevalence in [``low``, ``high``] whose fitted base model comes nearest to the QPS ratios, in ratio.

    Args:
        base_recall_at: P -> R@P of the base model alone, percent.
        qps: P_base -> QPS ratio, percent.
    """

    def miss(prevalence: float) -> float:
        base = fit_binormal(base_recall_at, prevalence)
        simulator = ScoreSimulator(prevalence, base, base, 0.0, 0.0)
        return sum(float(np.log((simulator.qps_ratio(p) or 100.0) / ratio)) ** 2 for p, ratio in qps.items())

    return float(minimize_scalar(miss, bounds=(low, high), method="bounded", options={"xatol": 1e-5}).x)


def fit_simulator(
    prevalence: float,
    base_recall_at: Mapping[float, float],
    mllm_recall_at: Mapping[float, float],
    cascade: Sequence[tuple[float, Mapping[float, float]]],
) -> ScoreSimulator:
    """Fit each model to its own R@P, then the two correlations to the cascade's.

    Args:
        prevalence: share.
        base_recall_at: P -> R@P of the base model alone, percent.
        mllm_recall_at: the same of the MLLM.
        cascade: rows of P_base and the cascade's P -> R@P, percent.
    """
    base, mllm = fit_binormal(base_recall_at, prevalence), fit_binormal(mllm_recall_at, prevalence)

    def simulated(x: FloatArray) -> ScoreSimulator:
        return ScoreSimulator(prevalence, base, mllm, float(np.tanh(x[0])), float(np.tanh(x[1])))

    def miss(x: FloatArray) -> FloatArray:
        simulator = simulated(x)
        return np.array(
            [simulator.cascade_recall(p_base, p) - r / 100.0 for p_base, row in cascade for p, r in row.items()]
        )

    # several valleys: look over a coarse grid, then descend from its best point
    grid = np.arctanh(_CORRELATIONS)
    start = min(((p, n) for p in grid for n in grid), key=lambda x: float(np.sum(miss(np.array(x)) ** 2)))
    return simulated(least_squares(miss, start, diff_step=1e-3, bounds=(-2.4, 2.4)).x)
