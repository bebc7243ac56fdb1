"""Metrics on hand-made cases and against scikit-learn, with weights, ties, soft labels and withheld rows."""

import numpy as np
import pytest
from sklearn import metrics as sk

from coefvq.errors import DataError
from coefvq.evaluation.metrics import (
    at_threshold,
    average_precision,
    best_f1_threshold,
    classification_summary,
    expected_calibration_error,
    f1_at_threshold,
    precision_recall_points,
    recall_at_precision,
    recall_key,
    roc_auc,
)

WITHHELD = -np.inf


def tied_columns(seed: int, n: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 0.2).astype(float)
    score = np.round(np.clip(0.3 * label + rng.normal(0.4, 0.2, n), 0.0, 1.0), 1 + seed % 3)
    return label, score, rng.uniform(0.2, 5.0, n)


def brute_recall_at_precision(label, score, precision, weight) -> float:
    points = sk.precision_recall_curve(label, score, sample_weight=weight)
    return max((r for p, r in zip(*points[:2], strict=True) if p >= precision and r > 0), default=0.0)


@pytest.mark.parametrize("seed", range(6))
def test_agrees_with_scikit_learn(seed: int) -> None:
    label, score, weight = tied_columns(seed)
    assert average_precision(label, score, weight) == pytest.approx(
        sk.average_precision_score(label, score, sample_weight=weight), abs=1e-12
    )
    assert roc_auc(label, score, weight) == pytest.approx(
        sk.roc_auc_score(label, score, sample_weight=weight), abs=1e-12
    )
    curve = precision_recall_points(label, score, weight)
    precision, recall, threshold = sk.precision_recall_curve(label, score, sample_weight=weight)
    # scikit-learn ascends and closes with the point (1, 0)
    np.testing.assert_array_equal(curve.threshold, threshold[::-1])
    np.testing.assert_allclose(curve.precision, precision[:-1][::-1], atol=1e-12)
    np.testing.assert_allclose(curve.recall, recall[:-1][::-1], atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_recall_at_precision_agrees_with_brute_force(seed: int) -> None:
    label, score, weight = tied_columns(seed)
    for weights in (None, weight):
        for precision in (0.2, 0.35, 0.5, 0.75, 0.9, 1.0):
            found = recall_at_precision(label, score, precision, weights)
            assert found.recall == pytest.approx(brute_recall_at_precision(label, score, precision, weights), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_f1_agrees_with_scikit_learn_at_every_threshold(seed: int) -> None:
    label, score, weight = tied_columns(seed)
    f1s = {t: sk.f1_score(label, score >= t, sample_weight=weight) for t in np.unique(score)}
    for threshold, expected in f1s.items():
        assert f1_at_threshold(label, score, threshold, weight) == pytest.approx(expected, abs=1e-12)
    assert best_f1_threshold(label, score, weight).f1 == pytest.approx(max(f1s.values()), abs=1e-12)


def test_three_of_five_reaches_sixty_percent() -> None:
    label, score = [1, 0, 1, 0, 1, 0, 1], [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
    for weight in (None, [0.1] * 7, [3.0] * 7):
        found = recall_at_precision(label, score, 0.6, weight)
        assert found.reachable
        assert (found.threshold, found.recall) == (0.5, 0.75)


def test_a_precision_just_below_the_target_is_not_reached() -> None:
    label = np.r_[np.ones(59_999), np.zeros(40_001)]
    assert not recall_at_precision(label, np.ones(100_000), 0.6).reachable


def test_unreachable_precision_names_the_best_seen() -> None:
    found = recall_at_precision([0, 1, 0, 0], [0.9, 0.8, 0.7, 0.6], 0.7)
    assert (found.recall, found.threshold, found.reachable) == (0.0, None, False)
    assert found.precision == 0.5


def test_equal_recall_takes_the_highest_threshold() -> None:
    # 0.8 and 0.7 both recall everything at precision >= 0.5
    found = recall_at_precision([1, 1, 0, 0], [0.9, 0.8, 0.7, 0.6], 0.5)
    assert (found.threshold, found.precision) == (0.8, 1.0)


def test_best_f1_takes_the_highest_of_equal_thresholds() -> None:
    # F1 is 2/3 at 0.9 (1 of 1, recall 1/2) and at 0.6 (2 of 4, recall 1)
    point = best_f1_threshold([1, 0, 0, 1], [0.9, 0.8, 0.7, 0.6])
    assert (point.threshold, point.f1) == (0.9, pytest.approx(2 / 3))


def test_a_tie_group_is_never_cut() -> None:
    curve = precision_recall_points([1, 0, 1, 0], [0.5, 0.5, 0.5, 0.1])
    np.testing.assert_array_equal(curve.threshold, [0.5, 0.1])
    np.testing.assert_array_equal(curve.predicted, [3, 4])


def test_threshold_is_inclusive_and_may_lie_between_scores() -> None:
    label, score = [1, 0, 1], [0.9, 0.5, 0.2]
    assert at_threshold(label, score, 0.5).precision == 0.5
    assert at_threshold(label, score, 0.51).precision == 1.0
    above = at_threshold(label, score, 0.95)
    assert (above.precision, above.recall, above.f1) == (None, 0.0, 0.0)


def test_withheld_rows_count_in_recall_only() -> None:
    label, score = [1, 0, 1, 1, 0], [0.9, 0.8, 0.7, WITHHELD, WITHHELD]
    curve = precision_recall_points(label, score)
    np.testing.assert_allclose(curve.recall, [1 / 3, 1 / 3, 2 / 3])
    assert at_threshold(label, score, 0.0).recall == pytest.approx(2 / 3)
    assert average_precision(label, score) == pytest.approx(1 / 3 * 1.0 + 1 / 3 * 2 / 3)
    # for the ROC the withheld rows are one tie group at the bottom
    bottom = np.where(np.isinf(score), -1.0, score)
    assert roc_auc(label, score) == pytest.approx(sk.roc_auc_score(label, bottom))


def test_everything_withheld() -> None:
    label, score = [1, 0], [WITHHELD, WITHHELD]
    assert not recall_at_precision(label, score, 0.5).reachable
    assert roc_auc(label, score) == 0.5
    with pytest.raises(DataError, match="no row can be predicted positive"):
        best_f1_threshold(label, score)


def test_calibration_error_by_hand() -> None:
    # bin [0.2, 0.4): mean score 0.3, half positive; bin [0.8, 1]: mean score 0.9, all positive
    error = expected_calibration_error([0, 1, 1, 1], [0.25, 0.35, 0.85, 0.95], bins=5)
    assert error == pytest.approx(0.5 * 0.2 + 0.5 * 0.1)
    assert expected_calibration_error([0, 1], [0.0, 1.0]) == 0.0


def test_summary_keys_and_values() -> None:
    label, score = [1, 0, 1, 0], [0.9, 0.8, 0.4, 0.1]
    summary = classification_summary(label, score, [1, 1, 2, 1], 0.5, (60.0, 62.5, 99.0))
    assert summary["n"] == 4
    assert (summary["positives"], summary["prevalence"]) == (2.0, pytest.approx(3 / 5))
    assert (summary["precision"], summary["recall"]) == (0.5, pytest.approx(1 / 3))
    assert summary["r_at_p60"] == 1.0
    assert summary["r_at_p62.5"] == 1.0
    assert summary["r_at_p99"] == pytest.approx(1 / 3)
    unreachable = classification_summary([0, 1], [0.9, 0.8], None, 0.85, (60.0,))
    assert unreachable["r_at_p60"] is None
    assert unreachable["precision"] == 0.0
    assert recall_key(60.0) == "r_at_p60"


@pytest.mark.parametrize(
    ("label", "score", "weight", "message"),
    [
        ([1, 1], [0.1, 0.2], None, "one class only"),
        ([0, 0], [0.1, 0.2], None, "one class only"),
        ([1, 0], [0.1, 0.2], [1.0, 0.0], "one class only"),
        ([], [], None, "one class only"),
        ([1, 0], [0.1, np.nan], None, "score of row 1 is nan"),
        ([1, 0], [np.inf, 0.1], None, "score of row 0 is inf"),
        ([1, 2], [0.1, 0.2], None, "label of row 1 is 2"),
        ([np.nan, 0], [0.1, 0.2], None, "label of row 0 is nan"),
        ([1, 0], [0.1, 0.2], [1.0, -1.0], "weight of row 1 is -1"),
        ([1, 0], [0.1, 0.2, 0.3], None, "columns of one length"),
    ],
)
@pytest.mark.parametrize("metric", [average_precision, roc_auc, best_f1_threshold, expected_calibration_error])
def test_unusable_columns_are_refused(metric, label, score, weight, message) -> None:
    with pytest.raises(DataError, match=message):
        metric(label, score, weight)


def test_precision_in_percent_is_refused() -> None:
    with pytest.raises(ValueError, match="not percent"):
        recall_at_precision([1, 0], [0.9, 0.1], 60)


def test_calibration_refuses_logits() -> None:
    with pytest.raises(DataError, match=r"scores in \[0, 1\]"):
        expected_calibration_error([1, 0], [2.5, -1.0])
