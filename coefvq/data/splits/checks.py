"""Splits that nothing could be learned or measured on are refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coefvq.config import Split
from coefvq.data.splits.groups import (
    LOOK_ALIKE,
    Ties,
    find_ties,
    tying_columns,
    undivided_columns,
    with_look_alikes,
)
from coefvq.errors import SplitError
from coefvq.records import LABELLED_SPLITS, SPLITS, UNLABELLED, label_column

# a split that holds so many times its share is no longer what was asked for
_OVERFULL = 1.1

Sizes = NDArray[np.int64]


def check_splits(
    manifest: pd.DataFrame,
    splits: pd.Series[Any],
    issues: Sequence[str],
    params: Split,
    previous: pd.Series[Any] | None = None,
    weights: pd.Series[Any] | None = None,
    ties: Ties | None = None,
) -> None:
    """Refuse splits that nothing could be learned or measured on.

    Args:
        manifest: as for ``assign_splits``.
        splits: on the same index as ``manifest``.
        issues: each labelled split must hold both classes of every one.
        params: as for ``assign_splits``.
        previous: excuses groups whose old videos already were in several splits.
        weights: of ``enrichment_weights``; classes are counted without the videos it leaves out.
        ties: of the rows with a split, if they are known.

    Raises:
        SplitError: a group is in two splits or larger than every split, a split is empty, or a labelled split has
            one class only.
    """
    present = with_look_alikes(manifest, params)[splits.notna()]
    placed = splits[splits.notna()]
    ties = ties or find_ties(present, params)
    _check_leakage(present, placed, params, previous, ties)
    sizes = np.bincount(ties.groups) if len(present) else np.zeros(0, dtype=int)
    for name in SPLITS:
        _check_size(name, present, placed, sizes, params)
    _check_largest(present, placed, int(sizes.max(initial=0)), params)
    kept = present if weights is None else present[weights[present.index] > 0]
    for name in LABELLED_SPLITS:
        for issue in issues:
            _check_classes(name, issue, kept, placed[kept.index], params)


def earlier_splits(rows: pd.DataFrame, previous: pd.Series[Any] | None) -> pd.Series[Any]:
    """Earlier split per row, NA for new videos.

    Raises:
        SplitError: ``previous`` names a video twice or holds something else than a split.
    """
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


def _check_leakage(
    rows: pd.DataFrame, placed: pd.Series[Any], params: Split, previous: pd.Series[Any] | None, ties: Ties
) -> None:
    numbers = pd.Series(ties.sources, index=rows.index)
    known = earlier_splits(rows, previous).groupby(numbers).transform("nunique") > 1
    for column in undivided_columns(rows, params):
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
                f"group {column}={torn.tolist()[0]!r} is in several splits: {where}; "
                "delete the splits file and split again so that the group stays together"
            )


def _check_size(name: str, rows: pd.DataFrame, placed: pd.Series[Any], sizes: Sizes, params: Split) -> None:
    if (placed == name).any():
        return
    fraction = getattr(params.fractions, name)
    if name == UNLABELLED and fraction == 0:
        return
    remedy = (
        f"raise split.fractions.{name}"
        if fraction == 0
        else f"add videos, raise split.fractions.{name} or {looser(rows, params)}"
    )
    raise SplitError(
        f"split '{name}' is empty: split.fractions.{name} is {fraction:g} and {len(rows)} decodable video(s) form "
        f"{len(sizes)} group(s) by {', '.join(tying_columns(rows, params))} (largest {sizes.max(initial=0)}); {remedy}"
    )


def _check_largest(rows: pd.DataFrame, placed: pd.Series[Any], largest: int, params: Split) -> None:
    """Refuse a group that fits into no split; one that the user placed is the user's own choice."""
    name, share = max(params.fractions.model_dump().items(), key=lambda item: item[1])
    wanted = share * len(rows)
    if largest <= wanted or (placed == name).sum() <= wanted * _OVERFULL or _placed_by_user(rows):
        return
    raise SplitError(
        f"{largest} of {len(rows)} decodable videos form one group by {', '.join(tying_columns(rows, params))}, more "
        f"than the largest split wants ({name}: {wanted:.0f}), so no split has its share; {looser(rows, params)}"
    )


def looser(rows: pd.DataFrame, params: Split) -> str:
    """What makes groups smaller, for an error or a warning: the tie that is least needed first."""
    if "creator_id" in params.group_by and params.creator == "hard":
        return "set split.creator: soft"
    if LOOK_ALIKE in tying_columns(rows, params) and len(rows) and rows[LOOK_ALIKE].notna().any():
        return "lower split.near_duplicates or drop a column from split.group_by"
    return "drop a column from split.group_by"


def _placed_by_user(rows: pd.DataFrame) -> bool:
    return "split" in rows and bool(rows["split"].replace("", None).notna().any())


def _check_classes(name: str, issue: str, rows: pd.DataFrame, placed: pd.Series[Any], params: Split) -> None:
    negatives, positives = class_counts(rows[placed == name], issue)
    if negatives and positives:
        return
    counts = {other: class_counts(rows[placed == other], issue) for other in SPLITS if other != name}
    elsewhere = ", ".join(f"{other} {have[1]}/{have[0]}" for other, have in counts.items())
    rare = "negative" if positives else "positive"
    thinned = positives and getattr(params.negatives, name) < 1.0
    remedy = f"raise split.negatives.{name}" if thinned else f"raise split.fractions.{name}"
    raise SplitError(
        f"split '{name}' holds {positives} positive and {negatives} negative video(s) for {issue} "
        f"(positive/negative elsewhere: {elsewhere}); label more {rare} videos from other groups, "
        f"{remedy} or change seed"
    )


def class_counts(rows: pd.DataFrame, issue: str) -> tuple[int, int]:
    """Negatives and positives of an issue."""
    labels = rows[label_column(issue)]
    return int(labels.eq(0).sum()), int(labels.eq(1).sum())
