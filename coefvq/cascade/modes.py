"""From the settings of an issue to its policy, in the modes that name an objective instead of a P_base list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from coefvq.cascade.curves import at_threshold
from coefvq.cascade.escalation import engagement_mask, withhold_zeros
from coefvq.cascade.objectives import Prices, ScoredRows, Thresholds, least_cost, with_recall_floor, within_budget
from coefvq.cascade.policy import CascadePolicy
from coefvq.cascade.search import CascadeCandidate, ScoredSplit, qps_ratio
from coefvq.errors import InfeasibleError

ObjectiveMode = Literal["budget", "cost", "recall_floor"]


@dataclass(frozen=True)
class Objective:
    """What to want; shares, ``qps`` in percent. ``prices`` are used in mode ``cost`` only.

    ``accept_threshold``: base score from which a video is positive without a call; None: never.
    """

    mode: ObjectiveMode
    precision: float = 0.8
    qps: float = 100.0
    max_recall_loss: float = 0.01
    prices: Prices | None = None
    accept_threshold: float | None = None


def choose(
    issue: str, val: ScoredSplit, objective: Objective, views_trigger: int | None = None
) -> tuple[CascadeCandidate, str]:
    """The best pair of thresholds on validation, and why it is.

    Raises:
        InfeasibleError: no pair meets the constraints; says which fails and by how much.
        DataError: a column is unusable or there is one class only.
        ConfigError: a setting does not fit a policy.
    """
    base = np.asarray(val.base, dtype=np.float64)
    rows = ScoredRows(
        label=val.label,
        base=base,
        mllm=withhold_zeros(np.asarray(val.mllm, dtype=np.float64)),
        weight=val.weight,
        always=engagement_mask(base, val.views, views_trigger),
        accept_threshold=objective.accept_threshold,
    )
    try:
        thresholds = _search(rows, objective)
    except InfeasibleError as error:
        raise InfeasibleError(f"thresholds.{issue}: {error}") from error
    policy = CascadePolicy.from_dict(
        {
            "issue": issue,
            "base_threshold": thresholds.base_threshold,
            "decision_threshold": thresholds.decision_threshold,
            "p_base": None,
            "views_trigger": views_trigger,
            "accept_threshold": objective.accept_threshold,
        },
        source=f"thresholds.{issue}",
    )
    decided = at_threshold(
        val.label, policy.ranking_score(base, val.mllm, val.views), policy.decision_threshold, val.weight
    )
    alone = at_threshold(val.label, base, policy.base_threshold, val.weight)
    support = float(np.asarray(val.label, dtype=np.float64)[base >= policy.base_threshold].sum())
    candidate = CascadeCandidate(
        p_base=None,
        reachable=True,
        base_precision=alone.precision or 0.0,
        base_recall=alone.recall,
        support=support,
        policy=policy,
        f1=decided.f1,
        precision=decided.precision,
        recall=decided.recall,
        qps_ratio=qps_ratio(policy, base, val.views, val.weight),
    )
    return candidate, f"on validation, {thresholds.reason}: F1 {100 * decided.f1:.1f}"


def _search(rows: ScoredRows, objective: Objective) -> Thresholds:
    if objective.mode == "budget":
        return within_budget(rows, objective.precision, objective.qps)
    if objective.mode == "recall_floor":
        return with_recall_floor(rows, objective.precision, objective.max_recall_loss)
    if objective.prices is None:
        raise ValueError("mode cost needs prices")
    return least_cost(rows, objective.prices, objective.qps)
