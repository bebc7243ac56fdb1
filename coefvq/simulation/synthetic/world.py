"""Exact probabilities of the synthetic world: P(label | true factors) and P(label | what a view shows).

The seven factors have some 10^5 combinations of levels, so every expectation is a plain sum over one array
with an axis per factor (in the order of ``FACTOR_TYPES``); nothing here is sampled but the two draws.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coefvq.errors import DataError
from coefvq.simulation.synthetic.channel import channel_matrix
from coefvq.simulation.synthetic.factors import FACTOR_TYPES, PRIOR, Factors
from coefvq.simulation.synthetic.odds import ISSUES

Array = NDArray[np.float64]

#: the factors whose shown level a scorer of each kind has. Stickers are drawn into the frames, so a bound
#: for whatever looks at frames must allow for reading them; text adds title and claim, and the sound comes last.
VIEWS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "vision": frozenset({"object", "action", "sticker", "edit"}),
        "vision+text": frozenset({"object", "action", "sticker", "edit", "topic", "claim"}),
        "all": frozenset(FACTOR_TYPES),
    }
)

# the sigmoid of ±36 is the last one that float64 tells from 0 and 1
_MAX_LOGIT = 36.0
_BISECTIONS = 80
_LOGIT_DECIMALS = 9
_LETTERS = "abcdefg"


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


def raw_logit(issue: str, truth: Factors) -> float:
    """Log-odds of the issue given the true factors, without intercept."""
    table, levels = ISSUES[issue], [getattr(truth, name) for name in FACTOR_TYPES]
    main = sum(table.main.get(level, 0.0) for level in levels)
    pairs = sum(table.pairs.get(pair, 0.0) for pair in itertools.combinations(levels, 2))
    return table.sharpness * (main + pairs)


@lru_cache
def true_mass() -> Array:
    """P(true factors), one axis per factor; sums to 1."""
    return _outer([np.array([PRIOR[level] for level in kind]) for kind in FACTOR_TYPES.values()])


@lru_cache
def shown_mass() -> Array:
    """P(shown factors), one axis per factor; sums to 1."""
    priors = {name: np.array([PRIOR[level] for level in kind]) for name, kind in FACTOR_TYPES.items()}
    return _outer([prior @ channel_matrix(name) for name, prior in priors.items()])


@lru_cache
def logits(issue: str) -> Array:
    """``raw_logit`` of every combination of true levels, one axis per factor."""
    table, kinds = ISSUES[issue], list(FACTOR_TYPES.values())
    axis_of = {level: (axis, row) for axis, kind in enumerate(kinds) for row, level in enumerate(kind)}
    grid = np.zeros([len(kind) for kind in kinds])
    effects = [*(((level,), value) for level, value in table.main.items()), *table.pairs.items()]
    for levels, value in effects:
        where: list[int | slice] = [slice(None)] * len(kinds)
        for level in levels:
            axis, where[axis] = axis_of[level]
        grid[tuple(where)] += value
    return table.sharpness * grid


def sigmoid(values: Array) -> Array:
    """1 / (1 + exp(-x)), kept strictly inside (0, 1)."""
    return 1.0 / (1.0 + np.exp(-np.clip(values, -_MAX_LOGIT, _MAX_LOGIT)))


@lru_cache(maxsize=256)
def calibrated_intercept(issue: str, prevalence: float) -> float:
    """The intercept at which P(label = 1) over the factor prior is ``prevalence`` (to about 1e-10)."""
    values, mass = _distinct_logits(issue)
    low, high = -200.0, 200.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        mean = float((sigmoid(values + middle) * mass).sum())
        low, high = (middle, high) if mean < prevalence else (low, middle)
    return (low + high) / 2


def chance(issue: str, truth: Factors, prevalence: float) -> float:
    """P(label = 1 | true factors) once the issue is calibrated to ``prevalence``; strictly in (0, 1)."""
    return float(sigmoid(np.array(raw_logit(issue, truth) + calibrated_intercept(issue, prevalence))))


@lru_cache(maxsize=16)
def shown_positives(issue: str, prevalence: float) -> Array:
    """P(shown factors, label = 1), one axis per factor; sums to ``prevalence``."""
    mass = sigmoid(logits(issue) + calibrated_intercept(issue, prevalence)) * true_mass()
    for axis, name in enumerate(FACTOR_TYPES):
        shown = _LETTERS.replace(_LETTERS[axis], "z")
        # einsum without BLAS: the same bits however many threads there are
        mass = np.einsum(f"{_LETTERS},{_LETTERS[axis]}z->{shown}", mass, channel_matrix(name))
    return mass


@lru_cache(maxsize=32)
def view_masses(issue: str, prevalence: float, view: str) -> tuple[Array, Array]:
    """P(shown, label = 1) and P(shown) of what ``view`` shows; axes of unseen factors have length 1."""
    hidden = tuple(axis for axis, name in enumerate(FACTOR_TYPES) if name not in VIEWS[view])
    positives = shown_positives(issue, prevalence).sum(axis=hidden, keepdims=True)
    return positives, shown_mass().sum(axis=hidden, keepdims=True)


def posterior(issue: str, shown: Factors, prevalence: float, view: str = "all") -> float:
    """Exact P(label = 1 | what ``view`` shows of a video): the true factors are summed out."""
    positives, mass = view_masses(issue, prevalence, view)
    where = tuple(
        list(kind).index(getattr(shown, name)) if name in VIEWS[view] else 0 for name, kind in FACTOR_TYPES.items()
    )
    return float(positives[where] / mass[where])


def draw_truth(rng: np.random.Generator) -> Factors:
    """Draw every true level from its prior, independently."""
    return _draw(rng, {name: [PRIOR[level] for level in kind] for name, kind in FACTOR_TYPES.items()})


def draw_shown(rng: np.random.Generator, truth: Factors) -> Factors:
    """Draw what the clip shows of each factor, through its channel."""
    rows = {name: list(kind).index(getattr(truth, name)) for name, kind in FACTOR_TYPES.items()}
    return _draw(rng, {name: channel_matrix(name)[row].tolist() for name, row in rows.items()})


def _draw(rng: np.random.Generator, weights: Mapping[str, list[float]]) -> Factors:
    levels: dict[str, Any] = {}
    for name, kind in FACTOR_TYPES.items():
        edges = np.cumsum(weights[name])
        levels[name] = list(kind)[int(np.searchsorted(edges / edges[-1], rng.random(), side="right"))]
    return Factors(**levels)


def _outer(vectors: list[Array]) -> Array:
    product = np.ones(())
    for vector in vectors:
        product = np.multiply.outer(product, vector)
    return np.asarray(product)


@lru_cache
def _distinct_logits(issue: str) -> tuple[Array, Array]:
    """Each value that occurs among ``logits`` once, with its mass: a few hundred instead of 10^5."""
    values, place = np.unique(np.round(logits(issue), _LOGIT_DECIMALS), return_inverse=True)
    return values, np.asarray(np.bincount(place.ravel(), true_mass().ravel()), dtype=np.float64)
