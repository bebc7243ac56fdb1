"""Properties of splits over random group structures."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import pandas as pd
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from coefvq.config import Fractions, Negatives, Split
from coefvq.data.splits.assign import assign_splits, check_splits, summarize
from coefvq.errors import SplitError
from coefvq.records import LABELLED_SPLITS, SPLITS

KEYS = ("source_id", "creator_id", "sha256")
PARAMS = Split(
    fractions=Fractions(train=0.4, val=0.2, test=0.2, traffic=0.1, unlabelled=0.1),
    order="random",
    near_duplicates=None,
    negatives=Negatives(train=1.0, val=1.0, test=1.0),
    group_by=("source_id", "creator_id"),
)
NO_TRAFFIC = Split(
    fractions=Fractions(train=0.5, val=0.25, test=0.25, traffic=0.0),
    order="random",
    near_duplicates=None,
    negatives=Negatives(train=1.0, val=1.0, test=1.0),
    group_by=("source_id",),
)
ISSUES = ["icd", "ucc"]

# one example is a whole manifest, so few of them already visit many group structures
few = settings(max_examples=40, derandomize=True, deadline=None)

names = st.none() | st.integers(0, 12).map(lambda number: f"n{number}")
labels = st.sampled_from([None, 0, 0, 1])
videos = st.fixed_dictionaries(
    {
        "source_id": names,
        "creator_id": names,
        "sha256": st.none() | st.integers(0, 60).map(lambda number: f"h{number}"),
        "label_icd": labels,
        "label_ucc": labels,
        "decode_ok": st.sampled_from([True, True, True, False]),
    }
)
manifests = st.lists(videos, min_size=1, max_size=40)
seeds = st.integers(0, 2**32 - 1)


def frame(rows: list[Mapping[str, Any]]) -> pd.DataFrame:
    types = {"label_icd": "Int8", "label_ucc": "Int8", "decode_ok": bool, **dict.fromkeys(KEYS, "str")}
    return pd.DataFrame(rows).astype(types).assign(video_id=[f"v{number:04d}" for number in range(len(rows))])


def by_id(manifest: pd.DataFrame, splits: pd.Series[Any]) -> pd.Series[Any]:
    return splits.set_axis(manifest["video_id"])


def refusal(manifest: pd.DataFrame, splits: pd.Series[Any], previous: pd.Series[Any]) -> str:
    try:
        check_splits(manifest, splits, ISSUES, PARAMS, previous)
    except SplitError as error:
        return str(error)
    return ""


@few
@given(manifests, seeds)
def test_no_shared_value_crosses_a_border_and_every_decodable_video_has_a_split(rows: Any, seed: int) -> None:
    manifest = frame(rows)
    splits = assign_splits(manifest, ISSUES, PARAMS, seed)
    assert splits.notna().equals(manifest["decode_ok"])
    assert set(splits.dropna()) <= set(SPLITS)
    for key in KEYS:
        assert (splits.groupby(manifest[key]).nunique() <= 1).all()
    assert summarize(manifest, splits, ISSUES, PARAMS)["conflicts"] == []


@few
@given(manifests, seeds, st.randoms(use_true_random=False))
def test_row_order_and_index_do_not_matter(rows: Any, seed: int, random: Any) -> None:
    manifest = frame(rows)
    order = list(range(len(rows)))
    random.shuffle(order)
    shuffled = manifest.iloc[order]
    expected = assign_splits(manifest, ISSUES, PARAMS, seed)
    got = assign_splits(shuffled, ISSUES, PARAMS, seed)
    assert got.index.equals(shuffled.index)
    pd.testing.assert_series_equal(got.sort_index(), expected)
    renumbered = shuffled.set_axis([f"row{number}" for number in order])
    assert assign_splits(renumbered, ISSUES, PARAMS, seed).tolist() == got.tolist()


@few
@given(manifests, manifests, seeds, seeds)
def test_growth_never_moves_an_old_video(rows: Any, more: Any, seed: int, later_seed: int) -> None:
    old, grown = frame(rows), frame([*rows, *more])
    previous = by_id(old, assign_splits(old, ISSUES, PARAMS, seed))
    after = assign_splits(grown, ISSUES, PARAMS, later_seed, previous)
    placed = previous.dropna()
    assert by_id(grown, after).loc[placed.index].tolist() == placed.tolist()


@few
@given(manifests, manifests, seeds)
def test_after_growth_a_group_is_torn_only_if_its_old_videos_were(rows: Any, more: Any, seed: int) -> None:
    old, grown = frame(rows), frame([*rows, *more])
    previous = by_id(old, assign_splits(old, ISSUES, PARAMS, seed))
    after = assign_splits(grown, ISSUES, PARAMS, seed, previous)
    for conflict in summarize(grown, after, ISSUES, PARAMS)["conflicts"]:
        old_splits = {
            name for name, ids in conflict["videos"].items() if any(previous.get(video) == name for video in ids)
        }
        assert len(old_splits) > 1
        assert set(conflict["videos"]) == old_splits
    assert "several splits" not in refusal(grown, after, previous)


@few
@given(
    st.lists(st.tuples(st.integers(1, 3), st.booleans()), min_size=60, max_size=120),
    seeds,
)
def test_small_groups_meet_the_shares(groups: list[tuple[int, bool]], seed: int) -> None:
    rows = [
        {"source_id": f"s{number}", "label_icd": int(positive)}
        for number, (size, positive) in enumerate(groups)
        for _ in range(size)
    ]
    manifest = frame(
        [{**row, "creator_id": None, "sha256": None, "label_ucc": None, "decode_ok": True} for row in rows]
    )
    splits = assign_splits(manifest, ["icd"], PARAMS, seed)
    for name in SPLITS:
        wanted = getattr(PARAMS.fractions, name) * len(manifest)
        assert splits.eq(name).sum() == pytest.approx(wanted, abs=4)


@settings(derandomize=True, deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from([0, 1, 1, 2])] * 4), min_size=3, max_size=6), seeds)
def test_both_classes_reach_every_labelled_split_whenever_any_assignment_can(
    groups: list[tuple[int, int, int, int]], seed: int
) -> None:
    """Against brute force over all assignments of up to six groups, two issues."""
    rows = [
        {"source_id": f"s{number}", "label_icd": icd, "label_ucc": ucc}
        for number, (icd0, icd1, ucc0, ucc1) in enumerate(groups)
        for icd, ucc in [(0, None)] * icd0 + [(1, None)] * icd1 + [(None, 0)] * ucc0 + [(None, 1)] * ucc1
    ]
    assume(rows)
    holds = [tuple(count > 0 for count in group) for group in groups if any(group)]
    possible = any(
        all(
            any(group[cell] for group, split in zip(holds, choice, strict=True) if split == name)
            for name in LABELLED_SPLITS
            for cell in range(4)
        )
        for choice in product(LABELLED_SPLITS, repeat=len(holds))
    )
    event(f"possible: {possible}")
    manifest = frame([{**row, "creator_id": None, "sha256": None, "decode_ok": True} for row in rows])
    splits = assign_splits(manifest, ISSUES, NO_TRAFFIC, seed)
    reached = all(
        manifest.loc[splits == name, f"label_{issue}"].dropna().nunique() == 2
        for name in LABELLED_SPLITS
        for issue in ISSUES
    )
    assert reached == possible
