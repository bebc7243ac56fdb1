"""Thresholds that keep their promise on new data with probability 1 − δ, or a refusal that names what is missing.

Thresholds picked as the best on n labelled videos look better there than they are: some of it is luck. Here
the labels are cut in two. The first part (*tune*) proposes pairs of thresholds and puts them in an order, most
promising first. The second part (*test*) goes through that order and certifies pairs until the first one fails.
That is Learn then Test (Angelopoulos et al. 2021) with fixed-sequence testing on a learned path (Laufer-Goldshtein
et al. 2023): whatever pair is taken from the certified ones, the chance that one of its promises is broken is
at most δ. A pair fails one promise with a one-sided exact binomial test:

    precision >= P    true positives among the predicted     P(Bin(predicted, P) >= true positives)
    recall >= R       true positives among the positives     P(Bin(positives, R) >= true positives)
    QPS ratio <= q    calls among all videos                 P(Bin(videos, q) <= calls)

A pair is certified if all its p-values are at most δ. No correction for their number is due: the pair is bad if
any promise is false, and the test of that one promise passes with a chance of at most δ (intersection-union test).

What it rests on: the labelled videos are independent draws from the traffic the promise is about, with drawn
0/1 labels and equal weights. Videos of one creator are not independent: give ``groups`` to split them as wholes and
keep one video per group where they are many. Drift after the draw breaks any such promise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from coefvq.cascade.curves import FloatArray, checked_rows
from coefvq.cascade.escalation import BoolArray
from coefvq.cascade.frontier import exact_frontier
from coefvq.cascade.promises import Promise, count_pairs, labels_needed, p_values
from coefvq.errors import DataError, InfeasibleError

TUNE_SHARE = 0.4
#: pairs proposed per target on the path; more cost time, not validity
TARGETS, PER_TARGET = 12, 12
#: pairs at the head of the path for which a refusal computes the labels needed
NAMED = 30


@dataclass(frozen=True)
class Certified:
    """A pair whose promise holds with probability 1 − δ; the figures are those of the test part, not promises.

    ``tested`` pairs were looked at, ``certified`` of them passed; ``p_value`` is the largest of this pair's.
    """

    base_threshold: float
    decision_threshold: float
    precision: float
    recall: float
    qps_ratio: float
    p_value: float
    tested: int
    certified: int
    n_tune: int
    n_test: int


def certify(
    label: ArrayLike,
    base: ArrayLike,
    mllm: ArrayLike,
    promise: Promise,
    *,
    weight: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    tune_share: float = TUNE_SHARE,
    seed: int = 0,
) -> Certified:
    """The certified pair with the highest recall on the tune part (with no precision asked: the fewest calls).

    Args:
        label: [n] drawn labels, 0 or 1.
        base: [n] finite scores; mllm: [n], −inf where the answer can never count as positive.
        weight: refused unless all equal: a thinned sample is no draw from traffic.
        groups: [n] keys; a group is wholly in one part.

    Raises:
        InfeasibleError: nothing can be certified; the message says which promise fails and how many labels
            would probably do.
        DataError: a column is unusable, a label is soft or weights are unequal.
    """
    labels, bases, answers = _columns(label, base, mllm, weight)
    tuned = _tune_part(len(labels), groups, tune_share, seed)
    for part, name in ((tuned, "tune"), (~tuned, "test")):
        if not labels[part].any() or labels[part].all():
            raise DataError(f"the {name} part ({int(part.sum())} rows) holds one class only; label more videos")
    base_cut, decision_cut = _proposals(labels[tuned], bases[tuned], answers[tuned], promise)
    on_tune = count_pairs(labels[tuned], bases[tuned], answers[tuned], base_cut, decision_cut)
    path = np.argsort(p_values(on_tune, promise), kind="stable")
    base_cut, decision_cut = base_cut[path], decision_cut[path]
    on_test = count_pairs(labels[~tuned], bases[~tuned], answers[~tuned], base_cut, decision_cut)
    p = p_values(on_test, promise)
    failed = np.flatnonzero(p > promise.delta)
    passed = int(failed[0]) if len(failed) else len(p)
    if not passed:
        raise InfeasibleError(_refusal(labels, bases, answers, base_cut, decision_cut, promise, int((~tuned).sum())))
    gain = on_tune.true_positive[path] if promise.precision is not None else -on_tune.escalated[path]
    at = int(np.argmax(gain[:passed]))
    return Certified(
        base_threshold=float(base_cut[at]),
        decision_threshold=float(decision_cut[at]),
        precision=float(on_test.true_positive[at] / max(on_test.predicted[at], 1)),
        recall=float(on_test.true_positive[at] / on_test.positives),
        qps_ratio=float(100.0 * on_test.escalated[at] / on_test.n),
        p_value=float(p[at]),
        tested=min(passed + 1, len(p)),
        certified=passed,
        n_tune=on_tune.n,
        n_test=on_test.n,
    )


def miss_rate_threshold(label: ArrayLike, score: ArrayLike, miss_rate: float) -> float:
    """The highest threshold whose *expected* share of missed positives is at most ``miss_rate`` on new data.

    Conformal risk control (Angelopoulos et al. 2022): the loss of a positive is 1 if it scores below the
    threshold; it only grows with the threshold, so (misses + 1)/(positives + 1) <= ``miss_rate`` on the labelled
    rows bounds its mean over draws of the calibration set. Weaker than :func:`certify` (a mean, not a
    probability), in need of fewer labels. Along the final score of a cascade it holds end to end.

    Raises:
        InfeasibleError: fewer positives than 1/``miss_rate`` − 1, or too many of them withheld.
        DataError: a column is unusable or there is one class only.
    """
    if not 0.0 < miss_rate < 1.0:
        raise ValueError(f"miss_rate {miss_rate}: expected a share in (0, 1)")
    labels, scores, _ = checked_rows(label, score, None)
    _refuse_soft(labels)
    positives = np.sort(scores[labels == 1.0])
    allowed = int(np.floor(miss_rate * (len(positives) + 1) - 1.0 + 1e-9))
    if allowed < 0:
        needed = int(np.ceil(1.0 / miss_rate)) - 1
        raise InfeasibleError(f"{len(positives)} positives cannot bound a miss rate of {miss_rate:g}; {needed} can")
    if positives[allowed] == -np.inf:
        lost = np.mean(positives == -np.inf)
        raise InfeasibleError(f"miss rate {miss_rate:g} fails: {lost:.3g} of the positives are filtered out already")
    return float(positives[allowed])


def _columns(
    label: ArrayLike, base: ArrayLike, mllm: ArrayLike, weight: ArrayLike | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    labels, bases, _ = checked_rows(label, base, None)
    _, answers, _ = checked_rows(label, mllm, None)
    _refuse_soft(labels)
    weights = np.ones_like(labels) if weight is None else np.asarray(weight, dtype=np.float64)
    if weights.shape != labels.shape or not (weights == weights[0]).all():
        raise DataError(
            "weight: rows of unequal weight are no plain draw from traffic and the exact tests do not hold for them; "
            "label an unthinned sample"
        )
    return labels, bases, answers


def _refuse_soft(labels: FloatArray) -> None:
    if not ((labels == 0.0) | (labels == 1.0)).all():
        raise DataError("label: a guarantee is about drawn labels, 0 or 1, not about probabilities")


def _tune_part(n: int, groups: ArrayLike | None, share: float, seed: int) -> BoolArray:
    if not 0.0 < share < 1.0:
        raise ValueError(f"tune_share {share}: expected a share in (0, 1)")
    keys = np.arange(n) if groups is None else np.unique(np.asarray(groups).astype(str), return_inverse=True)[1]
    if len(keys) != n:
        raise DataError(f"groups: expected one key per row ({n}), got {len(keys)}")
    units = int(keys.max()) + 1
    chosen = np.zeros(units, dtype=bool)
    chosen[np.random.default_rng(seed).permutation(units)[: round(share * units)]] = True
    return chosen[keys]


def _proposals(
    label: FloatArray, base: FloatArray, mllm: FloatArray, promise: Promise
) -> tuple[FloatArray, FloatArray]:
    """Pairs on the frontiers of several precisions at and above the target, spread over the calls allowed."""
    prevalence = float(label.mean())
    lowest = promise.precision if promise.precision is not None else prevalence / 2.0
    pairs: list[tuple[float, float]] = []
    for target in np.linspace(lowest, 1.0, TARGETS):
        frontier = exact_frontier(label, base, mllm, float(target))
        usable = (frontier.true_positive > 0.0) & (frontier.qps_ratio <= (promise.qps or 100.0))
        steps = np.intersect1d(frontier.undominated(), np.flatnonzero(usable))
        if len(steps):
            candidates = steps[np.unique(np.linspace(0, len(steps) - 1, PER_TARGET).round().astype(int))]
            pairs += zip(
                frontier.base_threshold[candidates].tolist(),
                frontier.decision_threshold[candidates].tolist(),
                strict=True,
            )
    if not pairs:
        raise InfeasibleError("no pair of thresholds meets the constraints even on the tune part; ask for less")
    cuts = np.array(sorted(set(pairs)))
    return cuts[:, 0], cuts[:, 1]


def _refusal(
    label: FloatArray,
    base: FloatArray,
    mllm: FloatArray,
    base_cut: FloatArray,
    decision_cut: FloatArray,
    promise: Promise,
    n_test: int,
) -> str:
    """Which promise fails on the most promising pair, and the labels with which some pair would probably pass."""
    # the path is in order: what is far down it will not be the first to pass
    everything = count_pairs(label, base, mllm, base_cut[:NAMED], decision_cut[:NAMED])
    needed = labels_needed(everything, promise)
    at = int(np.argmin(needed))
    promises = [
        f"precision {100 * promise.precision:g} %" if promise.precision is not None else "",
        f"recall {100 * promise.recall:g} %" if promise.recall is not None else "",
        f"at most {promise.qps:g} % MLLM calls" if promise.qps is not None else "",
    ]
    head = (
        f"{len(label)} labels ({n_test} to test on) cannot certify {' and '.join(filter(None, promises))} "
        f"with probability {1 - promise.delta:g}"
    )
    evidence = (
        f"precision {100 * everything.true_positive[at] / max(everything.predicted[at], 1):.1f} %, "
        f"recall {100 * everything.true_positive[at] / everything.positives:.1f} %, "
        f"{100 * everything.escalated[at] / everything.n:.1f} % calls"
    )
    if not np.isfinite(needed[at]):
        return f"{head}: no pair does better than asked on all labels at hand, so more would not help; ask for less"
    total = int(np.ceil(needed[at] * len(label) / n_test))
    return f"{head}: the best pair shows {evidence}; about {max(total, len(label) + 1)} labels would probably do"
