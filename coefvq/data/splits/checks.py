"""Splits that nothing could be learned or measured on are refused; the others are accounted for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coefvq.config import Split, Thresholds
from coefvq.data.splits.groups import (
    LOOK_ALIKE,
    components,
    tying_columns,
    undivided,
    undivided_columns,
    with_look_alikes,
)
from coefvq.errors import SplitError
from coefvq.records import LABELLED_SPLITS, SPLITS, UNLABELLED, label_column

#: with fewer positives than this the 95 % interval of a recall near 0.8 is wider than +-0.17 (Wilson)
FEW_POSITIVES = 20
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
) -> None:
    """Refuse splits that nothing could be learned or measured on.

    Args:
        manifest: as for ``assign_splits``.
        splits: on the same index as ``manifest``.
        issues: each labelled split must hold both classes of every one.
        params: as for ``assign_splits``.
        previous: excuses groups whose old videos already were in several splits.
        weights: of ``enrichment_weights``; classes are counted without the videos it leaves out.

    Raises:
        SplitError: a group is in two splits or larger than every split, a split is empty, or a labelled split has
            one class only.
    """
    present = with_look_alikes(manifest, params)[splits.notna()]
    placed = splits[splits.notna()]
    _check_leakage(present, placed, params, previous)
    sizes = np.bincount(components(present, params)) if len(present) else np.zeros(0, dtype=int)
    for name in SPLITS:
        _check_size(name, present, placed, sizes, params)
    _check_largest(present, placed, int(sizes.max(initial=0)), params)
    kept = present if weights is None else present[weights[present.index] > 0]
    for name in LABELLED_SPLITS:
        for issue in issues:
            _check_classes(name, issue, kept, placed[kept.index], params)


def summarize(
    manifest: pd.DataFrame,
    splits: pd.Series[Any],
    issues: Sequence[str],
    params: Split,
    weights: pd.Series[Any] | None = None,
) -> dict[str, Any]:
    """JSON-able account: rows, groups and positives per split and issue, largest group, conflicts.

    ``weights`` are those of ``enrichment_weights``; ``kept`` counts rows that stay, and ``prevalence`` is
    weighted, so that it is the one before thinning (up to sampling). Splits in time say from when to when they reach.
    """
    factor = pd.Series(1.0, index=manifest.index) if weights is None else weights
    present = with_look_alikes(manifest, params)[splits.notna()]
    placed = splits[splits.notna()]
    numbers = pd.Series(components(present, params), index=present.index)
    sizes = numbers.value_counts()
    sources = pd.Series(undivided(present, params), index=present.index)
    reach = {name: _published(present[placed == name]) for name in SPLITS} if params.order == "time" else {}
    return {
        "rows": len(manifest),
        "excluded": int(splits.isna().sum()),
        "groups": int(numbers.nunique()),
        "largest_group": int(sizes.max()) if len(sizes) else 0,
        "near_duplicates": _near_duplicates(present, params),
        "shared_creators": _shared_creators(present, placed, params),
        "splits": {
            name: _summary(present[placed == name], numbers, issues, factor) | reach.get(name, {}) for name in SPLITS
        },
        "conflicts": _conflicts(present["video_id"], placed, sources),
    }


def few_positives(account: Mapping[str, Any]) -> list[str]:
    """A line per issue whose validation or test split has few positives, from ``summarize``."""
    counts: dict[str, list[str]] = {}
    for name in ("val", "test"):
        for issue, facts in account["splits"][name]["issues"].items():
            if facts["positives"] < FEW_POSITIVES:
                counts.setdefault(issue, []).append(f"{name} {facts['positives']}")
    remedy = "intervals will be wide; label more before you rely on a figure"
    return [f"splits: few positives of {issue} ({', '.join(found)}): {remedy}" for issue, found in counts.items()]


def large_groups(account: Mapping[str, Any], rows: pd.DataFrame, params: Split) -> list[str]:
    """A line where one group is larger than the smallest split should be, from ``summarize``."""
    used = account["rows"] - account["excluded"]
    name, share = min(
        ((name, share) for name, share in params.fractions.model_dump().items() if share > 0), key=lambda item: item[1]
    )
    if account["largest_group"] <= share * used:
        return []
    return [
        f"splits: the largest group holds {account['largest_group']} of {used} videos, more than {name} should; "
        f"shares and prevalence may be off: {looser(rows, params)}"
    ]


def few_calls(account: Mapping[str, Any], thresholds: Mapping[str, Thresholds]) -> list[str]:
    """A line per issue whose share of positives is larger than its share of MLLM calls, from ``summarize``."""
    found = []
    for issue, facts in account["splits"]["train"]["issues"].items():
        calls, share = thresholds[issue].max_qps_ratio, facts["prevalence"]
        if calls is not None and share is not None and 100.0 * share > calls:
            found.append(
                f"thresholds.{issue}.max_qps_ratio = {calls:g}: {100 * share:.1f} % of the videos are positive, so the "
                "MLLM cannot see them all; allow about twice that share, or label videos as they arrive"
            )
    return found


def _near_duplicates(rows: pd.DataFrame, params: Split) -> dict[str, int]:
    """Videos with a look-alike, groups of them, and the largest: one that grows without end wants a look."""
    if LOOK_ALIKE not in tying_columns(rows, params):
        return {"videos": 0, "groups": 0, "largest": 0}
    sizes = rows[LOOK_ALIKE].value_counts()
    return {"videos": int(sizes.sum()), "groups": len(sizes), "largest": int(sizes.max()) if len(sizes) else 0}


def _shared_creators(rows: pd.DataFrame, placed: pd.Series[Any], params: Split) -> dict[str, Any]:
    """Creators in several splits, their videos, and the share of val and of test whose creator is in train too."""
    if "creator_id" not in params.group_by:
        return {}
    creators = rows["creator_id"].replace("", None).dropna()
    split = placed[creators.index]
    shared = creators[split.groupby(creators).transform("nunique") > 1]
    trained = shared[split[shared.index] == "train"].unique()
    known = shared[shared.isin(trained)]
    share = {
        f"{name}_in_train": round(float((split[known.index] == name).sum() / max((placed == name).sum(), 1)), 6)
        for name in ("val", "test")
    }
    return {"creators": int(shared.nunique()), "videos": len(shared), **share}


def _published(rows: pd.DataFrame) -> dict[str, list[str]]:
    times = rows["published_at"].astype("str")
    return {"published": [str(times.min()), str(times.max())] if len(times) else []}


def torn_videos(manifest: pd.DataFrame, splits: pd.Series[Any], params: Split) -> set[str]:
    """Ids of all videos whose group is in several splits; ``summarize`` names the first few only."""
    present = with_look_alikes(manifest, params)[splits.notna()]
    kinds = splits[present.index].groupby(undivided(present, params)).transform("nunique")
    return set(present.loc[kinds > 1, "video_id"])


def _summary(
    rows: pd.DataFrame, numbers: pd.Series[Any], issues: Sequence[str], factor: pd.Series[Any]
) -> dict[str, Any]:
    counts = {issue: _class_counts(rows, issue) for issue in issues}
    weight = factor.loc[rows.index]
    return {
        "rows": len(rows),
        "kept": int((weight > 0).sum()),
        "groups": int(numbers.loc[rows.index].nunique()),
        "issues": {
            issue: {
                "labelled": negatives + positives,
                "positives": positives,
                "prevalence": _prevalence(rows[label_column(issue)], weight),
            }
            for issue, (negatives, positives) in counts.items()
        },
    }


def _prevalence(labels: pd.Series[Any], weight: pd.Series[Any]) -> float | None:
    known = labels.notna() & (weight > 0)
    total = float(weight[known].sum())
    return round(float((labels[known].astype(float) * weight[known]).sum()) / total, 6) if total else None


def _conflicts(ids: pd.Series[Any], placed: pd.Series[Any], numbers: pd.Series[Any]) -> list[dict[str, Any]]:
    """Groups in several splits, each as the first video ids per split."""
    kinds = placed.groupby(numbers).transform("nunique")
    torn = placed[kinds > 1]
    found = []
    for _, members in torn.groupby(numbers.loc[torn.index]):
        videos = {name: sorted(ids.loc[rows.index])[:20] for name, rows in members.groupby(members)}
        found.append({"rows": len(members), "videos": videos})
    return sorted(found, key=lambda conflict: min(min(videos) for videos in conflict["videos"].values()))


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


def _check_leakage(rows: pd.DataFrame, placed: pd.Series[Any], params: Split, previous: pd.Series[Any] | None) -> None:
    numbers = pd.Series(undivided(rows, params), index=rows.index)
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
    negatives, positives = _class_counts(rows[placed == name], issue)
    if negatives and positives:
        return
    counts = {other: _class_counts(rows[placed == other], issue) for other in SPLITS if other != name}
    elsewhere = ", ".join(f"{other} {have[1]}/{have[0]}" for other, have in counts.items())
    rare = "negative" if positives else "positive"
    thinned = positives and getattr(params.negatives, name) < 1.0
    remedy = f"raise split.negatives.{name}" if thinned else f"raise split.fractions.{name}"
    raise SplitError(
        f"split '{name}' holds {positives} positive and {negatives} negative video(s) for {issue} "
        f"(positive/negative elsewhere: {elsewhere}); label more {rare} videos from other groups, "
        f"{remedy} or change seed"
    )


def _class_counts(rows: pd.DataFrame, issue: str) -> tuple[int, int]:
    labels = rows[label_column(issue)]
    return int(labels.eq(0).sum()), int(labels.eq(1).sum())
