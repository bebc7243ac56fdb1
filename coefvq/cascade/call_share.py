"""Thresholds for a share of calls: ask for the share of videos that may reach the MLLM, and get the policy that pays.

The base threshold comes from unlabelled traffic: the lowest one that at most the asked share of videos reaches. The
decision threshold is the MLLM's own on validation. Nothing is tuned on the cascade itself, so the few positives of
validation are looked at once. Three policies compete: the base model alone, the cascade, and the MLLM on every
video. The cheapest one that keeps ``min_kept_f1`` of the MLLM's F1 is chosen; a cascade must not fall below its own
base model either. Where no cascade does, the reason names the share of calls at which one would.

The arithmetic behind it: of the positives a cascade can find at most QPS ratio · precision of the base / prevalence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coefvq.cascade.curves import FloatArray, at_threshold, best_f1_threshold
from coefvq.cascade.escalation import BoolArray, engagement_mask
from coefvq.cascade.policy import CascadePolicy
from coefvq.cascade.search import CascadeCandidate, ScoredSplit, Selection, escalate_all, qps_ratio
from coefvq.errors import DataError

BASE_ALONE, MLLM_ON_ALL = "base alone", "MLLM on all"
#: normal quantile of a two-sided 95 % interval
_Z = 1.96
#: an interval so many times as wide as the margin would take a hundred times as many labels: call it a draw
_DRAW = 10
_SLACK = 1e-9


@dataclass(frozen=True)
class CallShare:
    """``qps``: percent of the videos that may reach the MLLM; ``min_kept_f1``: share of the MLLM's F1 to keep.

    ``policy`` other than ``cheapest``: that model decides alone, whatever validation says.
    """

    mode: ClassVar[Literal["qps"]] = "qps"
    qps: float
    min_kept_f1: float
    policy: Literal["cheapest", "base", "mllm"] = "cheapest"


@dataclass(frozen=True)
class Traffic:
    """Unlabelled videos as they arrive, each column [n]; ``views`` and ``weight`` may be None."""

    base: ArrayLike
    views: ArrayLike | None = None
    weight: ArrayLike | None = None


def choose_for_share(
    issue: str, val: ScoredSplit, traffic: Traffic, wanted: CallShare, views_trigger: int | None = None
) -> tuple[tuple[CascadeCandidate, ...], Selection]:
    """The three policies, and the one to run with the reason.

    Raises:
        DataError: a column is unusable, there is one class only, or there is no traffic.
        ConfigError: a setting does not fit a policy.
    """
    everything = escalate_all(issue, val)
    mllm_threshold = cast(CascadePolicy, everything.policy).decision_threshold
    alone = _base_alone(issue, val)
    threshold, share = base_threshold_at(traffic, wanted.qps, views_trigger)
    cascade = _cascade(issue, val, threshold, mllm_threshold, views_trigger, wanted.qps)
    listed = (alone, cascade, replace(everything, name=MLLM_ON_ALL))
    chosen, reason = _pick(listed, share, val, traffic, wanted)
    return listed, Selection(cast(CascadePolicy, chosen.policy), None, reason)


def base_threshold_at(traffic: Traffic, qps: float, views_trigger: int | None) -> tuple[float, float]:
    """Base threshold that as many videos of the traffic as possible reach within ``qps`` percent, and their percent.

    It lies halfway to the next score below (``_steps``). Videos that the views trigger escalates count as calls. Equal
    scores stay together. Where not even the highest group of scores fits, the threshold is above every score; if those
    scores are 1, nothing is above them, and the percent returned is more than was asked.

    Raises:
        DataError: there is no traffic, or a score is not a probability.
    """
    scores = np.asarray(traffic.base, dtype=np.float64)
    if not scores.size:
        raise DataError(
            "traffic: no video; mode qps reads the base threshold off unlabelled traffic: "
            "set split.fractions.traffic above 0"
        )
    weight = np.ones(scores.shape) if traffic.weight is None else np.asarray(traffic.weight, dtype=np.float64)
    always = engagement_mask(scores, traffic.views, views_trigger)
    watched = float(weight[always].sum())
    thresholds, group = _steps(scores)
    added = np.cumsum(np.bincount(group, weights=np.where(always, 0.0, weight)))
    shares = 100.0 * (watched + added) / float(weight.sum())
    within = np.flatnonzero(shares <= qps * (1.0 + _SLACK))
    if not within.size:
        if scores.max() >= 1.0:
            return 1.0, float(shares[0])
        return float(np.nextafter(scores.max(), 2.0)), 100.0 * watched / float(weight.sum())
    at = int(within[-1])  # shares ascend as the threshold falls
    return float(thresholds[at]), float(shares[at])


def _steps(scores: FloatArray) -> tuple[FloatArray, NDArray[np.intp]]:
    """Thresholds between the distinct scores, falling, and for each score [n] the first of them that it reaches.

    Each lies in the middle between two scores: at the upper one, which the sample itself has, fewer videos to come
    would arrive than asked, and at the lower one more. The last one is the lowest score.
    """
    distinct, group = np.unique(-scores, return_inverse=True)
    middle = (-distinct[:-1] - distinct[1:]) / 2.0
    # of two neighbouring floats the middle may be the lower one
    middle = np.where(middle > -distinct[1:], middle, -distinct[:-1])
    return np.append(middle, -distinct[-1]), group


def _base_alone(issue: str, val: ScoredSplit) -> CascadeCandidate:
    """The base model as a policy: no call, its score is the final score, its threshold is the one with the best F1."""
    own = best_f1_threshold(val.label, val.base, val.weight)
    policy = CascadePolicy.base_alone(issue, own.threshold)
    return CascadeCandidate(
        p_base=None,
        reachable=True,
        base_precision=own.precision or 0.0,
        base_recall=own.recall,
        support=_positives(val, np.asarray(val.base) >= own.threshold),
        policy=policy,
        f1=own.f1,
        precision=own.precision,
        recall=own.recall,
        qps_ratio=0.0,
        name=BASE_ALONE,
    )


def _cascade(
    issue: str, val: ScoredSplit, threshold: float, decision: float, views_trigger: int | None, asked: float
) -> CascadeCandidate:
    policy = CascadePolicy.from_dict(
        {
            "issue": issue,
            "base_threshold": threshold,
            "decision_threshold": decision,
            "p_base": None,
            "views_trigger": views_trigger,
        },
        source=f"thresholds.{issue}",
    )
    decided = at_threshold(val.label, policy.ranking_score(val.base, val.mllm, val.views), decision, val.weight)
    alone = at_threshold(val.label, val.base, threshold, val.weight)
    return CascadeCandidate(
        p_base=None,
        reachable=True,
        base_precision=alone.precision or 0.0,
        base_recall=alone.recall,
        support=_positives(val, np.asarray(val.base) >= threshold),
        policy=policy,
        f1=decided.f1,
        precision=decided.precision,
        recall=decided.recall,
        qps_ratio=qps_ratio(policy, val.base, val.views, val.weight),
        name=f"cascade, {asked:g} % of calls",
    )


def _pick(
    listed: Sequence[CascadeCandidate], share: float, val: ScoredSplit, traffic: Traffic, wanted: CallShare
) -> tuple[CascadeCandidate, str]:
    """The cheapest policy that keeps enough, and why in one sentence; F1 on validation."""
    alone, cascade, everything = listed
    f1 = {item.name: cast(float, item.f1) for item in listed}
    floor = wanted.min_kept_f1 * f1[MLLM_ON_ALL]
    figures = ", ".join(f"{name} {100 * value:.1f}" for name, value in f1.items())
    kept = f"{100 * wanted.min_kept_f1:g} % of the MLLM's F1"
    if wanted.policy != "cheapest":
        chosen = alone if wanted.policy == "base" else everything
        return chosen, f"policy: {wanted.policy} was asked for, so {chosen.name} decides (F1 on validation: {figures})"
    if f1[alone.name] >= floor:
        return alone, (
            f"on validation the base model alone keeps {kept}, so the MLLM is not needed (F1: {figures})"
            f"{_labels_needed(alone, everything, val, wanted.min_kept_f1)}"
        )
    if share <= wanted.qps * (1.0 + _SLACK) and f1[cascade.name] >= max(floor, f1[alone.name]):
        return cascade, (
            f"on validation the cascade keeps {kept} with {share:.1f} % MLLM calls on traffic (F1: {figures})"
            f"{_labels_needed(cascade, everything, val, wanted.min_kept_f1)}"
        )
    enough = share_that_keeps(val, traffic, cast(CascadePolicy, everything.policy).decision_threshold, floor)
    remedy = (
        f"one with {enough:.1f} % would: set max_qps_ratio so, or improve the base model"
        if enough is not None and enough < 100.0
        else "none with fewer calls than all does: improve the base model"
    )
    held = 100.0 * f1[cascade.name] / f1[MLLM_ON_ALL] if f1[MLLM_ON_ALL] else 0.0
    return everything, (
        f"on validation the cascade for {wanted.qps:g} % MLLM calls, {share:.1f} % on traffic, keeps {held:.1f} % of "
        f"the MLLM's F1, not {100 * wanted.min_kept_f1:g} % ({remedy}), so every video goes to the MLLM "
        f"(F1: {figures})"
        f"{_labels_needed(cascade, everything, val, wanted.min_kept_f1)}"
    )


def share_that_keeps(val: ScoredSplit, traffic: Traffic, decision: float, floor: float) -> float | None:
    """Fewest calls, in percent of traffic, with which the cascade's F1 on validation is at least ``floor``.

    Asked for that share, ``base_threshold_at`` gives a threshold that does it. The views trigger plays no part. None:
    no base threshold does.
    """
    label, base = np.asarray(val.label, dtype=np.float64), np.asarray(val.base, dtype=np.float64)
    weight = np.ones(label.shape) if val.weight is None else np.asarray(val.weight, dtype=np.float64)
    flagged = np.asarray(val.mllm, dtype=np.float64) >= decision
    order = np.argsort(-base, kind="stable")
    right, predicted = (np.cumsum((weight * part)[order]) for part in (label * flagged, flagged.astype(np.float64)))
    f1 = np.append(0.0, 2.0 * right / (predicted + float((weight * label).sum())))
    arriving = np.asarray(traffic.base, dtype=np.float64)
    counts = np.ones(arriving.shape) if traffic.weight is None else np.asarray(traffic.weight, dtype=np.float64)
    thresholds, group = _steps(arriving)
    shown = np.searchsorted(-base[order], -thresholds, side="right")  # videos of validation that reach each
    enough = np.flatnonzero(f1[shown] >= floor - 1e-12)
    return 100.0 * float(counts[group <= enough[0]].sum() / counts.sum()) if enough.size else None


def kept_margin(val: ScoredSplit, flagged: BoolArray, reference: BoolArray, min_kept_f1: float) -> tuple[float, float]:
    """Margin F1(flagged) − ``min_kept_f1`` · F1(reference) and its standard error.

    The error is that of the margin's linearisation (delta method), with rows as independent draws.
    """
    mine, my_influence = _f1_with_influence(val, flagged)
    other, other_influence = _f1_with_influence(val, reference)
    error = float(np.sqrt(np.sum((my_influence - min_kept_f1 * other_influence) ** 2)))
    return mine - min_kept_f1 * other, error


def _labels_needed(chosen: CascadeCandidate, everything: CascadeCandidate, val: ScoredSplit, kept: float) -> str:
    flags = [cast(CascadePolicy, item.policy).decide(val.base, val.mllm, val.views) for item in (chosen, everything)]
    margin, error = kept_margin(val, flags[0], flags[1], kept)
    n = len(np.asarray(val.label))
    if _Z * error <= abs(margin):
        return ""
    if abs(margin) * _DRAW < _Z * error:
        return f"; on {n:,} labels it is a draw"
    needed = n * (_Z * error / margin) ** 2
    about = round(needed, 1 - int(np.log10(needed)))  # two digits: the margin itself is uncertain
    return f"; chance could reverse this on {n:,} labels, about {about:,.0f} would settle it"


def _f1_with_influence(val: ScoredSplit, flagged: BoolArray) -> tuple[float, FloatArray]:
    """F1 and each row's influence on it, [n]: F1 = 2 Σ w·y·p / Σ w·(y + p)."""
    label = np.asarray(val.label, dtype=np.float64)
    weight = np.ones(label.shape) if val.weight is None else np.asarray(val.weight, dtype=np.float64)
    positive = flagged.astype(np.float64)
    below = float((weight * (label + positive)).sum())
    f1 = 2.0 * float((weight * label * positive).sum()) / below
    influence: FloatArray = weight * (2.0 * label * positive - f1 * (label + positive)) / below
    return f1, influence


def _positives(val: ScoredSplit, mask: BoolArray) -> float:
    return float(np.asarray(val.label, dtype=np.float64)[mask].sum())
