"""Decisions counted on the test split: what is flagged, missed and asked, and where two deciders differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coefvq.cascade.curves import FloatArray, PRCurve, curve_at_threshold
from coefvq.cascade.escalation import BoolArray
from coefvq.cascade.policy import CascadePolicy
from coefvq.evaluation.intervals import bootstrap_difference, group_codes

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class TestVideos:
    """Labelled test videos as columns [n], in the order of ``video_id``.

    ``group`` is what the bootstrap draws, as whole numbers: videos of one creator or source resemble each other; None:
    each on its own.
    """

    __test__ = False  # not a test class, whatever pytest thinks of the name

    video_id: tuple[str, ...]
    label: FloatArray
    weight: FloatArray
    base: FloatArray
    mllm: FloatArray
    views: FloatArray
    group: NDArray[np.intp] | None

    @classmethod
    def of(cls, scores: pd.DataFrame, manifest: pd.DataFrame | None, group_by: str | None = None) -> TestVideos:
        """The labelled test rows of a scores table, grouped by a column of the manifest where both are given."""
        rows = scores[(scores["split"] == "test") & scores["label"].notna()].sort_values("video_id")
        columns = {
            name: rows[name].to_numpy(dtype=np.float64, na_value=np.nan)
            for name in ("label", "weight", "base", "mllm", "views")
        }
        names = tuple(map(str, rows["video_id"]))
        return cls(video_id=names, group=_groups(names, manifest, group_by), **columns)


def _groups(names: Sequence[str], manifest: pd.DataFrame | None, column: str | None) -> NDArray[np.intp] | None:
    if manifest is None or column is None or column not in manifest:
        return None
    keys = manifest.set_index(manifest["video_id"].astype(str))[column].reindex(list(names))
    return group_codes(keys.astype("str").to_numpy("object"), len(names))


@dataclass(frozen=True)
class Decided:
    """One decider's answers: ``positive`` and ``asked`` (whether the MLLM was called), both bool [n]."""

    name: str
    positive: BoolArray
    asked: BoolArray


@dataclass(frozen=True)
class Per1000:
    """Counts per 1,000 videos such as those of the test split.

    ``missed`` = ``missed_filtered`` (the base model let them go) + ``missed_rejected`` (the MLLM did).
    """

    name: str
    calls: float
    right: float
    wrong: float
    missed: float
    missed_filtered: float
    missed_rejected: float
    n: int
    positives: int

    @property
    def flagged(self) -> float:
        """All that are flagged."""
        return self.right + self.wrong

    def whole(self) -> Whole:
        """As whole numbers."""
        right, filtered, rejected = _rounded([self.right, self.missed_filtered, self.missed_rejected])
        return Whole(round(self.calls), right, round(self.wrong), filtered, rejected)

    @property
    def precision(self) -> float | None:
        """Share of the flagged that are right; None where nothing is flagged."""
        return self.right / self.flagged if self.flagged > 0 else None

    @property
    def recall(self) -> float:
        """Share of the positives that are flagged."""
        return self.right / (self.right + self.missed)

    @property
    def f1(self) -> float:
        """Harmonic mean of both."""
        return 2 * self.right / (2 * self.right + self.wrong + self.missed)


@dataclass(frozen=True)
class Whole:
    """Counts per 1,000 videos as they are shown: parts add up, and all deciders have the same positives."""

    calls: int
    right: int
    wrong: int
    missed_filtered: int
    missed_rejected: int

    @property
    def flagged(self) -> int:
        """All that are flagged."""
        return self.right + self.wrong

    @property
    def missed(self) -> int:
        """All positives that are not flagged."""
        return self.missed_filtered + self.missed_rejected


def _rounded(parts: Sequence[float]) -> list[int]:
    """Whole numbers that add up to the rounded sum; the largest remainders are rounded up (Hamilton's method)."""
    floors = [math.floor(part) for part in parts]
    left = round(sum(parts)) - sum(floors)
    order = sorted(range(len(parts)), key=lambda at: floors[at] - parts[at])
    return [floor + (at in order[:left]) for at, floor in enumerate(floors)]


def cascade(name: str, policy: Mapping[str, Any], videos: TestVideos) -> Decided:
    """What a pair's policy makes of its scores."""
    made = CascadePolicy.from_dict(policy, f"policy of {name}")
    return Decided(
        name,
        positive=made.decide(videos.base, videos.mllm, videos.views),
        asked=made.escalates(videos.base, videos.views),
    )


def alone(name: str, score: FloatArray, threshold: float, asked: bool) -> Decided:
    """One model on every video."""
    return Decided(name, positive=score >= threshold, asked=np.full(score.shape, asked))


def per_1000(decided: Decided, videos: TestVideos) -> Per1000:
    """Weighted counts, scaled to 1,000 videos."""
    scale = 1000.0 * videos.weight / videos.weight.sum()
    truth = videos.label > 0.5

    def count(mask: BoolArray) -> float:
        return float(scale[mask].sum())

    missed = truth & ~decided.positive
    return Per1000(
        name=decided.name,
        calls=count(decided.asked),
        right=count(decided.positive & truth),
        wrong=count(decided.positive & ~truth),
        missed=count(missed),
        missed_filtered=count(missed & ~decided.asked),
        missed_rejected=count(missed & decided.asked),
        n=len(truth),
        positives=int(truth.sum()),
    )


@dataclass(frozen=True)
class Change:
    """F1 of ``new`` minus that of ``old`` on the same videos, with a 95 % bootstrap interval, in points."""

    points: float
    low: float
    high: float
    gained: int
    lost: int

    @property
    def clear(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def change(new: Decided, old: Decided, videos: TestVideos) -> Change:
    """Compare two deciders on the same videos; the bootstrap draws whole groups, and one draw for both."""
    truth = videos.label > 0.5
    # a decision is a score with one threshold
    sides = [(np.where(side.positive, 1.0, -np.inf), _f1) for side in (new, old)]
    found = bootstrap_difference(videos.label, sides[0], sides[1], videos.weight, groups=videos.group)
    value, low, high = (100.0 * (end or 0.0) for end in (found.value, found.low, found.high))
    right_new, right_old = new.positive == truth, old.positive == truth
    gained, lost = int((right_new & ~right_old).sum()), int((~right_new & right_old).sum())
    return Change(value, low, high, gained, lost)


def _f1(curve: PRCurve) -> float:
    return curve_at_threshold(curve, 0.5).f1


def differing(new: Decided, old: Decided, videos: TestVideos, limit: int) -> tuple[list[int], list[int]]:
    """Positions of videos that ``new`` gets right and ``old`` wrong, and the reverse; at most ``limit`` each.

    Half positives, half negatives where both exist, those first whose two MLLM or base scores are furthest
    from being alike, so that the examples show a difference and not a coin toss at a threshold.
    """
    truth = videos.label > 0.5
    gained = (new.positive == truth) & (old.positive != truth)
    lost = (new.positive != truth) & (old.positive == truth)
    distance = np.abs(videos.mllm - videos.base)
    return _mixed(gained, truth, distance, limit), _mixed(lost, truth, distance, limit)


def _mixed(chosen: BoolArray, truth: BoolArray, distance: FloatArray, limit: int) -> list[int]:
    ordered = [[int(i) for i in np.flatnonzero(chosen & kind) if np.isfinite(distance[i])] for kind in (truth, ~truth)]
    first, second = (sorted(items, key=lambda i: -distance[i]) for items in ordered)
    half = max(limit // 2, limit - len(second))
    picked = first[:half]
    return [*picked, *second[: limit - len(picked)]]
