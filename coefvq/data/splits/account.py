"""What is in the splits, counted, and what a person should know about it: few positives, large groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from coefvq.config import Split, Thresholds
from coefvq.data.splits.checks import class_counts, looser
from coefvq.data.splits.groups import LOOK_ALIKE, Ties, find_ties, tying_columns, with_look_alikes
from coefvq.records import SPLITS, label_column

#: with fewer positives than this the 95 % interval of a recall near 0.8 is wider than +-0.17 (Wilson)
FEW_POSITIVES = 20


def summarize(
    manifest: pd.DataFrame,
    splits: pd.Series[Any],
    issues: Sequence[str],
    params: Split,
    weights: pd.Series[Any] | None = None,
    ties: Ties | None = None,
) -> dict[str, Any]:
    """JSON-able account: rows, groups and positives per split and issue, largest group, conflicts.

    ``weights`` are those of ``enrichment_weights``; ``kept`` counts rows that stay, and ``prevalence`` is
    weighted, so that it is the one before thinning (up to sampling). Splits in time say from when to when they reach.
    ``ties`` are those of the rows with a split, if they are known.
    """
    factor = pd.Series(1.0, index=manifest.index) if weights is None else weights
    present = with_look_alikes(manifest, params)[splits.notna()]
    placed = splits[splits.notna()]
    ties = ties or find_ties(present, params)
    numbers = pd.Series(ties.groups, index=present.index)
    sizes = numbers.value_counts()
    sources = pd.Series(ties.sources, index=present.index)
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


def torn_videos(manifest: pd.DataFrame, splits: pd.Series[Any], ties: Ties) -> set[str]:
    """Ids of all videos whose group is in several splits; ``summarize`` names the first few only."""
    present = manifest[splits.notna()]
    kinds = splits[present.index].groupby(ties.sources).transform("nunique")
    return set(present.loc[kinds > 1, "video_id"])


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


def _summary(
    rows: pd.DataFrame, numbers: pd.Series[Any], issues: Sequence[str], factor: pd.Series[Any]
) -> dict[str, Any]:
    counts = {issue: class_counts(rows, issue) for issue in issues}
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
