"""The exact frontier and the searches on it against every pair of thresholds, tried one by one."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from coefvq.cascade.frontier import ExactFrontier, exact_frontier
from coefvq.cascade.objectives import (
    Prices,
    ScoredRows,
    best_precision,
    least_cost,
    with_recall_floor,
    within_budget,
)
from coefvq.errors import InfeasibleError

QUICK = settings(max_examples=150, deadline=None, derandomize=True)
FEWER = settings(QUICK, max_examples=60)


@st.composite
def scored(draw, max_size: int = 14, weighted: bool = False, soft: bool = False):
    """Both classes, many ties in both scores, some answers withheld."""
    n = draw(st.integers(2, max_size))
    numbers = st.integers(0, 8) if soft else st.sampled_from((0, 8))
    label = draw(
        st.lists(numbers, min_size=n, max_size=n).filter(lambda y: any(v > 0 for v in y) and any(v < 8 for v in y))
    )
    base = draw(st.lists(st.integers(0, 6), min_size=n, max_size=n))
    mllm = draw(st.lists(st.integers(0, 6), min_size=n, max_size=n).filter(any))
    weight = draw(st.lists(st.integers(1, 4), min_size=n, max_size=n)) if weighted else [1] * n
    answers = np.array(mllm, float)
    return (
        np.array(label) / 8.0,
        np.array(base, float),
        np.where(answers > 0, answers, -np.inf),
        np.array(weight, float),
    )


def pairs(label, base, mllm, weight, always=None, accept=None):
    """Every pair: (base threshold, decision threshold, calls, predicted, true positives) in exact fractions."""
    always = np.zeros(len(label), bool) if always is None else always
    y = [Fraction(float(v)) for v in label]
    w = [Fraction(float(v)) for v in weight]
    cuts = sorted(set(base[~always]) if (~always).any() else {base.max()}, reverse=True)
    if accept is not None and (~always & (base >= accept)).any():
        cuts = [accept, *(cut for cut in cuts if cut < accept)]
    for cut in cuts:
        accepted = np.zeros(len(label), bool) if accept is None else (base >= accept) & ~always
        escalated = (always | (base >= cut)) & ~accepted
        calls = sum(w[i] for i in np.flatnonzero(escalated))
        for decision in sorted(set(mllm[mllm > -np.inf]), reverse=True):
            hit = np.flatnonzero(accepted | (escalated & (mllm >= decision)))
            yield cut, decision, calls, sum(w[i] for i in hit), sum(w[i] * y[i] for i in hit)


def best_by_trying(data, precision: Fraction, always=None, accept=None):
    best: dict[float, tuple[Fraction, Fraction]] = {}
    for cut, _, calls, predicted, positive in pairs(*data, always, accept):
        reached = predicted > 0 and positive >= precision * predicted
        recall = positive if reached else Fraction(0)
        best[cut] = max(best.get(cut, (Fraction(0), calls)), (recall, calls))
    return best


def assert_same(found: ExactFrontier, tried) -> None:
    assert list(found.base_threshold) == sorted(tried, reverse=True)
    for k, cut in enumerate(found.base_threshold):
        recall, calls = tried[cut]
        assert found.true_positive[k] == pytest.approx(float(recall), abs=1e-12)
        assert found.escalated[k] == pytest.approx(float(calls), abs=1e-12)


@QUICK
@given(scored(), st.integers(1, 20))
def test_the_frontier_is_what_trying_every_pair_gives(data, twentieths) -> None:
    label, base, mllm, weight = data
    found = exact_frontier(label, base, mllm, twentieths / 20, weight)
    assert_same(found, best_by_trying(data, Fraction(twentieths, 20)))


@QUICK
@given(scored(weighted=True, soft=True), st.integers(1, 20))
def test_the_frontier_with_weights_and_soft_labels(data, twentieths) -> None:
    label, base, mllm, weight = data
    found = exact_frontier(label, base, mllm, twentieths / 20, weight)
    if (weight == weight[0]).all():  # equal weights count as 1
        data = (label, base, mllm, np.ones(len(weight)))
    assert_same(found, best_by_trying(data, Fraction(twentieths, 20)))


@QUICK
@given(scored(), st.integers(1, 20), st.integers(0, 7), st.integers(0, 255))
def test_the_frontier_with_engagement_and_early_acceptance(data, twentieths, accept, forced) -> None:
    label, base, mllm, weight = data
    always = np.array([(forced >> (i % 8)) & 1 == 1 for i in range(len(label))])
    found = exact_frontier(label, base, mllm, twentieths / 20, weight, always=always, accept_threshold=float(accept))
    assert_same(found, best_by_trying(data, Fraction(twentieths, 20), always, float(accept)))


@FEWER
@given(scored(), st.integers(1, 20))
def test_thresholds_of_the_frontier_give_its_counts(data, twentieths) -> None:
    label, base, mllm, weight = data
    found = exact_frontier(label, base, mllm, twentieths / 20, weight)
    for k in np.flatnonzero(found.true_positive > 0):
        hit = (base >= found.base_threshold[k]) & (mllm >= found.decision_threshold[k])
        assert found.predicted[k] == hit.sum()
        assert found.true_positive[k] == label[hit].sum()
        assert found.precision[k] >= twentieths / 20 - 1e-12


@FEWER
@given(scored(weighted=True), st.integers(1, 20), st.randoms(use_true_random=False))
def test_row_order_changes_nothing(data, twentieths, random) -> None:
    order = list(range(len(data[0])))
    random.shuffle(order)
    label, base, mllm, weight = data
    straight = exact_frontier(label, base, mllm, twentieths / 20, weight)
    shuffled = exact_frontier(label[order], base[order], mllm[order], twentieths / 20, weight[order])
    for name in ("base_threshold", "decision_threshold", "escalated", "predicted", "true_positive"):
        np.testing.assert_array_equal(getattr(straight, name), getattr(shuffled, name))


@FEWER
@given(scored(weighted=True), st.integers(1, 20), st.floats(1, 100), st.floats(1, 100))
def test_more_calls_never_cost_recall(data, twentieths, one, other) -> None:
    label, base, mllm, weight = data
    rows = ScoredRows(label, base, mllm, weight)

    def recall(qps: float) -> float:
        try:
            return within_budget(rows, twentieths / 20, qps).recall
        except InfeasibleError:
            return 0.0

    low, high = sorted((one, other))
    assert recall(low) <= recall(high)


@QUICK
@given(scored(weighted=True), st.integers(1, 20), st.integers(1, 100))
def test_budget_is_the_best_of_all_pairs(data, twentieths, qps) -> None:
    label, base, mllm, weight = data
    if (weight == weight[0]).all():
        data = (label, base, mllm, np.ones(len(weight)))
    total, precision = Fraction(int(data[3].sum())), Fraction(twentieths, 20)
    affordable = [row for row in pairs(*data) if row[2] * 100 <= qps * total]
    good = [row for row in affordable if row[3] > 0 and row[4] >= precision * row[3] and row[4] > 0]
    rows = ScoredRows(label, base, mllm, weight)
    if not good:
        with pytest.raises(InfeasibleError, match="fails"):
            within_budget(rows, twentieths / 20, qps)
        return
    chosen = within_budget(rows, twentieths / 20, qps)
    recall = max(row[4] for row in good)
    assert chosen.recall == pytest.approx(float(recall) / (data[0] * data[3]).sum())
    assert chosen.qps_ratio == pytest.approx(float(100 * min(r[2] for r in good if r[4] == recall) / total))


@QUICK
@given(scored(weighted=True), st.integers(1, 100))
def test_best_precision_is_the_best_of_all_pairs(data, qps) -> None:
    total = Fraction(int(data[3].sum()))
    tried = [row[4] / row[3] for row in pairs(*data) if row[2] * 100 <= qps * total and row[3] > 0]
    label, base, mllm, weight = data
    assert best_precision(ScoredRows(label, base, mllm, weight), qps)[0] == pytest.approx(float(max(tried, default=0)))


@QUICK
@given(scored(weighted=True, soft=True), st.integers(0, 4), st.integers(0, 8), st.integers(0, 16))
def test_least_cost_is_the_least_of_all_pairs(data, call, false_positive, miss) -> None:
    label, base, mllm, weight = data
    if (weight == weight[0]).all():
        data = (label, base, mllm, np.ones(len(weight)))
    positives, total = (data[0] * data[3]).sum(), data[3].sum()
    costs = [
        float(call * calls + false_positive * (predicted - hit)) + miss * (positives - float(hit))
        for _, _, calls, predicted, hit in pairs(*data)
        if predicted > 0
    ]
    best, idle = min(costs, default=np.inf) / total, miss * positives / total
    assume(abs(best - idle) > 1e-9)
    rows, prices = ScoredRows(label, base, mllm, weight), Prices(call, false_positive, miss)
    if best > idle:
        with pytest.raises(InfeasibleError, match="no cascade pays"):
            least_cost(rows, prices)
    else:
        assert least_cost(rows, prices).expected_cost == pytest.approx(best)


@QUICK
@given(scored(), st.integers(1, 20), st.integers(0, 4))
def test_recall_floor_is_the_cheapest_of_all_pairs(data, twentieths, loss) -> None:
    label, base, mllm, weight = data
    precision, positives = Fraction(twentieths, 20), int(label.sum())
    good = [row for row in pairs(*data) if row[3] > 0 and row[4] >= precision * row[3]]
    alone = max((row[4] for row in good if row[0] == base.min()), default=Fraction(0))
    rows = ScoredRows(label, base, mllm, weight)
    if alone == 0:
        with pytest.raises(InfeasibleError, match="MLLM on every video"):
            with_recall_floor(rows, twentieths / 20, loss / 8)
        return
    enough = [row for row in good if row[4] > 0 and row[4] / positives >= alone / positives - Fraction(loss, 8)]
    chosen = with_recall_floor(rows, twentieths / 20, loss / 8)
    assert chosen.qps_ratio == pytest.approx(float(100 * min(row[2] for row in enough) / len(label)))
