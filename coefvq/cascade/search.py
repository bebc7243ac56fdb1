"""Threshold search as in the paper: the base threshold from P_base, the decision threshold from F1.

Section 3.2 and Table 2: P_base is a precision the base model must reach. The base threshold is the one
with the highest recall at that precision; everything at or above it goes to the MLLM. All thresholds come
from validation and are frozen before any other split is looked at. A precision that the base model never
reaches is recorded as unreachable, with the best one seen; no threshold is invented for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from coefvq.cascade.curves import (
    FloatArray,
    PRCurve,
    best_f1_threshold,
    checked_rows,
    curve_recall_at_precision,
    precision_recall_points,
    spread_indices,
)
from coefvq.cascade.escalation import BoolArray, escalation_mask, withhold_zeros, zero_filtered
from coefvq.cascade.policy import CascadePolicy
from coefvq.errors import DataError

# a threshold no probability can miss: everything is escalated
ESCALATE_ALL = 0.0
F1_SLACK = 1e-12


@dataclass(frozen=True)
class ScoredSplit:
    """Columns of one labelled split, each [n]: labels in [0, 1], both models' scores, views, weights."""

    label: ArrayLike
    base: ArrayLike
    mllm: ArrayLike
    views: ArrayLike | None = None
    weight: ArrayLike | None = None


@dataclass(frozen=True)
class CascadeCandidate:
    """What one P_base gives on validation.

    ``base_precision`` is the base model's precision at its threshold, or the best one seen when
    unreachable; ``base_recall`` is its recall there and, without a views trigger, the ceiling of the
    cascade's; ``support`` is the number of positives this rests on: a handful says little. ``qps_ratio``
    is in percent. ``policy`` and what follows it are None when unreachable. ``name`` is what tables call a
    candidate that no P_base made; None: its P_base names it.
    """

    p_base: float | None
    reachable: bool
    base_precision: float
    base_recall: float
    support: float
    policy: CascadePolicy | None = None
    f1: float | None = None
    precision: float | None = None
    recall: float | None = None
    qps_ratio: float | None = None
    name: str | None = None


@dataclass(frozen=True)
class Selection:
    """The policy to run, and why; ``p_base`` is None when none was reachable and all is escalated."""

    policy: CascadePolicy
    p_base: float | None
    reason: str


@dataclass(frozen=True)
class FrontierPoint:
    """One base threshold: MLLM calls in percent of videos, and the best the cascade can then do."""

    base_threshold: float
    qps_ratio: float
    recall: float
    f1: float


def search(
    issue: str, val: ScoredSplit, p_base: Iterable[float], views_trigger: int | None = None
) -> tuple[CascadeCandidate, ...]:
    """One candidate per P_base (percent), in the order given.

    Raises:
        DataError: a column is unusable or there is one class only.
        ConfigError: the issue's name, a P_base or ``views_trigger`` does not fit a policy.
    """
    curve = precision_recall_points(val.label, val.base, val.weight)
    candidates = []
    for percent in p_base:
        found = curve_recall_at_precision(curve, percent / 100.0)
        candidate = CascadeCandidate(
            p_base=percent,
            reachable=found.reachable,
            base_precision=found.precision,
            base_recall=found.recall,
            support=_positives_above(val, found.threshold),
        )
        if found.threshold is not None:
            candidate = _decided(candidate, issue, val, found.threshold, views_trigger)
        candidates.append(candidate)
    return tuple(candidates)


def escalate_all(issue: str, val: ScoredSplit) -> CascadeCandidate:
    """The MLLM on every video as a cascade of its own: the paper's row "-" with a QPS ratio of 100.

    Raises:
        DataError: a column is unusable or there is one class only.
    """
    curve = precision_recall_points(val.label, val.base, val.weight)
    prevalence = curve.positives / curve.total
    candidate = CascadeCandidate(
        p_base=None,
        reachable=True,
        base_precision=prevalence,
        base_recall=1.0,
        support=_positives_above(val, ESCALATE_ALL),
    )
    return _decided(candidate, issue, val, ESCALATE_ALL, None)


def select(candidates: Sequence[CascadeCandidate], mllm_only: CascadeCandidate, max_f1_loss: float) -> Selection:
    """The cheapest candidate that keeps F1; failing that the best one; failing that the MLLM on all.

    "Keeps F1" means: F1 on validation is at least that of ``mllm_only`` (from :func:`escalate_all`) minus
    ``max_f1_loss``, both shares. Cheapest means the lowest QPS ratio on validation; ties go to the higher F1.
    """
    usable = [
        (candidate.qps_ratio, candidate.f1, candidate.p_base, candidate.policy)
        for candidate in candidates
        if candidate.policy is not None and candidate.f1 is not None and candidate.qps_ratio is not None
    ]
    if mllm_only.policy is None or mllm_only.f1 is None:
        raise ValueError("mllm_only must come from escalate_all")
    if not usable:
        best = max((candidate.base_precision for candidate in candidates), default=0.0)
        reason = (
            f"no P_base is reachable on validation (best precision of the base model: {100 * best:.1f} %), "
            "so every video goes to the MLLM"
        )
        return Selection(policy=mllm_only.policy, p_base=None, reason=reason)
    floor = mllm_only.f1 - max_f1_loss - F1_SLACK
    keeping = [row for row in usable if row[1] >= floor]
    against = f"{100 * max_f1_loss:.3g} points of the MLLM alone (F1 {100 * mllm_only.f1:.1f})"
    if keeping:
        qps, f1, p_base, policy = min(keeping, key=lambda row: (row[0], -row[1]))
        reason = f"on validation, fewest MLLM calls ({qps:.1f} %) among those within {against}"
    else:
        qps, f1, p_base, policy = min(usable, key=lambda row: (-row[1], row[0]))
        reason = f"on validation, highest F1 with {qps:.1f} % MLLM calls; none stays within {against}"
    return Selection(policy=policy, p_base=p_base, reason=f"{reason}: F1 {100 * f1:.1f}")


def qps_ratio(
    policy: CascadePolicy, base: ArrayLike, views: ArrayLike | None = None, weight: ArrayLike | None = None
) -> float:
    """MLLM calls per video in percent; meant for the traffic split (needs no labels).

    Raises:
        DataError: a base score is unusable, lengths differ, or no row has a positive weight.
    """
    return _percent(policy.escalates(base, views), weight)


def frontier_points(split: ScoredSplit, precision: float, n_points: int = 200) -> list[FrontierPoint]:
    """Recall at ``precision`` (a share) and best F1 over at most ``n_points`` distinct base thresholds.

    QPS ratios ascend; views play no part. The decision threshold is the best one at every point, on the
    very rows given: a picture of what the two scores allow, not an estimate for new data. Sorts once.

    Raises:
        DataError: a column is unusable or there is one class only.
    """
    curve = precision_recall_points(split.label, split.base, split.weight)
    # even in calls and even in recall: the cheap end, where recall climbs, stays resolved
    half = max(n_points // 2, 2)
    picked = np.union1d(spread_indices(curve.predicted, half), spread_indices(curve.recall, half))
    lowest = escalation_mask(split.base, None, float(curve.threshold[picked[-1]]), None)
    columns = _by_final_score(split, withhold_zeros(zero_filtered(split.mllm, lowest)))
    points = []
    for at in picked:
        threshold = float(curve.threshold[at])
        cascade = columns.curve(threshold, curve.positives, curve.total)
        points.append(
            FrontierPoint(
                base_threshold=threshold,
                qps_ratio=100.0 * float(curve.predicted[at]) / curve.total,
                recall=curve_recall_at_precision(cascade, precision).recall,
                f1=float(cascade.f1.max(initial=0.0)),
            )
        )
    return points


@dataclass(frozen=True)
class _Sorted:
    """Rows that can be decided positive, by final score, descending; each column [n]."""

    base: FloatArray
    final: FloatArray
    positive: FloatArray
    weight: FloatArray

    def curve(self, base_threshold: float, positives: float, total: float) -> PRCurve:
        """Counts along the final score of what reaches ``base_threshold``; the others are withheld."""
        kept = np.flatnonzero(self.base >= base_threshold)
        final = self.final[kept]
        ends = np.flatnonzero(np.append(final[1:] != final[:-1], True)) if len(kept) else kept
        true_positive, predicted = np.cumsum(self.positive[kept]), np.cumsum(self.weight[kept])
        return PRCurve(final[ends], true_positive[ends], predicted[ends], positives, total)


def _by_final_score(split: ScoredSplit, final: FloatArray) -> _Sorted:
    labels, scores, weights = checked_rows(split.label, final, split.weight)
    base = np.asarray(split.base, dtype=np.float64)
    if split.weight is not None:
        base = base[np.asarray(split.weight, dtype=np.float64) > 0.0]
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > -np.inf]
    return _Sorted(base[order], scores[order], (labels * weights)[order], weights[order])


def _decided(
    candidate: CascadeCandidate,
    issue: str,
    val: ScoredSplit,
    base_threshold: float,
    views_trigger: int | None,
) -> CascadeCandidate:
    """Add the decision threshold with the best F1 of the final score, and the figures at it."""
    escalated = escalation_mask(val.base, val.views, base_threshold, views_trigger)
    final = withhold_zeros(zero_filtered(val.mllm, escalated))
    decision = best_f1_threshold(val.label, final, val.weight)
    policy = CascadePolicy.from_dict(
        {
            "issue": issue,
            "base_threshold": base_threshold,
            "decision_threshold": decision.threshold,
            "p_base": candidate.p_base,
            "views_trigger": views_trigger,
        },
        source=f"thresholds.{issue}",
    )
    return replace(
        candidate,
        policy=policy,
        f1=decision.f1,
        precision=decision.precision,
        recall=decision.recall,
        qps_ratio=_percent(escalated, val.weight),
    )


def _positives_above(val: ScoredSplit, threshold: float | None) -> float:
    if threshold is None:
        return 0.0
    return float(np.asarray(val.label, dtype=np.float64)[np.asarray(val.base) >= threshold].sum())


def _percent(mask: BoolArray, weight: ArrayLike | None) -> float:
    weights = np.ones(mask.shape) if weight is None else np.asarray(weight, dtype=np.float64)
    if weights.shape != mask.shape or not weights.sum() > 0.0:
        raise DataError("weight: expected one number per row, some above 0; check the split's rows")
    return 100.0 * float(weights[mask].sum() / weights.sum())
