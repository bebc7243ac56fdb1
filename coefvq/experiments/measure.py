"""The final evaluation: frozen rows on test, with a bootstrap over clips and seeds that all rows share.

A replicate draws clips (whole groups, where there are any) and seeds once for all rows of an issue, so that any two
rows can be compared: the difference of their figures has an interval of its own. Labels are the known posterior where
the world is synthetic. A precision that no threshold reaches counts as recall 0, in values and in intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coefvq.cascade.curves import FloatArray, PRCurve, curve_at_threshold, curve_recall_at_precision
from coefvq.cascade.policy import CascadePolicy
from coefvq.errors import DataError
from coefvq.evaluation.intervals import Interval, Resampler
from coefvq.evaluation.metrics import curve_roc_auc, recall_key
from coefvq.experiments.scores import RANDOM, Frozen, Row, Side, draws, stacked_score

#: F1 at the threshold from validation, and the best over thresholds on test, which nobody can choose beforehand
F1, BEST = "f1", "f1_best_on_test"
_TAIL = 0.025


@dataclass(frozen=True)
class MeasureSettings:
    """P of R@P in percent, bootstrap replicates, seed of the draws."""

    precision_targets: Sequence[float]
    replicates: int
    seed: int

    @property
    def figures(self) -> tuple[str, ...]:
        """Keys of the figures, in the order of the columns of :class:`Measured`."""
        return (F1, BEST, *(recall_key(target) for target in self.precision_targets), "roc_auc")


@dataclass(frozen=True)
class Measured:
    """``values`` [1 + replicates, figures] per row: first the estimate, then the replicates, mean over seeds."""

    figures: tuple[str, ...]
    values: Mapping[str, FloatArray]
    n: int
    positives: float
    soft: bool

    def interval(self, row: str, figure: str) -> Interval:
        """A figure with its 95 % interval."""
        return _interval(self._column(row, figure))

    def difference(self, one: str, other: str, figure: str, other_figure: str | None = None) -> Interval:
        """One minus the other on the same draws."""
        return _interval(self._column(one, figure) - self._column(other, other_figure or figure))

    def gain(self, pair: tuple[str, str], than: tuple[str, str], figure: str) -> Interval:
        """How much larger the difference of one pair is than that of another."""
        first = self._column(pair[0], figure) - self._column(pair[1], figure)
        return _interval(first - (self._column(than[0], figure) - self._column(than[1], figure)))

    def ratio(self, one: str, other: str, figure: str) -> Interval:
        """One divided by the other on the same draws; no value where the other is 0."""
        below = self._column(other, figure)
        share = np.divide(self._column(one, figure), below, out=np.full_like(below, np.nan), where=below > 0.0)
        return _interval(share)

    def _column(self, row: str, figure: str) -> FloatArray:
        return self.values[row][:, self.figures.index(figure)]


def measure(whole: Side, rows: Sequence[Row], settings: MeasureSettings, groups: Mapping[str, Any] | None) -> Measured:
    """Figures of every row that has one :class:`Frozen` per seed.

    Args:
        groups: video id -> what is drawn as a whole with it; None: each video by itself.

    Raises:
        DataError: test holds no labelled video, or one class only.
    """
    test = whole.table[(whole.table["split"] == "test") & whole.table["label"].notna()].reset_index(drop=True)
    if not len(test):
        raise DataError(f"{whole.issue}: no labelled video in split 'test'; label more or change split.fractions")
    soft = whole.known("posterior")
    label = test["posterior" if soft else "label"].to_numpy(np.float64, na_value=np.nan)
    weight = test["weight"].to_numpy(np.float64)
    keys = None if groups is None else test["video_id"].map(dict(groups)).to_numpy(dtype=object)
    side = Side(whole.issue, test, whole.seeds)
    counts: list[FloatArray] | None = None
    values: dict[str, FloatArray] = {}
    picks = np.random.default_rng([settings.seed, 1])
    seeds = [picks.integers(0, len(whole.seeds), len(whole.seeds)) for _ in range(settings.replicates)]
    for row in rows:
        each = []
        for part in row.parts:
            sampler = Resampler(label, final_score(side, part), weight, keys)
            if counts is None:
                rng = np.random.default_rng(settings.seed)
                counts = [sampler.draw(rng) for _ in range(settings.replicates)]
            each.append(_replicates(sampler, counts, part.threshold, settings))
        if each:
            values[row.name] = _over_seeds(np.stack(each), seeds)
    return Measured(settings.figures, values, len(test), float(label.sum()), soft)


def final_score(side: Side, part: Frozen) -> FloatArray:
    """What a row ranks videos by, [n]; −inf for a video that the cascade filters out."""
    mllm, views = _scores(side, part.score), side.table["views"].to_numpy(np.float64, na_value=np.nan)
    if part.policy is None:
        return mllm
    base = _scores(side, part.base)
    if part.stack is not None:
        mllm = stacked_score(part.stack, base, mllm)
    policy: CascadePolicy = part.policy
    return np.asarray(policy.ranking_score(base, mllm, views), dtype=np.float64)


def _scores(side: Side, name: str) -> FloatArray:
    model, _, seed = name.partition("@")
    if model == RANDOM:
        return draws(side, int(seed))
    return np.asarray(side.table[name].to_numpy(np.float64, na_value=np.nan))


def _replicates(
    sampler: Resampler, counts: Sequence[FloatArray], threshold: float, settings: MeasureSettings
) -> FloatArray:
    curves = [sampler.whole(), *(sampler.curve(drawn) for drawn in counts)]
    none = (np.nan,) * len(settings.figures)
    return np.array([none if curve is None else _figures(curve, threshold, settings) for curve in curves])


def _figures(curve: PRCurve, threshold: float, settings: MeasureSettings) -> tuple[float, ...]:
    recalls = (curve_recall_at_precision(curve, target / 100.0).recall for target in settings.precision_targets)
    best = float(curve.f1.max(initial=0.0))
    return (curve_at_threshold(curve, threshold).f1, best, *recalls, curve_roc_auc(curve))


def _over_seeds(each: FloatArray, seeds: Sequence[NDArray[np.int64]]) -> FloatArray:
    """[seeds, 1 + replicates, figures] → mean over seeds: all of them first, then those drawn."""
    if len(each) == 1:  # yardsticks have no seed
        return np.asarray(each[0])
    drawn = [each[chosen, at + 1].mean(axis=0) for at, chosen in enumerate(seeds)]
    return np.stack([each[:, 0].mean(axis=0), *drawn])


def _interval(values: FloatArray) -> Interval:
    drawn = values[1:][~np.isnan(values[1:])]
    value = None if np.isnan(values[0]) else float(values[0])
    undefined = 1.0 - len(drawn) / max(len(values) - 1, 1)
    if value is None or len(drawn) < 2:
        return Interval(value, None, None, undefined)
    low, high = np.quantile(drawn, (_TAIL, 1.0 - _TAIL))
    return Interval(value, float(low), float(high), undefined)
