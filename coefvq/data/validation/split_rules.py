"""What is asked of the splits, as plain data."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pandas as pd

from coefvq.config import Validate
from coefvq.data.validation.manifest_rules import BETWEEN, IN_SET, Rule
from coefvq.records import SPLITS, UNLABELLED, label_column


def split_table(rows: pd.DataFrame, group_columns: Sequence[str], excused: Collection[str]) -> pd.DataFrame:
    """Rows (manifest joined with ``split``) with, per grouping column, in how many splits its value occurs.

    ``excused`` are ids whose group was torn before: they count for nothing.
    """
    table = rows[["video_id", "split"]].copy()
    judged = ~rows["video_id"].isin(set(excused))
    for name in group_columns:
        values = rows[name].replace("", None).where(judged)
        table[f"splits_of_{name}"] = rows["split"].groupby(values).transform("nunique").fillna(1)
    return table


def split_rules(group_columns: Sequence[str]) -> list[Rule]:
    """Asked of ``split_table``."""
    alone = {"max_value": 1}
    return [
        Rule("split_present", "split", f"one of {', '.join(SPLITS)}", IN_SET, {"value_set": list(SPLITS)}),
        *(
            Rule("leak", f"splits_of_{name}", f"every {name} in one split only", BETWEEN, alone)
            for name in group_columns
        ),
    ]


def prevalence_table(rows: pd.DataFrame, issues: Sequence[str]) -> pd.DataFrame:
    """One row per split: its name as ``video_id``, rows, and the weighted share of positives per issue."""
    found = []
    for name in SPLITS:
        part = rows[rows["split"] == name]
        if name == UNLABELLED and part.empty:
            continue  # no base model is distilled
        shares = {f"prevalence_{issue}": _share(part, issue) for issue in issues}
        found.append({"video_id": name, "rows": len(part), **shares})
    return pd.DataFrame(found)


def _share(part: pd.DataFrame, issue: str) -> float | None:
    labels = part[label_column(issue)]
    known = labels.notna()
    weight = part.loc[known, "weight"]
    total = float(weight.sum())
    return float((labels[known].astype(float) * weight).sum()) / total if total else None


def prevalence_rules(params: Validate, issues: Sequence[str]) -> list[Rule]:
    """Asked of ``prevalence_table``."""
    bounds = {issue: params.prevalence[issue] for issue in issues}
    return [
        Rule("split_rows", "rows", "at least one video in every split", BETWEEN, {"min_value": 1}),
        *(
            Rule(
                "split_prevalence",
                f"prevalence_{issue}",
                f"{low:g} to {high:g} positive in every split",
                BETWEEN,
                {"min_value": low, "max_value": high},
            )
            for issue, (low, high) in bounds.items()
        ),
    ]
