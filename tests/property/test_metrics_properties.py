"""Properties every metric must have, whatever the data."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coefvq.cascade.curves import spread_indices
from coefvq.evaluation.metrics import (
    average_precision,
    best_f1_threshold,
    classification_summary,
    precision_recall_points,
    recall_at_precision,
    roc_auc,
)

QUICK = settings(max_examples=30, deadline=None, derandomize=True)
TARGETS = (30.0, 50.0, 60.0, 70.0, 90.0)


@st.composite
def columns(draw, max_size: int = 40):
    """Labels with both classes, scores with many ties, whole-number weights."""
    n = draw(st.integers(2, max_size))
    label = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(lambda y: 0 < sum(y) < len(y)))
    score = draw(st.lists(st.integers(0, 12), min_size=n, max_size=n))
    weight = draw(st.lists(st.integers(1, 4), min_size=n, max_size=n))
    return np.array(label, float), np.array(score) / 12.0, np.array(weight, float)


def summary(label, score, weight, threshold=0.5):
    return classification_summary(label, score, weight, threshold, TARGETS)


def figures(result) -> dict:
    """A summary without the counts of rows, which repetition changes."""
    return {key: value for key, value in result.items() if key not in ("n", "positives")}


@QUICK
@given(columns(), st.integers(1, 100), st.integers(1, 100))
def test_recall_never_grows_with_precision(data, first, second) -> None:
    label, score, weight = data
    low, high = sorted((first, second))
    at_low = recall_at_precision(label, score, low / 100, weight)
    at_high = recall_at_precision(label, score, high / 100, weight)
    assert at_low.recall >= at_high.recall
    assert at_low.reachable or not at_high.reachable


@QUICK
@given(columns(), st.integers(1, 100))
def test_reaching_a_precision_is_decided_as_by_fractions(data, percent) -> None:
    label, score, weight = data
    best = Fraction(0)
    for threshold in np.unique(score):
        hit = score >= threshold
        precision = Fraction(int((weight * label)[hit].sum()), int(weight[hit].sum()))
        if precision >= Fraction(percent, 100):
            best = max(best, Fraction(int((weight * label)[hit].sum()), int((weight * label).sum())))
    found = recall_at_precision(label, score, percent / 100, weight)
    assert found.recall == pytest.approx(float(best), abs=1e-12)
    assert found.reachable == (best > 0)


@QUICK
@given(columns(), st.integers(1, 100))
def test_the_threshold_gives_what_was_promised(data, percent) -> None:
    label, score, weight = data
    found = recall_at_precision(label, score, percent / 100, weight)
    if found.threshold is not None:
        hit = score >= found.threshold
        assert (weight * label)[hit].sum() / (weight * label).sum() == pytest.approx(found.recall)
        assert (weight * label)[hit].sum() / weight[hit].sum() == pytest.approx(found.precision)


@QUICK
@given(columns(), st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter(data, random) -> None:
    order = list(range(len(data[0])))
    random.shuffle(order)
    assert summary(*(column[order] for column in data)) == pytest.approx(summary(*data))


@QUICK
@given(columns())
def test_only_the_ranking_matters(data) -> None:
    label, score, weight = data

    def transform(s):
        return np.exp(3.0 * s) - 7.0

    moved = summary(label, transform(score), weight, transform(0.5))
    plain = summary(label, score, weight)
    for key in ("decision_threshold", "f1_fixed"):  # they are about the scale
        del moved[key], plain[key]
    assert moved == pytest.approx(plain)


@QUICK
@given(columns())
def test_a_weight_is_a_repetition(data) -> None:
    label, score, weight = data
    times = weight.astype(int)
    repeated = summary(np.repeat(label, times), np.repeat(score, times), None)
    assert figures(repeated) == pytest.approx(figures(summary(label, score, weight)))
    assert best_f1_threshold(np.repeat(label, times), np.repeat(score, times)) == best_f1_threshold(
        label, score, weight
    )


@QUICK
@given(columns(), st.sampled_from([0.1, 0.3, 7.0, 1e-3]))
def test_the_unit_of_the_weights_does_not_matter(data, unit) -> None:
    label, score, weight = data
    assert summary(label, score, unit * weight) == pytest.approx(summary(label, score, weight))


@QUICK
@given(columns())
def test_rows_of_weight_zero_are_not_there(data) -> None:
    label, score, weight = data
    more = summary(np.r_[label, 1.0, 0.0], np.r_[score, 2.0, 1.5], np.r_[weight, 0.0, 0.0])
    assert figures(more) == figures(summary(label, score, weight))


@QUICK
@given(columns())
def test_a_soft_label_is_a_split_row(data) -> None:
    label, score, weight = data
    soft = 0.25 + 0.5 * label
    split = summary(
        np.r_[np.ones_like(label), np.zeros_like(label)],
        np.r_[score, score],
        np.r_[weight * soft, weight * (1.0 - soft)],
    )
    assert figures(summary(soft, score, weight)) == pytest.approx(figures(split))


@QUICK
@given(columns())
def test_a_certain_soft_label_is_a_hard_one(data) -> None:
    label, score, weight = data
    assert summary(label.astype(float), score, weight) == summary(label.astype(bool), score, weight)


@QUICK
@given(columns())
def test_ranges_and_order(data) -> None:
    label, score, weight = data
    curve = precision_recall_points(label, score, weight)
    assert (np.diff(curve.threshold) < 0).all()
    assert (np.diff(curve.recall) >= 0).all()
    assert curve.recall[-1] == 1.0
    assert curve.precision[-1] == pytest.approx(curve.positives / curve.total)
    assert best_f1_threshold(label, score, weight).f1 == curve.f1.max()


@QUICK
@given(columns())
def test_a_perfect_ranking_is_perfect_and_its_reverse_is_not(data) -> None:
    label, _, weight = data
    assert roc_auc(label, label, weight) == pytest.approx(1.0)
    assert average_precision(label, label, weight) == pytest.approx(1.0)
    assert roc_auc(label, -label, weight) == pytest.approx(0.0)


@QUICK
@given(st.lists(st.floats(0, 1), min_size=1, max_size=200), st.integers(2, 50))
def test_subsampling_keeps_the_ends(values, limit) -> None:
    values = np.sort(np.array(values))
    picked = spread_indices(values, limit)
    assert len(picked) <= max(limit, 2)
    assert (picked[0], picked[-1]) == (0, len(values) - 1)
    assert (np.diff(picked) > 0).all()
