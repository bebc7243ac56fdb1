"""Intervals against scipy and known coverage; slices and prevalence shift."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from coefvq.cascade.curves import curve_at_threshold
from coefvq.errors import DataError
from coefvq.evaluation.intervals import bootstrap_difference, bootstrap_intervals, clopper_pearson, weighted_share
from coefvq.evaluation.metrics import (
    at_prevalence,
    curve_roc_auc,
    estimated_prevalence,
    precision_recall_points,
    roc_auc,
)
from coefvq.evaluation.slices import bands, slice_columns, slice_rows, with_intervals, writing_system


def world(n: int = 600, seed: int = 0, prevalence: float = 0.2):
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < prevalence).astype(float)
    label[:2] = 0.0, 1.0
    return label, 1.0 / (1.0 + np.exp(1.0 - rng.normal(size=n) - 1.5 * label))


@pytest.mark.parametrize(("k", "n"), [(0, 5), (5, 5), (3, 10), (40, 1000), (1, 1)])
def test_clopper_pearson_is_scipys(k, n) -> None:
    theirs = binomtest(k, n).proportion_ci(0.95, method="exact")
    ours = clopper_pearson(k, n)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_no_trials_say_nothing() -> None:
    assert clopper_pearson(0, 0) == weighted_share([], [])
    assert (clopper_pearson(0, 0).low, clopper_pearson(0, 0).high) == (0.0, 1.0)


def test_unequal_weights_widen_the_share() -> None:
    hit = np.tile([1.0, 0.0, 0.0, 0.0], 50)
    equal, unequal = weighted_share(hit), weighted_share(hit, np.repeat([1.0, 9.0], 100))
    assert equal == weighted_share(hit, np.full(200, 7.0))
    assert unequal.high - unequal.low > 1.2 * (equal.high - equal.low)


def test_bootstrap_equals_resampling_rows() -> None:
    label, score = world(150)
    found = bootstrap_intervals(label, score, None, {"auc": curve_roc_auc}, replicates=500, seed=3)["auc"]
    rng = np.random.default_rng(3)
    drawn = []
    for _ in range(500):
        rows = rng.integers(0, 150, 150)
        drawn.append(roc_auc_score(label[rows], score[rows]))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, (0.025, 0.975))), abs=1e-12)
    assert found.value == pytest.approx(roc_auc_score(label, score))


def test_bootstrap_covers_at_about_its_confidence() -> None:
    label, score = world(200_000, seed=9)
    truth, covered = roc_auc(label, score), 0
    for seed in range(100):
        label, score = world(300, seed=seed)
        found = bootstrap_intervals(label, score, None, {"auc": curve_roc_auc}, replicates=200, seed=seed)["auc"]
        covered += found.low <= truth <= found.high
    assert 86 <= covered <= 100  # binomial: under 86 of 100 at 0.95 has probability 3e-4


def test_groups_make_it_wider() -> None:
    label, score = world(100)
    label, score, groups = np.repeat(label, 6), np.repeat(score, 6), np.repeat(np.arange(100), 6)
    rows = bootstrap_intervals(label, score, None, {"auc": curve_roc_auc}, replicates=300)["auc"]
    whole = bootstrap_intervals(label, score, None, {"auc": curve_roc_auc}, replicates=300, groups=groups)["auc"]
    assert whole.high - whole.low > 1.8 * (rows.high - rows.low)


def test_missing_group_keys_stand_alone() -> None:
    label, score = world(80)
    alone = bootstrap_intervals(
        label, score, None, {"auc": curve_roc_auc}, replicates=200, groups=[None] * 40 + [float("nan")] * 40
    )
    assert alone == bootstrap_intervals(label, score, None, {"auc": curve_roc_auc}, replicates=200)


def test_replicates_of_one_class_are_counted() -> None:
    found = bootstrap_intervals([1, 0, 0, 0], [0.9, 0.1, 0.2, 0.3], None, {"auc": curve_roc_auc}, replicates=400)["auc"]
    assert found.undefined == pytest.approx(0.75**4 + 0.25**4, abs=0.08)
    none = bootstrap_intervals([1, 0], [0.9, 0.1], None, {"no": lambda _: None}, replicates=150)["no"]
    assert (none.value, none.low, none.undefined) == (None, None, 1.0)


def test_a_difference_is_paired() -> None:
    label, score = world(300)
    same = bootstrap_difference(label, (score, curve_roc_auc), (score, curve_roc_auc), replicates=200)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    noisy = score + np.random.default_rng(1).normal(scale=0.3, size=300)
    better = bootstrap_difference(label, (score, curve_roc_auc), (noisy, curve_roc_auc), replicates=300)
    assert better.value == pytest.approx(roc_auc(label, score) - roc_auc(label, noisy))
    assert better.low is not None
    assert better.low > 0.0


def test_intervals_at_a_threshold_hold_the_value() -> None:
    label, score = world(400)
    found = with_intervals(label, score, np.ones(400), 0.5, (60.0, 99.9), replicates=200)
    assert set(found) == {"f1", "average_precision", "roc_auc", "r_at_p60", "r_at_p99.9", "precision", "recall"}
    point = curve_at_threshold(precision_recall_points(label, score), 0.5)
    assert found["precision"].value == pytest.approx(point.precision)
    assert found["recall"].value == pytest.approx(point.recall)
    for interval in found.values():
        assert interval.low <= interval.value <= interval.high


def test_prevalence_shift_keeps_rates_and_moves_precision() -> None:
    label, score = world(2000, prevalence=0.5)
    shifted, weight = at_prevalence(label, None, 0.05)
    before, after = precision_recall_points(label, score), precision_recall_points(shifted, score, weight)
    np.testing.assert_allclose(after.recall, before.recall, atol=1e-12)
    assert after.positives / after.total == pytest.approx(0.05)
    assert after.total == pytest.approx(2000)
    assert roc_auc(shifted, score, weight) == pytest.approx(roc_auc(label, score))
    assert after.precision[500] < before.precision[500]


def test_soft_labels_shift_their_odds() -> None:
    shifted, weight = at_prevalence([0.5, 0.5, 0.2, 0.8], None, 0.1)
    assert (shifted * weight).sum() / weight.sum() == pytest.approx(0.1)
    np.testing.assert_allclose((shifted / (1 - shifted))[:2], (0.1 / 0.9) / (0.5 / 0.5))


def test_prevalence_of_traffic_is_found_without_its_labels() -> None:
    label, score = world(40_000, prevalence=0.4)
    hidden, traffic = world(40_000, seed=5, prevalence=0.08)
    assert estimated_prevalence(label, score, traffic) == pytest.approx(hidden.mean(), abs=0.012)
    with pytest.raises(DataError, match="cannot be told"):
        estimated_prevalence(label, np.zeros(40_000), traffic)


def manifest(n: int = 120) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "title": ["my dinner", "мой ужин", "", "我的晚餐"] * (n // 4),
            "duration_s": [2.0, 5.0, 59.9, float("nan")] * (n // 4),
            "views": pd.array([None, 99, 100, 10**6] * (n // 4), dtype="Int64"),
            "has_audio": pd.array([True, False, True, None] * (n // 4), dtype="boolean"),
            "creator_id": ["a"] * (n - 2) + ["b", None],
            "fps": [25.0] * n,
        }
    )


def test_slices_by_name() -> None:
    found = slice_columns(manifest(), ["language", "duration", "views", "has_audio", "creator_size", "fps"])
    assert list(found["language"][:4]) == ["latin", "cyrillic", "unknown", "cjk"]
    assert list(found["duration"][:4]) == ["under 5 s", "5–15 s", "15–60 s", "unknown"]
    assert list(found["views"][:4]) == ["unknown", "under 100", "100–1000", "100000 or more"]
    assert list(found["has_audio"][:4]) == ["True", "False", "True", "unknown"]
    assert list(found["creator_size"][-3:]) == ["100 videos or more", "under 2 videos", "unknown"]
    assert set(found["fps"]) == {"25.0"}
    with pytest.raises(DataError, match="'nope' is no column"):
        slice_columns(manifest(), ["nope"])


def test_a_languages_column_wins_over_the_title() -> None:
    assert set(slice_columns(manifest().assign(language="pt"), ["language"])["language"]) == {"pt"}
    assert writing_system("abc где") == "cyrillic"  # equal counts: alphabetically


def test_slice_rows_use_the_thresholds_of_the_whole() -> None:
    label, score = world(120)
    label[0::4] = 0.0  # the first slice has one class
    rows = slice_rows(
        label, {"base": (score, 0.5)}, np.ones(120), slice_columns(manifest(), ["duration"]), (60.0,), replicates=120
    )
    assert [row["value"] for row in rows] == ["15–60 s", "5–15 s", "under 5 s", "unknown"]
    assert rows[2]["base"] is None
    assert rows[2]["note"] == "one class only"
    chosen = slice(1, None, 4)
    expected = curve_at_threshold(precision_recall_points(label[chosen], score[chosen]), 0.5).f1
    assert rows[1]["base"]["f1"]["value"] == pytest.approx(expected)
    assert sum(row["n"] for row in rows) == 120


def test_bands_are_half_open() -> None:
    assert list(bands([4.999, 5.0], (5.0, 15.0))) == ["under 5", "5–15"]
