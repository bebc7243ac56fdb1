"""What to want of the two thresholds: a budget of calls, the least cost, or a floor under recall. Exact.

Each search looks at every pair of distinct thresholds through ``frontier``. They fit the rows they are given;
``guarantees`` says what holds beyond them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from coefvq.cascade.curves import PRECISION_SLACK, FloatArray, precision_recall_points, recall_at_precision
from coefvq.cascade.escalation import BoolArray
from coefvq.cascade.frontier import ExactFrontier, cost_frontier, exact_frontier
from coefvq.errors import InfeasibleError

MAX_STEPS = 50


@dataclass(frozen=True)
class ScoredRows:
    """Columns [n] of labelled rows.

    ``mllm`` is −inf where the answer can never count as positive. ``always``: rows escalated whatever their
    base score. ``accept_threshold``: base scores from here on are positive without a call.
    """

    label: ArrayLike
    base: ArrayLike
    mllm: ArrayLike
    weight: ArrayLike | None = None
    always: BoolArray | None = None
    accept_threshold: float | None = None


@dataclass(frozen=True)
class Prices:
    """Money or any other unit: of one MLLM call, one false positive, one missed positive; each >= 0."""

    call: float
    false_positive: float
    miss: float

    def __post_init__(self) -> None:
        for name in ("call", "false_positive", "miss"):
            if not 0.0 <= getattr(self, name) < np.inf:
                raise ValueError(f"price of {name} is {getattr(self, name)}: expected a finite number >= 0")


@dataclass(frozen=True)
class Thresholds:
    """A pair of thresholds and what it does on the rows it was chosen on; shares, ``qps_ratio`` in percent.

    ``expected_cost`` is per video, None unless prices were given.
    """

    base_threshold: float
    decision_threshold: float
    precision: float
    recall: float
    qps_ratio: float
    reason: str
    expected_cost: float | None = None


def within_budget(rows: ScoredRows, precision: float, qps: float) -> Thresholds:
    """Highest recall with precision >= ``precision`` (a share) and at most ``qps`` percent MLLM calls.

    Among equals the fewest calls.

    Raises:
        InfeasibleError: no pair does; says which constraint fails and by how much.
        DataError: a column is unusable or there is one class only.
    """
    _check_percent(qps)
    frontier = _frontier(rows, precision)
    allowed = _affordable(frontier, qps)
    if not allowed.any():
        raise InfeasibleError(
            f"QPS ratio of at most {qps:g} % fails: the highest group of equal base scores alone, with the videos "
            f"always escalated, takes {frontier.qps_ratio[0]:.3g} %, {frontier.qps_ratio[0] - qps:.3g} points more; "
            "allow that many calls"
        )
    recall = np.where(allowed, frontier.true_positive, 0.0)
    at = int(np.argmax(recall))  # calls ascend: the first maximum is the cheapest
    if not recall[at] > 0.0:
        raise InfeasibleError(_why_not(rows, frontier, precision, qps))
    return _chosen(frontier, at, f"highest recall at precision {100 * precision:g} % within {qps:g} % MLLM calls")


def with_recall_floor(rows: ScoredRows, precision: float, max_recall_loss: float) -> Thresholds:
    """Fewest MLLM calls whose recall at ``precision`` is within ``max_recall_loss`` (a share) of the MLLM's alone.

    Raises:
        InfeasibleError: the MLLM alone does not reach the precision, or early acceptance costs too much recall.
        DataError: a column is unusable or there is one class only.
    """
    alone = recall_at_precision(rows.label, rows.mllm, precision, rows.weight)
    if not alone.reachable:
        raise InfeasibleError(
            f"precision {100 * precision:g} % fails: the MLLM on every video reaches {100 * alone.precision:.2f} % at "
            f"best, {100 * (precision - alone.precision):.2f} points short; ask for less or improve the MLLM"
        )
    frontier = _frontier(rows, precision)
    floor = alone.recall - max_recall_loss
    enough = frontier.recall >= floor - PRECISION_SLACK
    if not enough.any():
        raise InfeasibleError(
            f"recall {100 * floor:.2f} % fails: the best pair reaches {100 * frontier.recall.max():.2f} %, "
            f"{100 * (floor - frontier.recall.max()):.2f} points short; raise accept_threshold or allow more loss"
        )
    usable = enough & (frontier.true_positive > 0.0)
    at = int(np.argmax(usable))
    return _chosen(
        frontier,
        at,
        f"fewest MLLM calls with recall at precision {100 * precision:g} % within {100 * max_recall_loss:g} points "
        f"of the MLLM alone ({100 * alone.recall:.1f} %)",
    )


def least_cost(rows: ScoredRows, prices: Prices, qps: float | None = None) -> Thresholds:
    """Least expected cost per video: calls, false positives and misses at their prices.

    ``qps`` (percent) optionally bounds the calls; among equals the fewest calls.

    Raises:
        InfeasibleError: deciding nothing positive is cheapest, or not one group of videos fits the budget.
        DataError: a column is unusable or there is one class only.
    """
    frontier = cost_frontier(
        rows.label,
        rows.base,
        rows.mllm,
        prices.false_positive,
        prices.miss,
        rows.weight,
        always=rows.always,
        accept_threshold=rows.accept_threshold,
    )
    cost = (
        prices.call * frontier.escalated
        + prices.false_positive * (frontier.predicted - frontier.true_positive)
        + prices.miss * (frontier.positives - frontier.true_positive)
    ) / frontier.total
    if qps is not None:
        _check_percent(qps)
        if not _affordable(frontier, qps).any():
            raise InfeasibleError(f"QPS ratio of at most {qps:g} % fails: the least is {frontier.qps_ratio[0]:.3g} %")
        cost = np.where(_affordable(frontier, qps), cost, np.inf)
    idle = prices.miss * frontier.positives / frontier.total
    cost = np.where(frontier.predicted > 0.0, cost, np.inf)
    at = int(np.argmin(cost))
    if not cost[at] < idle:
        raise InfeasibleError(
            f"at these prices no cascade pays: flagging nothing costs {idle:.4g} per video, the best pair "
            f"{cost[at]:.4g}; check the prices of a call, a false positive and a miss"
        )
    reason = f"least expected cost: {cost[at]:.4g} per video, against {idle:.4g} for flagging nothing"
    return _chosen(frontier, at, reason, float(cost[at]))


def best_precision(rows: ScoredRows, qps: float) -> tuple[float, float]:
    """The highest precision of any pair within ``qps`` percent calls, and the calls it takes; (0, 0): no pair.

    Dinkelbach's iteration for a ratio: maximise Σ w·(y − λ), set λ to the precision found, until nothing is
    gained. It ends exactly, in a handful of sweeps.
    """
    best, calls = 0.0, 0.0
    for _ in range(MAX_STEPS):
        frontier = cost_frontier(
            rows.label,
            rows.base,
            rows.mllm,
            best,
            1.0 - best,
            rows.weight,
            always=rows.always,
            accept_threshold=rows.accept_threshold,
        )
        usable = _affordable(frontier, qps) & (frontier.predicted > 0.0)
        if not usable.any():
            break
        surplus = np.where(usable, frontier.true_positive - best * frontier.predicted, -np.inf)
        at = int(np.argmax(surplus))
        if frontier.precision[at] <= best + PRECISION_SLACK:
            break
        best, calls = float(frontier.precision[at]), float(frontier.qps_ratio[at])
    return best, calls


def _frontier(rows: ScoredRows, precision: float) -> ExactFrontier:
    return exact_frontier(
        rows.label,
        rows.base,
        rows.mllm,
        precision,
        rows.weight,
        always=rows.always,
        accept_threshold=rows.accept_threshold,
    )


def _affordable(frontier: ExactFrontier, qps: float) -> BoolArray:
    affordable: BoolArray = frontier.qps_ratio <= qps * (1.0 + PRECISION_SLACK)
    return affordable


def _why_not(rows: ScoredRows, frontier: ExactFrontier, precision: float, qps: float) -> str:
    best, _ = best_precision(rows, qps)
    reached: FloatArray = frontier.qps_ratio[frontier.true_positive > 0.0]
    short = (
        f"precision {100 * precision:g} % fails within {qps:g} % MLLM calls: {100 * best:.2f} % at best, "
        f"{100 * (precision - best):.2f} points short"
    )
    if len(reached):
        more = reached[0] - qps
        return f"{short}; it takes {reached[0]:.3g} % calls, {more:.3g} points more: raise the budget or ask for less"
    alone = precision_recall_points(rows.label, rows.mllm, rows.weight).precision.max(initial=0.0)
    return f"{short}, and no budget reaches it (the MLLM alone: {100 * alone:.2f} %); ask for less precision"


def _chosen(frontier: ExactFrontier, at: int, reason: str, cost: float | None = None) -> Thresholds:
    return Thresholds(
        base_threshold=float(frontier.base_threshold[at]),
        decision_threshold=float(frontier.decision_threshold[at]),
        precision=float(frontier.precision[at]),
        recall=float(frontier.recall[at]),
        qps_ratio=float(frontier.qps_ratio[at]),
        reason=reason,
        expected_cost=cost,
    )


def _check_percent(qps: float) -> None:
    if not 0.0 < qps <= 100.0:
        raise ValueError(f"qps {qps}: expected percent of the videos in (0, 100]")
