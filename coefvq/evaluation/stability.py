"""Whether decisions depend on how a video was scored: batch, padding, arithmetic, decoding.

Scores of one video differ in the last digits with its neighbours in a batch and with the order of additions.
That matters only near a threshold. So the videos nearest to each threshold are scored again in other ways,
and what counts is how many of them change sides. Pure; the scoring is done by ``stages.stability``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coefvq.cascade.curves import FloatArray
from coefvq.cascade.policy import CascadePolicy

#: what float32 leaves open at a score of 1/2 and above
_ON = 1e-6


@dataclass(frozen=True)
class Rescored:
    """The band scored in one other way; ``gated`` if serving may score so. Scores [n]."""

    name: str
    gated: bool
    base: FloatArray
    mllm: FloatArray


def near_thresholds(policy: CascadePolicy, base: ArrayLike, mllm: ArrayLike, per_threshold: int) -> NDArray[np.intp]:
    """Positions of the videos nearest to a boundary of the base score, and of the escalated nearest to the decision.

    Ascending, without repeats: at most twice ``per_threshold``.
    """
    first, second = np.asarray(base, dtype=np.float64), np.asarray(mllm, dtype=np.float64)
    to_base = _to_boundary(policy, first)
    to_decision = np.where(policy.escalates(first), np.abs(second - policy.decision_threshold), np.inf)
    chosen = [np.argsort(distance, kind="stable")[:per_threshold] for distance in (to_base, to_decision)]
    reachable = chosen[1][np.isfinite(to_decision[chosen[1]])]
    return np.union1d(chosen[0], reachable)


def stability_report(
    policy: CascadePolicy, base: ArrayLike, mllm: ArrayLike, variants: Sequence[Rescored], total: int
) -> dict[str, Any]:
    """What changed against the scores the thresholds were found on.

    Args:
        policy: frozen thresholds.
        base: [n] base scores of the band, as the pipeline has them.
        mllm: [n] MLLM scores of the band, likewise.
        variants: the same videos scored in other ways.
        total: how many videos the band was taken from.

    Returns:
        n, total, ``flip_rate`` (share of the band whose escalation or decision changes in at least one gated
        variant), and per variant its flips and largest differences. All shares in [0, 1]. A threshold found on
        data is some video's score, and the last bit decides on which side that one falls: the ``on_threshold``
        videos are counted in the flips and left out of the rates.
    """
    first, second = np.asarray(base, dtype=np.float64), np.asarray(mllm, dtype=np.float64)
    n = len(first)
    changed = np.zeros(n, dtype=bool)
    to_decision = np.where(policy.escalates(first), np.abs(second - policy.decision_threshold), np.inf)
    on_threshold = np.minimum(_to_boundary(policy, first), to_decision) <= _ON
    rows = []
    for variant in variants:
        escalation = policy.escalates(first) != policy.escalates(variant.base)
        decision = policy.decide(first, second) != policy.decide(variant.base, variant.mllm)
        flips = (escalation | decision) & ~on_threshold
        if variant.gated:
            changed |= flips
        rows.append(
            {
                "name": variant.name,
                "gated": variant.gated,
                "escalation_flips": int(escalation.sum()),
                "decision_flips": int(decision.sum()),
                "flip_rate": float(flips.mean()) if n else 0.0,
                "max_base_difference": float(np.abs(variant.base - first).max(initial=0.0)),
                "max_mllm_difference": float(np.abs(variant.mllm - second).max(initial=0.0)),
            }
        )
    rate = float(changed.mean()) if n else 0.0
    return {"n": n, "total": total, "on_threshold": int(on_threshold.sum()), "flip_rate": rate, "variants": rows}


def _to_boundary(policy: CascadePolicy, base: FloatArray) -> FloatArray:
    """Distance of each base score to the nearest score at which the policy treats a video differently, [n]."""
    boundaries = np.array(policy.base_boundaries())
    nearest: FloatArray = np.abs(base[:, None] - boundaries[None, :]).min(axis=1)
    return nearest


def held_against(report: Mapping[str, Any], max_flip_rate: float) -> dict[str, Any]:
    """The report with the gate's limit beside it."""
    return {**report, "max_flip_rate": max_flip_rate, "passed": report["flip_rate"] <= max_flip_rate}
