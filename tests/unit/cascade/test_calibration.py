"""Calibration against scikit-learn and known distortions; JSON; what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from coefvq.cascade.calibration import KINDS, Calibrator, fit_calibrator, log_loss, logit
from coefvq.errors import DataError
from coefvq.evaluation.metrics import expected_calibration_error, reliability


def distorted(n: int = 20_000, slope: float = 2.5, shift: float = 1.0, seed: int = 0):
    """Labels drawn from p, scores whose logit is slope·logit(p) + shift: overconfident and biased."""
    rng = np.random.default_rng(seed)
    z = rng.normal(-1.0, 1.2, n)
    label = (rng.random(n) < 1.0 / (1.0 + np.exp(-z))).astype(float)
    return label, 1.0 / (1.0 + np.exp(-(slope * z + shift)))


def test_platt_undoes_slope_and_shift() -> None:
    label, score = distorted()
    found = fit_calibrator("platt", label, score)
    assert found.slope == pytest.approx(1 / 2.5, rel=0.05)
    assert found.intercept == pytest.approx(-1.0 / 2.5, abs=0.05)


def test_platt_is_scikit_learns_logistic_regression_with_weights() -> None:
    label, score = distorted(2000)
    weight = np.random.default_rng(1).uniform(0.5, 3.0, 2000)
    theirs = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logit(score)[:, None], label, weight)
    found = fit_calibrator("platt", label, score, weight)
    assert (found.slope, found.intercept) == pytest.approx((theirs.coef_[0, 0], theirs.intercept_[0]), abs=1e-4)


def test_temperature_undoes_overconfidence() -> None:
    label, score = distorted(shift=0.0)
    assert fit_calibrator("temperature", label, score).slope == pytest.approx(1 / 2.5, rel=0.05)


# scores that scikit-learn takes for one number, chains of them, and equal ones
CLOSE = st.builds(lambda base, steps: base + steps * 4e-16, st.sampled_from([0.0, 1e-17, 0.25, 0.5]), st.integers(0, 9))


@given(
    st.lists(
        st.tuples(st.floats(0, 1), CLOSE | st.floats(0, 1), st.sampled_from([0.0, 0.5, 1.0, 3.3])),
        min_size=2,
        max_size=40,
    )
)
def test_isotonic_is_scikit_learns_to_the_last_bit(rows: list[tuple[float, float, float]]) -> None:
    label, score, weight = map(np.array, zip(*rows, strict=True))
    label = np.append(label, [0.0, 1.0])
    score, weight = np.append(score, [0.1, 0.9]), np.append(weight, [1.0, 1.0])
    theirs = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(score, label, sample_weight=weight)
    found = fit_calibrator("isotonic", label, score, weight)
    assert found.x == tuple(theirs.X_thresholds_.tolist())
    assert found.y == tuple(theirs.y_thresholds_.tolist())


def test_isotonic_is_scikit_learns() -> None:
    label, score = distorted(500)
    theirs = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(score, label)
    asked = np.linspace(0, 1, 300)
    np.testing.assert_allclose(fit_calibrator("isotonic", label, score)(asked), theirs.predict(asked), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_reliability_gets_better_on_other_rows(kind) -> None:
    label, score = distorted(seed=1, shift=0.0 if kind == "temperature" else 1.0)
    calibrator = fit_calibrator(kind, *distorted(seed=2, shift=0.0 if kind == "temperature" else 1.0))
    assert expected_calibration_error(label, calibrator(score)) < 0.3 * expected_calibration_error(label, score)
    assert log_loss(label, calibrator(score)) < log_loss(label, score)


@pytest.mark.parametrize("kind", KINDS)
def test_order_stays_and_json_reads_back(kind) -> None:
    label, score = distorted(800)
    calibrator = fit_calibrator(kind, label, score)
    assert (np.diff(calibrator(np.sort(score))) >= 0).all()
    again = Calibrator.from_dict(json.loads(json.dumps(calibrator.to_dict(), allow_nan=False)))
    assert again == calibrator
    np.testing.assert_array_equal(again(score), calibrator(score))
    assert np.isnan(calibrator([np.nan, 0.5])[0])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.sampled_from(KINDS))
def test_soft_labels_weights_and_extreme_scores(seed, kind) -> None:
    rng = np.random.default_rng(seed)
    score = rng.choice([0.0, 1e-12, 0.3, 0.5, 1.0], 30)
    score[:2] = 0.0, 1.0
    calibrated = fit_calibrator(kind, rng.random(30), score, rng.uniform(0.1, 5.0, 30))(score)
    assert ((calibrated >= 0) & (calibrated <= 1)).all()
    assert (np.diff(calibrated[np.argsort(score, kind="stable")]) >= 0).all()


def test_separable_classes_do_not_diverge() -> None:
    found = fit_calibrator("platt", [0, 0, 1, 1], [0.2, 0.3, 0.7, 0.8])
    assert np.isfinite([found.slope, found.intercept]).all()


def test_reliability_is_the_mean_by_bins() -> None:
    label, score = distorted(3000)
    table = reliability(label, score, bins=10)
    inside = (score >= 0.3) & (score < 0.4)
    at = int(np.flatnonzero(np.isclose(table.low, 0.3))[0])
    assert table.frequency[at] == pytest.approx(label[inside].mean())
    assert table.mean_score[at] == pytest.approx(score[inside].mean())
    assert table.weight.sum() == 3000


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"kind": "magic"}, "expected the keys"),
        ({"schema_version": 1, "kind": "platt", "slope": 1.0}, "expected the keys"),
        ({"schema_version": 1, "kind": "platt", "slope": -1.0, "intercept": 0.0}, "slope must be"),
        ({"schema_version": 1, "kind": "platt", "slope": float("nan"), "intercept": 0.0}, "finite"),
        ({"schema_version": 1, "kind": "isotonic", "x": [0.1, 0.1], "y": [0.1, 0.2]}, "x must ascend"),
        ({"schema_version": 1, "kind": "isotonic", "x": [0.1, 0.2], "y": [0.3, 0.2]}, "must not fall"),
        ({"schema_version": 1, "kind": "isotonic", "x": [0.1, 0.2], "y": [0.3, 1.2]}, "y must lie"),
        ({"schema_version": 1, "kind": "isotonic", "x": "ab", "y": [0.3]}, "expected numbers"),
    ],
)
def test_a_broken_file_is_refused(raw, message) -> None:
    with pytest.raises(DataError, match=message):
        Calibrator.from_dict(raw, "calibration.json")


@pytest.mark.parametrize(
    ("label", "score", "message"),
    [
        ([0, 1], [0.5, 0.5], "all scores are 0.5"),
        ([0, 1], [0.5, 1.5], "in \\[0, 1\\]"),
        ([1, 1], [0.5, 0.6], "one class"),
    ],
)
def test_bad_rows_are_refused(label, score, message) -> None:
    with pytest.raises(DataError, match=message):
        fit_calibrator("platt", label, score)
