"""Data profiles and the population stability index."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from coefvq.data.validation.profile import profile, psi


def videos(count: int, seed: int, views: float = 1.0, silent: float = 0.2, positive: float = 0.1) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "views": pd.array((random.lognormal(6, 2, count) * views).astype(int), dtype="Int64"),
            "duration_s": random.uniform(2, 60, count),
            "fps": random.choice([24.0, 25.0, 30.0], count),
            "width": pd.array(random.choice([360, 720], count), dtype="Int64"),
            "size_bytes": pd.array(random.integers(10_000, 9_000_000, count), dtype="Int64"),
            "has_audio": random.random(count) > silent,
            "title": ["x" * int(n) for n in random.integers(0, 80, count)],
            "stickers": [["a"] * int(n) for n in random.integers(0, 5, count)],
            "label_icd": pd.array(np.where(random.random(count) < positive, 1, 0), dtype="Int8"),
        }
    )


def test_a_set_is_not_far_from_itself_and_the_profile_is_json() -> None:
    rows = videos(500, 1)
    made = json.loads(json.dumps(profile(rows, ["icd"])))
    found = psi(made, rows, ["icd"])
    assert set(found) >= {"views", "duration_s", "has_audio", "title_chars", "stickers", "label_icd"}
    assert max(found.values()) == 0.0
    assert all(sum(column["shares"]) == pytest.approx(1.0) for column in made["columns"].values())


def test_halves_of_small_sets_do_not_trip_the_usual_limit() -> None:
    tripped = 0
    for seed in range(60):
        rows = videos(200, seed)
        tripped += max(psi(profile(rows[:100], ["icd"]), rows[100:], ["icd"]).values()) > 0.25
    assert tripped <= 2


@pytest.mark.parametrize(
    ("change", "column"),
    [({"views": 30.0}, "views"), ({"silent": 0.8}, "has_audio"), ({"positive": 0.5}, "label_icd")],
)
def test_a_real_shift_is_seen_in_its_column_only(change: dict[str, float], column: str) -> None:
    found = psi(profile(videos(2000, 1), ["icd"]), videos(2000, 2, **change), ["icd"])
    assert found.pop(column) > 0.25
    assert max(found.values()) < 0.05


def test_empty_values_and_unknown_classes_are_bins_of_their_own() -> None:
    rows = videos(400, 1)
    gone = videos(400, 2).assign(views=pd.array([None] * 400, dtype="Int64"))
    assert psi(profile(rows, []), gone, [])["views"] > 1.0
    stranger = rows.assign(has_audio="maybe")
    assert psi(profile(rows, []), stranger, [])["has_audio"] > 1.0


def test_the_formula_on_paper() -> None:
    # r = 0.5/0.5, c = 0.75/0.25 of 400 rows: (c-r)ln(c/r) summed, half a row per bin, less chance
    before = pd.DataFrame({"has_audio": [True, False] * 200})
    after = pd.DataFrame({"has_audio": [True] * 300 + [False] * 100})
    r, c = np.array([200.5, 200.5]) / 401, np.array([100.5, 300.5]) / 401
    expected = ((c - r) * np.log(c / r)).sum() - 2 / 400
    assert psi(profile(before, []), after, [])["has_audio"] == pytest.approx(expected)


def test_nothing_to_compare_with_is_no_drift() -> None:
    assert psi({}, videos(10, 1), ["icd"]) == {}
    assert psi(profile(videos(0, 1), ["icd"]), videos(10, 1), ["icd"])["views"] == 0.0
