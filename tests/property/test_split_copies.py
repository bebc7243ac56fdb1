"""Splits of worlds with copies across creators: sources stay whole, shares and prevalence stay what was asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coefvq.config import Fractions, Negatives, Split
from coefvq.data.splits.assign import assign_splits, check_splits, summarize
from coefvq.data.splits.division import divided, size_limit
from coefvq.data.splits.groups import components, decodable, find_ties, undivided
from coefvq.errors import SplitError
from coefvq.records import LABELLED_SPLITS, SPLITS

VIDEOS = 10_000
FRACTIONS = Fractions(train=0.56, val=0.16, test=0.18, traffic=0.1)


def params(creator: Any = "soft") -> Split:
    return Split(
        fractions=FRACTIONS,
        order="random",
        near_duplicates=None,
        negatives=Negatives(train=1.0, val=1.0, test=1.0),
        group_by=("source_id", "creator_id"),
        creator=creator,
    )


def world(videos: int, copies: float, per_creator: int, seed: int) -> pd.DataFrame:
    """Heavy-tailed creators; a share of the videos are copies of anybody's, and 9 of 10 copies are positive."""
    rng = np.random.default_rng(seed)
    creators = max(videos // per_creator, 10)
    weight = np.minimum(rng.pareto(1.6, creators) + 0.2, 0.0005 * videos + 20)
    copy = rng.random(videos) < copies
    source = np.where(copy, rng.integers(0, videos, videos), np.arange(videos))
    label = pd.array(np.where(copy, rng.random(videos) < 0.9, rng.random(videos) < 0.01).astype(int), dtype="Int8")
    return pd.DataFrame(
        {
            "video_id": [f"v{row:07d}" for row in range(videos)],
            "source_id": [f"s{number}" for number in source],
            "creator_id": [f"c{number}" for number in rng.choice(creators, videos, p=weight / weight.sum())],
            "sha256": [f"h{row}" for row in range(videos)],
            "decode_ok": True,
            "label_ucc": label,
        }
    )


def check_world(manifest: pd.DataFrame, seed: int) -> dict[str, Any]:
    splits = assign_splits(manifest, ["ucc"], params(), seed)
    check_splits(manifest, splits, ["ucc"], params())
    assert (splits.groupby(manifest["source_id"]).nunique() == 1).all(), "a source is in one split"
    for name in SPLITS:
        assert splits.eq(name).mean() == pytest.approx(getattr(FRACTIONS, name), abs=0.01)
    positives = [float(manifest.loc[splits == name, "label_ucc"].mean()) for name in LABELLED_SPLITS]
    assert max(positives) - min(positives) <= 0.01
    return summarize(manifest, splits, ["ucc"], params())


@settings(max_examples=8, derandomize=True, deadline=None)
@given(st.floats(0.03, 0.2), st.integers(3, 25), st.integers(0, 2**32 - 1))
def test_copies_across_creators_leave_shares_and_prevalence_alone(copies: float, per_creator: int, seed: int) -> None:
    account = check_world(world(VIDEOS, copies, per_creator, seed), seed)
    assert account["largest_group"] <= size_limit(VIDEOS, params())
    assert account["shared_creators"]["creators"] > 0, "the leak is reported"
    assert 0 < account["shared_creators"]["test_in_train"] <= 1


@pytest.mark.long
def test_copies_across_creators_of_a_hundred_thousand_videos() -> None:
    check_world(world(100_000, 0.09, 5, 1), 1)


def test_a_hard_creator_is_refused_with_the_remedy_where_one_group_swallows_the_set() -> None:
    manifest = world(VIDEOS, 0.09, 5, 1)
    splits = assign_splits(manifest, ["ucc"], params("hard"), 7)
    with pytest.raises(SplitError, match=r"form one group by source_id, creator_id, sha256.*set split.creator: soft"):
        check_splits(manifest, splits, ["ucc"], params("hard"))


def test_without_copies_soft_and_hard_creators_give_the_same_splits() -> None:
    every = world(2_000, 0.0, 5, 3)
    manifest = every[every.groupby("creator_id")["video_id"].transform("size") <= 20]
    soft, hard = (assign_splits(manifest, ["ucc"], params(creator), 7) for creator in ("soft", "hard"))
    assert soft.equals(hard)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_division_never_cuts_a_source_and_meets_the_limit_where_sources_do(seed: int, limit: int) -> None:
    rng = np.random.default_rng(seed)
    sources = rng.integers(0, 20, 40)
    creators = rng.integers(-1, 6, 40)
    groups = np.zeros(40, np.int64)
    parts = divided(groups, sources, creators, limit)
    per_source = pd.Series(parts).groupby(sources).nunique()
    assert (per_source == 1).all()
    largest_source = np.bincount(sources).max()
    assert np.bincount(parts).max() <= max(limit, largest_source)
    order = rng.permutation(40)
    again = divided(groups, sources[order], creators[order], limit)
    together = parts[:, None] == parts[None, :]
    assert np.array_equal(together[np.ix_(order, order)], again[:, None] == again[None, :]), "row order does not matter"


def test_small_sets_are_divided_by_creators_only_where_a_group_is_large() -> None:
    manifest = world(300, 0.2, 3, 2)
    assert np.bincount(components(manifest, params("hard"))).max() > 100
    assert np.bincount(components(manifest, params())).max() <= 20


@pytest.mark.parametrize("creator", ["soft", "hard"])
def test_ties_that_are_known_change_nothing(creator: str) -> None:
    manifest = world(600, 0.05 if creator == "soft" else 0.0, 5, 3)
    manifest.loc[::7, "decode_ok"] = False
    rows = manifest[decodable(manifest)]
    ties = find_ties(rows, params(creator))
    np.testing.assert_array_equal(ties.groups, components(rows, params(creator)))
    np.testing.assert_array_equal(ties.sources, undivided(rows, params(creator)))
    splits = assign_splits(manifest, ["ucc"], params(creator), 7, None, ties)
    pd.testing.assert_series_equal(splits, assign_splits(manifest, ["ucc"], params(creator), 7))
    check_splits(manifest, splits, ["ucc"], params(creator), ties=ties)
    known = summarize(manifest, splits, ["ucc"], params(creator), ties=ties)
    assert known == summarize(manifest, splits, ["ucc"], params(creator))
