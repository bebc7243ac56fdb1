"""The audit stream: deterministic draws, unbiased estimates, intervals that hold as often as they say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coefvq.cascade.audit_sample import AuditSample, estimate, planned, uniform_draws
from coefvq.errors import DataError

RATE = 0.08
SEEDS = 400


@pytest.fixture(scope="module")
def stream():
    """5,000 videos: what is flagged, and the truth; about a fifth of the positives are filtered out."""
    rng = np.random.default_rng(11)
    label = (rng.random(5000) < 0.08).astype(float)
    flagged = rng.random(5000) < np.where(label > 0, 0.8, 0.05)
    return flagged, label, [f"v{i}" for i in range(5000)]


def drawn(stream, seed):
    """Estimate from one seed: flagged videos are all reviewed, the others where the audit drew them."""
    flagged, label, ids = stream
    seen = flagged | AuditSample(rate=RATE, seed=seed).selected(ids)
    return estimate(flagged, np.where(flagged, 1.0, RATE), np.where(seen, label, np.nan))


@pytest.fixture(scope="module")
def estimates(stream):
    return [drawn(stream, seed) for seed in range(SEEDS)]


def test_unbiased_over_seeds(stream, estimates):
    flagged, label, _ = stream
    missed = label[~flagged].sum()
    for values in ([e.missed.value for e in estimates], [e.missed_hajek for e in estimates]):
        error = np.std(values) / np.sqrt(SEEDS)
        assert abs(np.mean(values) - missed) < 3.5 * error
    # the check can fail: counting what was seen without its weight is far off
    naive = np.mean([e.seen_missed for e in estimates])
    assert abs(naive - missed) > 0.8 * missed


def test_recall_is_unbiased_where_few_missed_positives_are_seen():
    """20 found, 8 missed, a fifth drawn: the plain quotient is 3 points too high on average."""
    flagged, label = np.arange(60) < 20, (np.arange(60) < 28).astype(float)
    truth, plain, ours = 20 / 28, [], []
    for seed in range(SEEDS * 10):
        seen = flagged | (uniform_draws([f"v{i}" for i in range(60)], seed) < 0.2)
        if not (seen & ~flagged).any():
            continue
        found = estimate(flagged, np.where(flagged, 1.0, 0.2), np.where(seen, label, np.nan))
        plain.append(found.found.value / (found.found.value + found.missed.value))
        ours.append(found.recall.value)
        assert found.recall.low <= found.recall.value <= found.recall.high
    assert np.mean(plain) - truth > 0.02
    assert abs(np.mean(ours) - truth) < 0.012


def test_intervals_hold_at_least_as_often_as_they_say(stream, estimates):
    flagged, label, _ = stream
    recall = label[flagged].sum() / label.sum()
    held = np.mean([e.recall.low <= recall <= e.recall.high for e in estimates])
    assert held >= 0.95 - 2.5 * np.sqrt(0.95 * 0.05 / SEEDS)
    # and not by being endless
    assert np.median([e.recall.high - e.recall.low for e in estimates]) < 0.3


def test_two_sampled_sides_hold_too(stream):
    """Only a part of the flagged is reviewed: the ratio of two estimates."""
    flagged, label, ids = stream
    recall = label[flagged].sum() / label.sum()
    held = []
    for seed in range(SEEDS):
        rate = np.where(flagged, 0.5, RATE)
        seen = uniform_draws(ids, seed) < rate
        found = estimate(flagged, rate, np.where(seen, label, np.nan))
        held.append(found.recall.low <= recall <= found.recall.high)
    assert np.mean(held) >= 0.94


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, unique=True), st.integers(0, 99), st.floats(0.01, 1.0))
def test_draws_depend_on_id_and_seed_alone(ids, seed, rate):
    draws = uniform_draws(ids, seed)
    assert ((draws >= 0) & (draws < 1)).all()
    assert dict(zip(ids, draws, strict=True)) == dict(zip(ids[::-1], uniform_draws(ids[::-1], seed), strict=True))
    lower, higher = (AuditSample(rate=r, seed=seed).selected(ids) for r in (rate / 2, rate))
    assert not (lower & ~higher).any()


def test_draws_are_uniform_and_seeds_independent():
    ids = [f"v{i}" for i in range(20_000)]
    one, two = uniform_draws(ids, 1), uniform_draws(ids, 2)
    assert np.histogram(one, 10, (0, 1))[0] == pytest.approx(np.full(10, 2000), abs=200)
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.03


@settings(max_examples=60)
@given(st.data())
def test_everything_labelled_is_plain_counting(data):
    n = data.draw(st.integers(2, 40))
    flagged = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    label = np.array(data.draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=n, max_size=n)))
    flagged[0], label[1] = False, 1.0
    found = estimate(flagged, np.ones(n), label)
    recall = label[flagged].sum() / label.sum()
    assert (found.recall.low, found.recall.value, found.recall.high) == pytest.approx((recall,) * 3)
    assert found.recall_hajek == pytest.approx(recall)


def test_no_positive_seen_among_the_filtered_still_bounds_recall():
    flagged = np.r_[np.ones(50, bool), np.zeros(1000, bool)]
    label = np.r_[np.ones(50), np.full(1000, np.nan)]
    label[50:150] = 0.0
    found = estimate(flagged, np.where(flagged, 1.0, 0.1), label)
    assert (found.missed.value, found.missed.low, found.recall.high) == (0.0, 0.0, 1.0)
    # the rule of three: at most about 3.7 seen, each for ten
    assert found.missed.high == pytest.approx(36.9, abs=0.1)


def test_planned_interval_narrows_with_the_rate():
    widths = [planned(600, 400, rate) for rate in (0.01, 0.1, 0.5)]
    assert all(item.low < 0.6 < item.high for item in widths)
    spans = [item.high - item.low for item in widths]
    assert spans == sorted(spans, reverse=True)


@pytest.mark.parametrize(
    ("flagged", "probability", "label", "message"),
    [
        ([True, False], [1.0, 0.0], [1, np.nan], "probability of row 1"),
        ([True, False], [1.0, 0.5], [2, 0], "label of row 0"),
        ([True, False], [1.0, 0.5], [np.nan, 0], "label of row 0"),
        ([True, False], [1.0, 0.5], [1, np.nan], "recall is unknown"),
        ([True, False], [1.0, 0.5], [0, 0], "no positive"),
        ([True], [1.0, 0.5], [0, 0], "one length"),
    ],
)
def test_refused(flagged, probability, label, message):
    with pytest.raises(DataError, match=message):
        estimate(flagged, probability, label)
