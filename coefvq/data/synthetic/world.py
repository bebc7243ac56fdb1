"""Exact probabilities of the synthetic world: posterior, calibration, and what the best scorer reaches.

Both issues depend on a few hundred cells at most (one cell = one combination of factor levels), so
every expectation over the factor prior is a plain sum; nothing here is sampled except ``draw_factors``.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from coefvq.data.synthetic.factors import (
    FACTOR_TYPES,
    ISSUES,
    PRIOR,
    VIEWS,
    Action,
    Claim,
    Edit,
    Factors,
    Object,
    Sound,
    Sticker,
    Topic,
)
from coefvq.errors import DataError

Array = NDArray[np.float64]
Level = TypeVar("Level", bound=Enum)

# the sigmoid of ±36 is the last one that float64 tells from 0 and 1
_MAX_LOGIT = 36.0
_BISECTIONS = 200
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Cells:
    """All level combinations of one issue: ``weights`` (prior, sums to 1) and raw ``logits``, one axis per factor."""

    factors: tuple[str, ...]
    weights: Array
    logits: Array


def check_prevalence(prevalence: Mapping[str, float]) -> dict[str, float]:
    """Return ``prevalence`` in the order of ``ISSUES``.

    Raises:
        DataError: an issue is unknown or missing, or a value is not strictly between 0 and 1.
    """
    known = ", ".join(ISSUES)
    for issue, value in prevalence.items():
        if issue not in ISSUES:
            raise DataError(f"prevalence.{issue}: the synthetic world has no such issue; use {known}")
        if not 0.0 < value < 1.0:
            raise DataError(f"prevalence.{issue} = {value}: expected a fraction between 0 and 1, such as 0.07")
    missing = [issue for issue in ISSUES if issue not in prevalence]
    if missing:
        raise DataError(f"prevalence.{missing[0]}: missing; give a fraction for each of {known}")
    return {issue: float(prevalence[issue]) for issue in ISSUES}


def raw_logit(issue: str, levels: Sequence[Enum]) -> float:
    """Log-odds without intercept; ``levels`` in the order of the issue's ``factors``."""
    table = ISSUES[issue]
    main = sum(table.main.get(level, 0.0) for level in levels)
    pairs = sum(table.pairs.get(pair, 0.0) for pair in itertools.combinations(levels, 2))
    return table.sharpness * (main + pairs)


@lru_cache
def cells(issue: str) -> Cells:
    """Enumerate an issue's level combinations."""
    factors = ISSUES[issue].factors
    axes = [list(FACTOR_TYPES[name]) for name in factors]
    shape = [len(axis) for axis in axes]
    combinations = list(itertools.product(*axes))
    weights = np.array([np.prod([PRIOR[level] for level in levels]) for levels in combinations])
    logits = np.array([raw_logit(issue, levels) for levels in combinations])
    return Cells(factors, (weights / weights.sum()).reshape(shape), logits.reshape(shape))


def sigmoid(logits: Array) -> Array:
    """1 / (1 + exp(-x)), kept strictly inside (0, 1)."""
    return 1.0 / (1.0 + np.exp(-np.clip(logits, -_MAX_LOGIT, _MAX_LOGIT)))


@lru_cache
def calibrated_intercept(issue: str, prevalence: float) -> float:
    """The intercept at which the mean posterior over the factor prior is ``prevalence`` (to about 1e-15)."""
    table = cells(issue)
    low, high = -200.0, 200.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        mean = float((sigmoid(table.logits + middle) * table.weights).sum())
        low, high = (middle, high) if mean < prevalence else (low, middle)
    return (low + high) / 2


def posterior(issue: str, factors: Factors, prevalence: float) -> float:
    """Exact P(label = 1 | factors) once the issue is calibrated to ``prevalence``; strictly in (0, 1)."""
    levels = [getattr(factors, name) for name in ISSUES[issue].factors]
    logit = raw_logit(issue, levels) + calibrated_intercept(issue, prevalence)
    return float(sigmoid(np.array(logit)))


def draw_factors(rng: np.random.Generator) -> Factors:
    """Draw every factor from its prior, independently."""
    return Factors(
        object=_draw_level(rng, Object),
        action=_draw_level(rng, Action),
        topic=_draw_level(rng, Topic),
        sticker=_draw_level(rng, Sticker),
        edit=_draw_level(rng, Edit),
        claim=_draw_level(rng, Claim),
        sound=_draw_level(rng, Sound),
    )


def _draw_level(rng: np.random.Generator, kind: type[Level]) -> Level:
    levels = list(kind)
    edges = np.cumsum([PRIOR[level] for level in levels])
    return levels[int(np.searchsorted(edges / edges[-1], rng.random(), side="right"))]


def bayes_table(
    prevalence: Mapping[str, float], precision_targets: Sequence[float]
) -> dict[str, dict[str, dict[str, float]]]:
    """What the best possible scorer of each view reaches on the whole population.

    ``precision_targets`` in percent. The result is ``{issue: {view: figures}}`` with figures ``f1``
    (best threshold), ``recall_at_p<target>`` (highest recall at that precision or better, 0 where none
    reaches it) and ``auc`` (ROC), all in [0, 1]. A view's scorer is the posterior given only the
    factors it sees (``factors.VIEWS``); the others are summed out.

    Raises:
        DataError: ``prevalence`` does not fit (see ``check_prevalence``).
    """
    return {
        issue: {
            view: _population_figures(*_marginal(cells(issue), value, issue, seen), precision_targets)
            for view, seen in VIEWS.items()
        }
        for issue, value in check_prevalence(prevalence).items()
    }


def _marginal(table: Cells, prevalence: float, issue: str, seen: frozenset[str]) -> tuple[Array, Array]:
    """Mass of positives and total mass per combination of the factors in ``seen``; both flat."""
    hidden = tuple(axis for axis, name in enumerate(table.factors) if name not in seen)
    positives = sigmoid(table.logits + calibrated_intercept(issue, prevalence)) * table.weights
    return positives.sum(axis=hidden).ravel(), table.weights.sum(axis=hidden).ravel()


def _population_figures(positives: Array, mass: Array, targets: Sequence[float]) -> dict[str, float]:
    # cells of equal score fall on the same side of any threshold, also where rounding tells them apart
    _, group = np.unique(-np.round(positives / mass / _ROUNDING), return_inverse=True)
    found = np.bincount(group, positives)
    false = np.bincount(group, mass - positives)
    true_positives, false_positives = np.cumsum(found), np.cumsum(false)
    recall = true_positives / true_positives[-1]
    precision = true_positives / (true_positives + false_positives)
    ranked_above = true_positives - found / 2  # ties count half

    def reached(target: float) -> NDArray[np.bool_]:
        return precision >= target / 100 - _ROUNDING

    return {
        "f1": float((2 * precision * recall / (precision + recall)).max()),
        **{f"recall_at_p{t:g}": float(recall[reached(t)].max(initial=0.0)) for t in targets},
        "auc": float((false * ranked_above).sum() / (true_positives[-1] * false_positives[-1])),
    }
