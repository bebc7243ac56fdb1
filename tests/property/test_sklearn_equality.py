"""Our counting against scikit-learn's on random weighted data with ties, to 1e-12."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from coefvq.cascade.curves import precision_recall_points
from coefvq.evaluation.metrics import average_precision, best_f1_threshold, f1_at_threshold, roc_auc

CLOSE = {"rtol": 0.0, "atol": 1e-12}
MANY = settings(max_examples=200, deadline=None, derandomize=True)


@st.composite
def weighted(draw):
    """Up to 300 rows with both classes; few or many distinct scores; weights over four orders of magnitude."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, levels = draw(st.integers(2, 300)), draw(st.sampled_from((2, 5, 50, 10**6)))
    label = (rng.random(n) < draw(st.floats(0.02, 0.9))).astype(float)
    label[rng.integers(n)] = 0.0
    label[np.argmax(rng.random(n) * (label == 0.0))] = 1.0
    if label.all():
        label[np.argmin(label)] = 0.0
    if label.all() or not label.any():
        label[:2] = 0.0, 1.0
    score = rng.integers(0, levels, n) / levels
    return label, score, 10.0 ** rng.uniform(-2, 2, n)


@MANY
@given(weighted())
def test_precision_recall_curve(data) -> None:
    label, score, weight = data
    precision, recall, thresholds = sk.precision_recall_curve(label, score, sample_weight=weight)
    ours = precision_recall_points(label, score, weight)
    np.testing.assert_array_equal(ours.threshold[::-1], thresholds)
    np.testing.assert_allclose(ours.precision[::-1], precision[:-1], **CLOSE)
    np.testing.assert_allclose(ours.recall[::-1], recall[:-1], **CLOSE)


@MANY
@given(weighted())
def test_average_precision_and_auc(data) -> None:
    label, score, weight = data
    np.testing.assert_allclose(
        average_precision(label, score, weight), sk.average_precision_score(label, score, sample_weight=weight), **CLOSE
    )
    np.testing.assert_allclose(
        roc_auc(label, score, weight), sk.roc_auc_score(label, score, sample_weight=weight), **CLOSE
    )


@MANY
@given(weighted(), st.floats(0.0, 1.0))
def test_f1_at_a_threshold(data, threshold) -> None:
    label, score, weight = data
    theirs = sk.f1_score(label, score >= threshold, sample_weight=weight, zero_division=0.0)
    np.testing.assert_allclose(f1_at_threshold(label, score, threshold, weight), theirs, **CLOSE)


@settings(MANY, max_examples=40)
@given(weighted())
def test_best_f1_is_the_best_of_their_f1(data) -> None:
    label, score, weight = data
    best = best_f1_threshold(label, score, weight)
    tried = [sk.f1_score(label, score >= cut, sample_weight=weight, zero_division=0.0) for cut in np.unique(score)]
    np.testing.assert_allclose(best.f1, max(tried), **CLOSE)
