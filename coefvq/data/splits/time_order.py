"""Borders in time: train on the past, validate on what came next, test on the newest.

A group is as old as its latest video, so nothing in train is newer than the border when it is drawn. The borders
stay where the first run put them. A new video of an old group follows its group even past a border: that a creator
is never in two splits counts more, and ``summarize`` shows from when to when each split reaches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coefvq.data.splits.groups import Group, Places
from coefvq.data.splits.search import free_groups
from coefvq.errors import SplitError


class Borders(NamedTuple):
    """The latest times (UTC, ISO 8601) of train and of val; empty where none is."""

    train: str
    val: str


def check_times(rows: pd.DataFrame) -> None:
    """Refuse videos without a time.

    Raises:
        SplitError: one has none; says how many.
    """
    missing = rows["published_at"].replace("", None).isna()
    if missing.any():
        first = rows.loc[missing, "video_id"].iloc[0]
        raise SplitError(
            f"split.order is time, but {int(missing.sum())} video(s) have no published_at (first: {first!r}); "
            "fill the column or set split.order: random"
        )


def earlier_borders(rows: pd.DataFrame, numbers: NDArray[np.int64], earlier: pd.Series[Any]) -> Borders | None:
    """The borders that the splits of old videos (NA: new) imply; None where train or val had none.

    A border is where the last of the split's groups begins: not where it ends, since videos that followed their
    group may be newer than any border. Videos the user placed say nothing of the time.
    """
    told = earlier.notna() & rows["split"].replace("", None).isna() if "split" in rows else earlier.notna()
    began = rows["published_at"].astype("str")[told].groupby([numbers[told], earlier[told]]).min()
    ends = began.groupby(level=1).max()
    if not {"train", "val"} <= set(ends.index):
        return None
    return Borders(str(ends["train"]), max(str(ends["train"]), str(ends["val"])))


def borders_by_share(groups: Sequence[Group], fractions: Mapping[str, float]) -> Borders:
    """Where the shares of train (with unlabelled, which is as old) and val are full, in videos from the oldest on."""
    ordered = sorted(groups, key=lambda group: (group.time, group.key))
    ends = np.cumsum([group.size for group in ordered]) / max(sum(group.size for group in groups), 1)
    old = fractions["train"] + fractions["unlabelled"]
    edges = (old, old + fractions["val"])
    # of groups with one time, all or none: the last that fits takes the others along
    fitting = (int(np.searchsorted(ends, edge + 1e-9, side="right")) for edge in edges)
    return Borders(*(ordered[count - 1].time if count else "" for count in fitting))


def up_to_the_borders(groups: Sequence[Group], places: Places, borders: Borders) -> Places:
    """Train and val for the groups without a place that are not newer than the borders."""
    free = (number for number in free_groups(groups, places) if groups[number].time <= borders.val)
    return {number: "train" if groups[number].time <= borders.train else "val" for number in free}
