"""Grouped, stratified, growth-stable assignment of videos to train, val, test and traffic.

Videos that share a value of a grouping column (or the same bytes) form one group, transitively, and a
group is never divided. The steps, all deterministic by seed and independent of row order:

1. A group with videos in ``previous`` takes their split: an old video never moves.
2. Groups without any label go to *traffic*.
3. *traffic* is filled up to its share with groups in the order of a seeded hash; no label is looked at.
4. *train*, *val* and *test* each get a group for every class of every issue they still lack: an exact
   search, so it succeeds whenever that is possible with the groups left.
5. The remaining groups go, large ones first, where they shrink the chi-square distance between wanted
   and actual counts most (as scikit-learn's StratifiedGroupKFold, for unequal shares and many issues).

Videos that cannot be decoded get no split (NA) and tie no groups together.

When a new video ties old groups of different splits together, the old ones stay and new ones follow the
split with most of the old (on a tie a held-out one: there a video can flatter no score but its own).
``summarize`` lists such conflicts; ``check_splits`` accepts them only where ``previous`` explains them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from coefvq.config import Split
from coefvq.errors import SplitError
from coefvq.records import SPLITS, label_column

TRAFFIC = "traffic"
LABELLED_SPLITS = tuple(name for name in SPLITS if name != TRAFFIC)

# whom new videos follow where old ones of several splits are equally many
_TIE_ORDER = ("test", "val", "traffic", "train")

Floats = NDArray[np.float64]
Places = dict[int, str]


@dataclass(frozen=True, slots=True)
class _Group:
    """Videos that must stay together.

    ``counts`` is [videos, negatives and positives of the first issue, of the second, ...]; ``key`` is a
    seeded hash, the group's place in a random order; ``pinned`` is the split of its old videos, if any.
    """

    key: str
    counts: Floats
    pinned: str | None

    @property
    def size(self) -> int:
        return int(self.counts[0])

    @property
    def classes(self) -> int:
        """Bit set of the classes (two per issue) it holds an example of."""
        return sum(1 << bit for bit, count in enumerate(self.counts[1:].tolist()) if count)


def assign_splits(
    manifest: pd.DataFrame,
    issues: Sequence[str],
    params: Split,
    seed: int,
    previous: pd.Series[Any] | None = None,
) -> pd.Series[Any]:
    """One of ``records.SPLITS`` per row of ``manifest``, NA where ``decode_ok`` is false.

    Args:
        manifest: needs ``video_id`` (unique), ``decode_ok``, ``sha256``, the columns of
            ``params.group_by`` and ``label_<issue>`` (nullable 0/1).
        issues: whose labels to balance.
        params: wanted shares of the decodable videos, and the grouping columns.
        seed: another seed gives another assignment.
        previous: split by ``video_id`` of an earlier version; leave an id out to set it free.

    Raises:
        SplitError: ``previous`` names a video twice or holds something else than a split.
    """
    decoded = manifest[_decodable(manifest)]
    pins = _pins(decoded, previous)
    numbers = _components(decoded, params)
    groups = _groups(decoded, numbers, pins, issues, seed)
    places = _place(groups, params.fractions.model_dump())
    chosen = pd.Series([places[number] for number in numbers], index=decoded.index, dtype="str")
    # where a group holds old videos of several splits, each of them keeps its own
    return pins.fillna(chosen).reindex(manifest.index).rename("split")


def check_splits(
    manifest: pd.DataFrame,
    splits: pd.Series[Any],
    issues: Sequence[str],
    params: Split,
    previous: pd.Series[Any] | None = None,
) -> None:
    """Refuse splits that nothing could be learned or measured on.

    Args:
        manifest: as for ``assign_splits``.
        splits: on the same index as ``manifest``.
        issues: each labelled split must hold both classes of every one.
        params: as for ``assign_splits``.
        previous: excuses groups whose old videos already were in several splits.

    Raises:
        SplitError: a group is in two splits, a split is empty, or a labelled split has one class only.
    """
    present = manifest[splits.notna()]
    placed = splits[splits.notna()]
    _check_leakage(present, placed, params, previous)
    for name in SPLITS:
        _check_size(name, present, placed, params)
    for name in LABELLED_SPLITS:
        for issue in issues:
            _check_classes(name, issue, present, placed)


def summarize(manifest: pd.DataFrame, splits: pd.Series[Any], issues: Sequence[str], params: Split) -> dict[str, Any]:
    """JSON-able account: rows, groups and positives per split and issue, largest group, conflicts."""
    present = manifest[splits.notna()]
    placed = splits[splits.notna()]
    numbers = pd.Series(_components(present, params), index=present.index)
    sizes = numbers.value_counts()
    return {
        "rows": len(manifest),
        "excluded": int(splits.isna().sum()),
        "groups": int(numbers.nunique()),
        "largest_group": int(sizes.max()) if len(sizes) else 0,
        "splits": {name: _summary(present[placed == name], numbers, issues) for name in SPLITS},
        "conflicts": _conflicts(present["video_id"], placed, numbers),
    }


def _summary(rows: pd.DataFrame, numbers: pd.Series[Any], issues: Sequence[str]) -> dict[str, Any]:
    counts = {issue: _class_counts(rows, issue) for issue in issues}
    return {
        "rows": len(rows),
        "groups": int(numbers.loc[rows.index].nunique()),
        "issues": {
            issue: {"labelled": negatives + positives, "positives": positives}
            for issue, (negatives, positives) in counts.items()
        },
    }


def _conflicts(ids: pd.Series[Any], placed: pd.Series[Any], numbers: pd.Series[Any]) -> list[dict[str, Any]]:
    """Groups in several splits, each as the first video ids per split."""
    kinds = placed.groupby(numbers).transform("nunique")
    torn = placed[kinds > 1]
    found = []
    for _, members in torn.groupby(numbers.loc[torn.index]):
        videos = {name: sorted(ids.loc[rows.index])[:20] for name, rows in members.groupby(members)}
        found.append({"rows": len(members), "videos": videos})
    return sorted(found, key=lambda conflict: min(min(videos) for videos in conflict["videos"].values()))


def _decodable(manifest: pd.DataFrame) -> pd.Series[bool]:
    return manifest["decode_ok"].fillna(False).astype(bool)


def _keys(params: Split) -> list[str]:
    """Grouping columns; equal bytes always are one group."""
    return list(dict.fromkeys([*params.group_by, "sha256"]))


def _components(rows: pd.DataFrame, params: Split) -> NDArray[np.int64]:
    """Group number [rows]: connected components of the graph rows — values of the grouping columns."""
    sources, targets, nodes = [], [], len(rows)
    for column in _keys(params):
        # an empty value means unknown, and unknown is not shared
        codes, values = pd.factorize(rows[column].replace("", None))
        known = np.flatnonzero(codes >= 0)
        sources.append(known)
        targets.append(codes[known] + nodes)
        nodes += len(values)
    ends = (np.concatenate(sources), np.concatenate(targets))
    graph = coo_array((np.ones(len(ends[0]), dtype=np.int8), ends), shape=(nodes, nodes))
    _, numbers = connected_components(graph, directed=False)
    # value nodes are dropped; numbering the rest anew keeps numbers dense
    return np.asarray(np.unique(numbers[: len(rows)], return_inverse=True)[1], dtype=np.int64)


def _pins(rows: pd.DataFrame, previous: pd.Series[Any] | None) -> pd.Series[Any]:
    """Earlier split per row, NA for new videos."""
    if previous is None:
        return pd.Series(None, index=rows.index, dtype="str")
    known = previous.dropna()
    hint = "delete the earlier splits file and split again"
    if known.index.has_duplicates:
        raise SplitError(f"previous splits: {known.index[known.index.duplicated()][0]!r} occurs twice; {hint}")
    wrong = known[~known.isin(SPLITS)]
    if len(wrong):
        raise SplitError(
            f"previous splits: {wrong.index[0]!r} is in {wrong.iloc[0]!r}, expected {', '.join(SPLITS)}; {hint}"
        )
    return rows["video_id"].map(known).astype("str")


def _groups(
    rows: pd.DataFrame, numbers: NDArray[np.int64], pins: pd.Series[Any], issues: Sequence[str], seed: int
) -> list[_Group]:
    """Groups in the order of their numbers."""
    labels = [rows[label_column(issue)] for issue in issues]
    cells = [np.ones(len(rows)), *(label.eq(value).fillna(False) for label in labels for value in (0, 1))]
    total = int(numbers.max(initial=-1)) + 1
    counts = np.stack([np.bincount(numbers, np.asarray(cell, dtype=float), total) for cell in cells], axis=1)
    votes = np.stack([np.bincount(numbers, pins.eq(name).astype(float), total) for name in _TIE_ORDER], axis=1)
    names = rows["video_id"].astype("str").groupby(numbers).min()
    return [
        _Group(
            # one draw per group: the least of its videos' hashes would favour large groups
            key=hashlib.sha256(f"{seed}:{name}".encode()).hexdigest(),
            counts=count,
            pinned=_TIE_ORDER[int(vote.argmax())] if vote.any() else None,
        )
        for name, count, vote in zip(names, counts, votes, strict=True)
    ]


def _place(groups: Sequence[_Group], fractions: Mapping[str, float]) -> Places:
    """Split of every group, by its number."""
    places = {number: group.pinned for number, group in enumerate(groups) if group.pinned}
    places |= _draw_traffic(groups, places, fractions[TRAFFIC])
    shares = {name: fractions[name] for name in LABELLED_SPLITS if fractions[name] > 0}
    if not shares:
        return dict.fromkeys(range(len(groups)), TRAFFIC) | places
    places |= _cover_classes(groups, places, tuple(shares))
    return places | _balance(groups, places, shares)


def _free(groups: Sequence[_Group], places: Places) -> list[int]:
    """Numbers of the groups without a place, in their random order."""
    return sorted((n for n in range(len(groups)) if n not in places), key=lambda n: groups[n].key)


def _draw_traffic(groups: Sequence[_Group], places: Places, share: float) -> Places:
    """Groups for traffic: all unlabelled ones, then random ones as long as they bring it nearer its share."""
    drawn = {n: TRAFFIC for n in _free(groups, places) if not groups[n].classes}
    taken = sum(groups[n].size for n, name in (places | drawn).items() if name == TRAFFIC)
    wanted = share * sum(group.size for group in groups)
    rest = _free(groups, places | drawn)
    for number in rest:
        if taken + groups[number].size / 2 <= wanted:
            drawn[number] = TRAFFIC
            taken += groups[number].size
    if not taken and wanted and rest:
        # every group is more than twice what traffic wants
        drawn[min(rest, key=lambda n: groups[n].size)] = TRAFFIC
    return drawn


def _cover_classes(groups: Sequence[_Group], places: Places, names: Sequence[str]) -> Places:
    """A small group for each class that a split lacks; nothing where no choice covers them all."""
    stock: dict[int, list[int]] = {}
    for number in sorted(_free(groups, places), key=lambda n: groups[n].size):
        if groups[number].classes:
            stock.setdefault(groups[number].classes, []).append(number)
    everything = _union(groups[n].classes for n in range(len(groups)) if places.get(n) != TRAFFIC)
    lacking = tuple(
        everything & ~_union(groups[n].classes for n, place in places.items() if place == name) for name in names
    )
    kinds = tuple(sorted(stock))
    # more of a kind than there are cells to cover cannot help
    cells = sum(bits.bit_count() for bits in lacking)
    choice = _search(kinds, tuple(min(len(stock[kind]), cells) for kind in kinds), lacking)
    return {stock[kind].pop(0): names[split] for kind, split in choice or ()}


def _union(bit_sets: Any) -> int:
    result = 0
    for bits in bit_sets:
        result |= bits
    return result


def _search(
    kinds: tuple[int, ...], stock: tuple[int, ...], lacking: tuple[int, ...]
) -> tuple[tuple[int, int], ...] | None:
    """Pairs (kind, split) that leave no split lacking a class, or None if there are none.

    Depth-first with memory, scarcest class first. ``kinds`` are bit sets of classes, ``stock`` how many
    groups of each kind are left, ``lacking`` the bit set each split still needs.
    """

    @cache
    def search(stock: tuple[int, ...], lacking: tuple[int, ...]) -> tuple[tuple[int, int], ...] | None:
        wanted = _union(lacking)
        if not wanted:
            return ()
        bits = [1 << position for position in range(wanted.bit_length()) if wanted >> position & 1]
        spare = {
            bit: sum(left for kind, left in zip(kinds, stock, strict=True) if kind & bit)
            - sum(1 for need in lacking if need & bit)
            for bit in bits
        }
        scarce = min(bits, key=lambda bit: spare[bit])
        if spare[scarce] < 0:
            return None
        split = next(place for place, need in enumerate(lacking) if need & scarce)
        usable = [place for place, kind in enumerate(kinds) if kind & scarce and stock[place]]
        # most classes at once first, least waste second
        usable.sort(key=lambda place: (-(kinds[place] & lacking[split]).bit_count(), kinds[place].bit_count()))
        for place in usable:
            fewer = (*stock[:place], stock[place] - 1, *stock[place + 1 :])
            need = (*lacking[:split], lacking[split] & ~kinds[place], *lacking[split + 1 :])
            if (rest := search(fewer, need)) is not None:
                return ((kinds[place], split), *rest)
        return None

    return search(stock, lacking)


def _balance(groups: Sequence[_Group], places: Places, shares: Mapping[str, float]) -> Places:
    """Places for the remaining groups, nearest to the wanted counts by chi-square, greedily."""
    names = list(shares)
    counts = {n: group.counts for n, group in enumerate(groups) if places.get(n) != TRAFFIC}
    total = np.sum(list(counts.values()), axis=0) if counts else np.zeros(1)
    weights = np.array([shares[name] for name in names])
    wanted = np.maximum(np.outer(weights / weights.sum(), total), 1e-9)
    actual = np.zeros_like(wanted)
    for number, name in places.items():
        if name in shares:
            actual[names.index(name)] += counts[number]
    chosen: Places = {}
    # by powers of two: among groups of like size the seed decides
    for number in sorted(_free(groups, places), key=lambda n: -groups[n].size.bit_length()):
        count = counts[number]
        growth = ((2 * (actual - wanted) + count) * count / wanted).sum(axis=1)
        best = int(growth.argmin())
        actual[best] += count
        chosen[number] = names[best]
    return chosen


def _check_leakage(rows: pd.DataFrame, placed: pd.Series[Any], params: Split, previous: pd.Series[Any] | None) -> None:
    numbers = pd.Series(_components(rows, params), index=rows.index)
    known = _pins(rows, previous).groupby(numbers).transform("nunique") > 1
    for column in _keys(params):
        values = rows.loc[~known, column].replace("", None).dropna()
        kinds = placed.loc[values.index].groupby(values).nunique()
        torn = kinds.index[kinds > 1]
        if len(torn):
            members = placed.loc[values.index[values == torn[0]]]
            ids = rows.loc[members.index, "video_id"]
            where = ", ".join(
                f"{name} ({', '.join(map(repr, ids.loc[part.index][:3]))})" for name, part in members.groupby(members)
            )
            raise SplitError(
                f"group {column}={torn[0]!r} is in several splits: {where}; "
                "delete the splits file and split again so that the group stays together"
            )


def _check_size(name: str, rows: pd.DataFrame, placed: pd.Series[Any], params: Split) -> None:
    if (placed == name).any():
        return
    fraction = getattr(params.fractions, name)
    sizes = np.bincount(_components(rows, params)) if len(rows) else np.zeros(0, dtype=int)
    remedy = (
        f"raise split.fractions.{name}"
        if fraction == 0
        else f"add videos, raise split.fractions.{name} or drop a column from split.group_by"
    )
    raise SplitError(
        f"split '{name}' is empty: split.fractions.{name} is {fraction:g} and {len(rows)} decodable video(s) form "
        f"{len(sizes)} group(s) by {', '.join(_keys(params))} (largest {sizes.max(initial=0)}); {remedy}"
    )


def _check_classes(name: str, issue: str, rows: pd.DataFrame, placed: pd.Series[Any]) -> None:
    negatives, positives = _class_counts(rows[placed == name], issue)
    if negatives and positives:
        return
    counts = {other: _class_counts(rows[placed == other], issue) for other in SPLITS if other != name}
    elsewhere = ", ".join(f"{other} {have[1]}/{have[0]}" for other, have in counts.items())
    rare = "negative" if positives else "positive"
    raise SplitError(
        f"split '{name}' holds {positives} positive and {negatives} negative video(s) for {issue} "
        f"(positive/negative elsewhere: {elsewhere}); label more {rare} videos from other groups, "
        f"raise split.fractions.{name} or change seed"
    )


def _class_counts(rows: pd.DataFrame, issue: str) -> tuple[int, int]:
    labels = rows[label_column(issue)]
    return int(labels.eq(0).sum()), int(labels.eq(1).sum())
