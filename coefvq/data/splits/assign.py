"""Grouped, stratified, growth-stable assignment of videos to train, val, test, traffic and unlabelled.

Videos that share a value of a grouping column, the same bytes or a near-duplicate form one group, transitively,
and a group is never divided; with ``creator: soft`` a group that creators made too large is divided first
(division.py). The steps, all deterministic by seed and independent of row order:

1. A group with a video that the user's own column ``split`` places goes there as a whole; else a group with
   videos in ``previous`` takes their split: an old video never moves.
2. Groups without any label go to *traffic* and *unlabelled*, in the ratio of their shares.
3. Both are filled up to their shares with groups in the order of a seeded hash; no label is looked at.
4. *train*, *val* and *test* each get a group for every class of every issue they still lack: an exact
   search, so it succeeds whenever that is possible with the groups left.
5. The remaining groups go, large ones first, where they shrink the chi-square distance between wanted
   and actual counts most (as scikit-learn's StratifiedGroupKFold, for unequal shares and many issues).

*traffic* is what the share of MLLM calls is measured on, *unlabelled* what a distilled base model learns from.

With ``order: time`` steps 2 to 5 are: the oldest groups train, the next validate, the newest test; traffic is drawn
from the newest, since it stands for what arrives, and unlabelled from the oldest, since it is learned from
(time_order.py).

Videos that cannot be decoded get no split (NA) and tie no groups together.

When a new video ties old groups of different splits together, the old ones stay and new ones follow the
split with most of the old (on a tie a held-out one: there a video can flatter no score but its own).
``summarize`` lists such conflicts; ``check_splits`` accepts them only where ``previous`` explains them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coefvq.config import Split
from coefvq.data.splits.account import summarize
from coefvq.data.splits.checks import check_splits, earlier_splits
from coefvq.data.splits.draws import uniform
from coefvq.data.splits.groups import (
    Group,
    Places,
    Ties,
    decodable,
    find_ties,
    make_groups,
    with_look_alikes,
)
from coefvq.data.splits.search import cover_classes, free_groups, giants
from coefvq.data.splits.time_order import Borders, borders_by_share, check_times, earlier_borders, up_to_the_borders
from coefvq.errors import SplitError
from coefvq.records import LABELLED_SPLITS, UNLABELLED, label_column

__all__ = ["assign_splits", "check_splits", "enrichment_weights", "summarize", "with_look_alikes"]

TRAFFIC = "traffic"


def assign_splits(
    manifest: pd.DataFrame,
    issues: Sequence[str],
    params: Split,
    seed: int,
    previous: pd.Series[Any] | None = None,
    ties: Ties | None = None,
) -> pd.Series[Any]:
    """One of ``records.SPLITS`` per row of ``manifest``, NA where ``decode_ok`` is false.

    Args:
        manifest: needs ``video_id`` (unique), ``decode_ok``, ``sha256``, the columns of
            ``params.group_by`` and ``label_<issue>`` (nullable 0/1); ``phash`` for near-duplicates,
            ``published_at`` (UTC, ISO 8601) for ``order: time``, ``split`` where the user places videos.
        issues: whose labels to balance.
        params: wanted shares of the decodable videos, and what makes a group.
        seed: another seed gives another assignment.
        previous: split by ``video_id`` of an earlier version; leave an id out to set it free.
        ties: of the decodable rows, if they are known.

    Raises:
        SplitError: ``previous`` names a video twice or holds something else than a split; the user's
            column divides a group; or a time is missing.
    """
    decoded = with_look_alikes(manifest, params)[decodable(manifest)]
    timed = params.order == "time"
    if timed:
        check_times(decoded)
    ties = ties or find_ties(decoded, params)
    numbers = ties.groups
    earlier = earlier_splits(decoded, previous)
    pins = _pins(decoded, ties.sources, earlier)
    groups = make_groups(decoded, numbers, pins, issues, seed, timed)
    shares = params.fractions.model_dump()
    if timed:
        borders = earlier_borders(decoded, numbers, earlier) or borders_by_share(groups, shares)
        places = _place_by_time(groups, shares, borders)
    else:
        places = _place(groups, shares)
    chosen = pd.Series([places[number] for number in numbers], index=decoded.index, dtype="str")
    # where a group holds old videos of several splits, each of them keeps its own
    return pins.fillna(chosen).reindex(manifest.index).rename("split")


def enrichment_weights(
    manifest: pd.DataFrame, splits: pd.Series[Any], issues: Sequence[str], params: Split, seed: int
) -> pd.Series[Any]:
    """Sampling weight [rows] that thinning of negatives gives each video: 1, 1/share, or 0 where it is left out.

    A negative is a labelled video without any positive label. Which ones stay is decided by a seeded hash of the
    video's id, so growth changes nothing; traffic, drawn before, is never thinned.
    """
    labels = manifest[[label_column(issue) for issue in issues]]
    negative = labels.notna().any(axis=1) & ~labels.eq(1).fillna(False).any(axis=1)
    share = splits.map(params.negatives.model_dump()).where(negative).fillna(1.0).astype(float)
    thinned = share < 1.0
    weights = pd.Series(1.0, index=manifest.index, name="weight")
    draws = manifest.loc[thinned, "video_id"].map(lambda name: uniform(f"{seed}:keep:{name}")).astype(float)
    weights[thinned] = (draws < share[thinned]) / share[thinned]
    return weights


def _pins(rows: pd.DataFrame, numbers: NDArray[np.int64], earlier: pd.Series[Any]) -> pd.Series[Any]:
    """Split per row that is settled beforehand, NA where none is: the user's for a whole group, else the earlier."""
    if "split" not in rows or rows["split"].replace("", None).isna().all():
        return earlier
    users = rows["split"].replace("", None)
    group = pd.Series(numbers, index=rows.index)
    kinds = users.groupby(group).transform("nunique")
    if (kinds > 1).any():
        torn = rows.loc[group == group[kinds > 1].iloc[0], ["video_id", "split"]].dropna()
        shown = ", ".join(f"{name!r} in {split}" for name, split in torn.to_numpy()[:4].tolist())
        raise SplitError(
            f"column split divides videos that belong together: {shown}; correct the column, "
            "or drop what ties them from split.group_by (split.near_duplicates: null for look-alikes)"
        )
    whole = users.groupby(group).transform("first")
    return whole.fillna(earlier).astype("str")


def _place(groups: Sequence[Group], fractions: Mapping[str, float]) -> Places:
    """Split of every group, by its number."""
    places = {number: group.pinned for number, group in enumerate(groups) if group.pinned}
    places |= _draw(groups, places, {name: fractions[name] for name in (TRAFFIC, UNLABELLED)})
    shares = {name: fractions[name] for name in LABELLED_SPLITS if fractions[name] > 0}
    if not shares:
        return dict.fromkeys(range(len(groups)), TRAFFIC) | places
    places |= cover_classes(groups, places, tuple(shares))
    places |= giants(groups, places, fractions)
    return places | _balance(groups, places, shares)


def _draw(groups: Sequence[Group], places: Places, shares: Mapping[str, float]) -> Places:
    """Groups for traffic and unlabelled: all without a label, then random ones as long as they bring each its share."""
    total = sum(group.size for group in groups)
    wanted = {name: share * total for name, share in shares.items() if share > 0} or {TRAFFIC: 0.0}
    drawn: Places = {}
    sizes = dict.fromkeys(wanted, 0)
    for number, name in places.items():
        if name in sizes:
            sizes[name] += groups[number].size
    for number in free_groups(groups, places):
        if not groups[number].classes:
            # the one that is further from its share; the first, traffic, on a tie
            name = min(wanted, key=lambda name: sizes[name] / max(wanted[name], 1e-9))
            drawn[number] = name
            sizes[name] += groups[number].size
    for name, target in wanted.items():
        rest = free_groups(groups, places | drawn)
        for number in rest:
            if sizes[name] + groups[number].size / 2 <= target:
                drawn[number] = name
                sizes[name] += groups[number].size
        if not sizes[name] and target and rest:
            # every group is more than twice what this split wants
            smallest = min(rest, key=lambda n: groups[n].size)
            drawn[smallest] = name
            sizes[name] += groups[smallest].size
    return drawn


def _balance(groups: Sequence[Group], places: Places, shares: Mapping[str, float]) -> Places:
    """Places for the remaining groups, nearest to the wanted counts by chi-square, greedily."""
    names = list(shares)
    counts = {n: group.counts for n, group in enumerate(groups) if places.get(n, "train") in LABELLED_SPLITS}
    total = np.sum(list(counts.values()), axis=0) if counts else np.zeros(1)
    weights = np.array([shares[name] for name in names])
    wanted = np.maximum(np.outer(weights / weights.sum(), total), 1e-9)
    actual = np.zeros_like(wanted)
    for number, name in places.items():
        if name in shares:
            actual[names.index(name)] += counts[number]
    chosen: Places = {}
    # plain numbers from here: a step for each of perhaps a million small groups, most of whose counts are 0
    held, goal = actual.tolist(), wanted.tolist()
    # by powers of two: among groups of like size the seed decides
    for number in sorted(free_groups(groups, places), key=lambda n: -groups[n].size.bit_length()):
        count = [(at, value) for at, value in enumerate(counts[number].tolist()) if value]
        growth = [
            sum((2 * (have[at] - want[at]) + value) * value / want[at] for at, value in count)
            for have, want in zip(held, goal, strict=True)
        ]
        best = growth.index(min(growth))
        for at, value in count:
            held[best][at] += value
        chosen[number] = names[best]
    return chosen


def _place_by_time(groups: Sequence[Group], fractions: Mapping[str, float], borders: Borders) -> Places:
    """Oldest train (some unlabelled), then validate; of the newest, traffic gets its share and test the rest."""
    places = {number: group.pinned for number, group in enumerate(groups) if group.pinned}
    past = up_to_the_borders(groups, places, borders)
    if fractions[UNLABELLED] > 0:
        held = {n: name for n, name in past.items() if name != "train"}
        newer = dict.fromkeys((n for n in free_groups(groups, places) if n not in past), TRAFFIC)
        past = past | _draw(groups, places | held | newer, {UNLABELLED: fractions[UNLABELLED]})
    places |= past
    places |= _draw(groups, places, {TRAFFIC: fractions[TRAFFIC]})
    return places | dict.fromkeys(free_groups(groups, places), "test")
