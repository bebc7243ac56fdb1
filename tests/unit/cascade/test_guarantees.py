"""Certified thresholds: the promise is kept in as many of the simulated sets as it says, and refusals help."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta, binom, multivariate_normal, norm

from coefvq.cascade.guarantees import certify, miss_rate_threshold
from coefvq.cascade.objectives import ScoredRows, within_budget
from coefvq.cascade.promises import Counts, Promise, labels_needed, p_values
from coefvq.errors import DataError, InfeasibleError

PREVALENCE, SHIFT, CORRELATION = 0.1, (1.6, 2.6), 0.5
JOINT = multivariate_normal(cov=[[1.0, CORRELATION], [CORRELATION, 1.0]])


def world(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correlated binormal scores, whose true precision, recall and calls are known in closed form."""
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < PREVALENCE).astype(float)
    noise = rng.multivariate_normal([0.0, 0.0], [[1.0, CORRELATION], [CORRELATION, 1.0]], n)
    return label, noise[:, 0] + SHIFT[0] * label, noise[:, 1] + SHIFT[1] * label


def truth(base_cut: float, decision_cut: float) -> tuple[float, float, float]:
    """Precision, recall and QPS ratio (percent) of a pair of thresholds over the whole population."""
    recall = JOINT.cdf([SHIFT[0] - base_cut, SHIFT[1] - decision_cut])
    false = JOINT.cdf([-base_cut, -decision_cut])
    calls = PREVALENCE * norm.sf(base_cut - SHIFT[0]) + (1 - PREVALENCE) * norm.sf(base_cut)
    return PREVALENCE * recall / (PREVALENCE * recall + (1 - PREVALENCE) * false), recall, 100 * calls


def broken(promise: Promise, base_cut: float, decision_cut: float) -> bool:
    precision, recall, qps = truth(base_cut, decision_cut)
    return (
        (promise.precision is not None and precision < promise.precision)
        or (promise.recall is not None and recall < promise.recall)
        or (promise.qps is not None and qps > promise.qps)
    )


@pytest.mark.parametrize(
    "promise",
    [
        Promise(precision=0.7, qps=12.0, delta=0.2),
        Promise(precision=0.5, recall=0.5, qps=25.0, delta=0.1),
    ],
)
def test_200_simulated_sets_break_the_promise_in_at_most_delta(promise) -> None:
    certified = violated = 0
    recalls = []
    for seed in range(200):
        try:
            found = certify(*world(3000, seed), promise, seed=seed)
        except InfeasibleError:
            continue
        certified += 1
        violated += broken(promise, found.base_threshold, found.decision_threshold)
        recalls.append(truth(found.base_threshold, found.decision_threshold)[1])
    # a refusal breaks nothing: the rate is over all 200; the bound is the 99.9 % point of a binomial
    assert violated <= binom.ppf(0.999, 200, promise.delta)
    assert certified >= 150  # the power: it is no guarantee by never speaking
    assert np.mean(recalls) > 0.4


def test_thresholds_without_a_test_do_break_it() -> None:
    """What the guarantee is there for: the best pair on the same rows misses its precision about every other time."""
    violated = 0
    for seed in range(60):
        found = within_budget(ScoredRows(*world(3000, seed)), 0.7, 12.0)
        violated += broken(Promise(precision=0.7, qps=12.0), found.base_threshold, found.decision_threshold)
    assert violated > 30


def test_p_values_are_exact_binomial_tails() -> None:
    counts = Counts(np.array([45]), np.array([50]), np.array([60]), 100, 1000)
    assert p_values(counts, Promise(precision=0.8))[0] == pytest.approx(binom.sf(44, 50, 0.8))
    # the tail of a binomial is a beta quantile: Clopper and Pearson's bound is where the p-value is delta
    bound = beta.ppf(0.1, 45, 6)
    assert p_values(counts, Promise(precision=bound))[0] == pytest.approx(0.1)
    assert p_values(counts, Promise(recall=0.4))[0] == pytest.approx(binom.sf(44, 100, 0.4))
    joint = p_values(counts, Promise(precision=0.8, recall=0.4, qps=8.0))[0]
    assert joint == pytest.approx(max(binom.sf(44, 50, 0.8), binom.sf(44, 100, 0.4), binom.cdf(60, 1000, 0.08)))
    nothing = Counts(np.array([0]), np.array([0]), np.array([5]), 100, 1000)
    assert p_values(nothing, Promise(precision=0.8))[0] == 1.0


def test_a_refusal_says_how_many_labels_would_do_and_they_do() -> None:
    promise = Promise(precision=0.75, qps=12.0)
    with pytest.raises(
        InfeasibleError, match=r"cannot certify precision 75 % and at most 12 %.*about \d+ labels"
    ) as no:
        certify(*world(300, 5), promise, seed=5)
    needed = int(str(no.value).split("about ")[1].split(" labels")[0])
    assert 300 < needed < 20_000
    passed = 0
    for seed in range(20):
        try:
            certify(*world(2 * needed, 100 + seed), promise, seed=seed)
            passed += 1
        except InfeasibleError:
            pass
    assert passed >= 12


def test_what_no_number_of_labels_certifies_is_said_so() -> None:
    label = world(2000, 1)[0]
    rng = np.random.default_rng(0)
    with pytest.raises(InfeasibleError, match=r"more would not help|no pair of thresholds"):
        certify(label, rng.normal(size=2000), rng.normal(size=2000), Promise(precision=0.95, recall=0.5))


def test_labels_needed_reach_their_power() -> None:
    counts = Counts(np.array([90]), np.array([100]), np.array([100]), 300, 1000)
    rows = int(labels_needed(counts, Promise(precision=0.8))[0])
    predicted = rows // 10
    assert binom.sf(binom.ppf(0.2, predicted, 0.9) - 1, predicted, 0.8) <= 0.1
    assert np.isinf(labels_needed(counts, Promise(precision=0.95))[0])
    assert np.isinf(labels_needed(counts, Promise(recall=0.5))[0])
    assert np.isinf(labels_needed(counts, Promise(precision=0.8, qps=9.0))[0])


def test_equal_seeds_and_groups_keep_to_one_part() -> None:
    label, base, mllm = world(4000, 3)
    promise = Promise(precision=0.6)
    assert certify(label, base, mllm, promise, seed=1) == certify(label, base, mllm, promise, seed=1)
    groups = np.arange(4000) // 4
    found = certify(label, base, mllm, promise, groups=groups)
    assert found.n_tune % 4 == 0
    assert found.n_tune + found.n_test == 4000


def test_thinned_and_soft_rows_are_refused() -> None:
    label, base, mllm = world(500, 1)
    with pytest.raises(DataError, match="unequal weight"):
        certify(label, base, mllm, Promise(precision=0.6), weight=np.where(label == 1, 1.0, 5.0))
    with pytest.raises(DataError, match="0 or 1"):
        certify(label * 0.9 + 0.05, base, mllm, Promise(precision=0.6))
    with pytest.raises(DataError, match="one class only"):
        certify(np.append(1.0, np.zeros(499)), base, mllm, Promise(precision=0.6))


@pytest.mark.parametrize("bad", [{"precision": 80.0}, {"qps": 5.0}, {"precision": 0.8, "delta": 0.0}, {"recall": 1.0}])
def test_promises_out_of_range(bad) -> None:
    with pytest.raises(ValueError, match=r"expected|needs"):
        Promise(**bad)


def test_conformal_risk_control_bounds_the_mean_miss_rate() -> None:
    rates = []
    for seed in range(300):
        label, _, score = world(1500, seed)
        rates.append(norm.cdf(miss_rate_threshold(label, score, 0.1) - SHIFT[1]))
    assert 0.08 < np.mean(rates) <= 0.1 + 3 * np.std(rates) / np.sqrt(300)
    with pytest.raises(InfeasibleError, match="9 can"):
        miss_rate_threshold([1, 1, 0], [0.5, 0.6, 0.1], 0.1)
    with pytest.raises(InfeasibleError, match="filtered out already"):
        miss_rate_threshold([1] * 20 + [0], [-np.inf] * 5 + [0.5] * 16, 0.1)
