"""The baseline on container facts: what it sees, when it stays silent, and its column in scores.parquet."""

import numpy as np
import pandas as pd
import pytest

from coefvq.evaluation.metrics import roc_auc
from coefvq.evaluation.shortcut import CONTAINER_COLUMNS, MIN_PER_CLASS, MIN_ROWS, container_facts, shortcut_scores
from coefvq.records import SCORE_COLUMNS
from coefvq.stages import predict


def columns(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "size_bytes": rng.integers(10_000, 90_000, n).astype(float),
        "duration_s": rng.uniform(1, 9, n),
        "fps": rng.choice([24.0, 25.0, 30.0], n),
        "width": rng.choice([640.0, 360.0], n),
        "height": np.full(n, 360.0),
        "has_audio": rng.integers(0, 2, n).astype(float),
    }


def leaking(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positives were encoded at a higher bitrate: neither size nor duration alone shows it."""
    facts = container_facts(columns(n, seed))
    return facts, (facts[:, -1] > 12_000).astype(int)


def test_bitrate_is_bytes_per_second_and_unknown_without_a_duration() -> None:
    given = {name: np.array([1.0, 1.0, 1.0]) for name in CONTAINER_COLUMNS}
    facts = container_facts(
        given | {"size_bytes": np.array([600.0, 600.0, np.nan]), "duration_s": np.array([2.0, 0.0, 2.0])}
    )
    assert facts.shape == (3, 7)
    np.testing.assert_array_equal(facts[:, -1], [300.0, np.nan, np.nan])


def test_it_finds_a_leak_and_finds_nothing_in_noise() -> None:
    facts, label = leaking(300, 1)
    asked, truth = leaking(300, 2)
    scores = shortcut_scores(facts, label, np.ones(300), asked)
    assert scores is not None
    assert ((scores >= 0) & (scores <= 1)).all()
    assert roc_auc(truth, scores) > 0.95
    noise = np.random.default_rng(3).permutation(label)
    blind = shortcut_scores(facts, noise, np.ones(300), asked)
    assert blind is not None
    assert abs(roc_auc(truth, blind) - 0.5) < 3 * 0.034  # three standard errors at 150 against 150


def test_same_rows_same_scores_and_a_weight_of_two_is_a_row_twice() -> None:
    facts, label = leaking(120, 4)
    asked, _ = leaking(50, 5)
    ones = np.ones(120)
    first = shortcut_scores(facts, label, ones, asked)
    np.testing.assert_array_equal(first, shortcut_scores(facts, label, ones, asked))
    weight = np.where(label == 1, 3.0, 1.0)
    heavier = shortcut_scores(facts, label, weight, asked)
    assert first is not None
    assert heavier is not None
    assert heavier.mean() > first.mean()


def test_unknown_facts_are_no_obstacle() -> None:
    facts, label = leaking(100, 6)
    facts[::3, 2] = np.nan
    facts[:, 5] = np.nan
    scores = shortcut_scores(facts, label, np.ones(100), facts)
    assert scores is not None
    assert np.isfinite(scores).all()
    assert shortcut_scores(np.full((100, 7), np.nan), label, np.ones(100), facts) is None


@pytest.mark.parametrize(("rows", "positives"), [(MIN_ROWS - 1, 15), (80, MIN_PER_CLASS - 1), (80, 80), (0, 0)])
def test_too_few_rows_or_one_class_give_no_scores(rows: int, positives: int) -> None:
    facts, _ = leaking(rows, 7)
    label = np.arange(rows) < positives
    assert shortcut_scores(facts, label, np.ones(rows), facts) is None


def manifest(train: int) -> pd.DataFrame:
    """Rows as ``split_manifest`` gives them; some unlabelled."""
    facts = columns(train + 60)
    split = ["train"] * train + ["val", "test", "traffic"] * 20
    label = pd.array((facts["size_bytes"] / facts["duration_s"] > 12_000).astype(int), dtype="Int8")
    label[::10] = pd.NA
    frame = pd.DataFrame({**facts, "split": split, "label_ucc": label, "weight": 1.0})
    return frame.astype({"size_bytes": "Int64", "width": "Int64", "height": "Int64", "has_audio": bool})


@pytest.mark.parametrize(("train", "known"), [(200, True), (12, False)])
def test_predict_fits_on_train_only_and_leaves_the_column_empty_where_it_cannot(train: int, known: bool) -> None:
    frame = manifest(train)
    rows = frame[frame["split"] != "train"].reset_index(drop=True)
    scores = predict._shortcut(frame, rows, "ucc")
    assert scores.notna().all() == known
    assert scores.isna().all() == (not known)
    turned = frame.assign(label_ucc=frame["label_ucc"].where(frame["split"] == "train", 1 - frame["label_ucc"]))
    pd.testing.assert_series_equal(predict._shortcut(turned, rows, "ucc"), scores)


def test_predict_passes_the_posteriors_of_partial_views_through() -> None:
    rows = pd.DataFrame({"video_id": ["a"], "split": "val", "weight": 1.0, "views": 3, "label_ucc": 1})
    without = predict._table(rows, "ucc")
    assert without[["posterior", "posterior_vision", "posterior_vision_text"]].isna().all(axis=None)
    table = predict._table(
        rows.assign(posterior_ucc=0.9, posterior_ucc_vision=0.2, posterior_ucc_vision_text=0.6), "ucc"
    )
    assert table.loc[0, ["posterior", "posterior_vision", "posterior_vision_text"]].tolist() == [0.9, 0.2, 0.6]
    assert set(SCORE_COLUMNS) == {*table.columns, "base", "mllm", "shortcut"}
