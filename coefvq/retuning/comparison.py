"""The present policy against the proposed one: calls, figures on held-out labels, and decisions that change. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from coefvq.cascade.curves import PRCurve, curve_at_threshold
from coefvq.cascade.escalation import BoolArray
from coefvq.cascade.policy import CascadePolicy
from coefvq.evaluation.detail import decision_score
from coefvq.evaluation.intervals import Statistic, bootstrap_difference, bootstrap_intervals
from coefvq.evaluation.labelled import labelled_split
from coefvq.evaluation.traffic import call_percent

if TYPE_CHECKING:
    import pandas as pd


def _f1(curve: PRCurve) -> float:
    return curve_at_threshold(curve, 0.5).f1


def _precision(curve: PRCurve) -> float | None:
    return curve_at_threshold(curve, 0.5).precision


def _recall(curve: PRCurve) -> float:
    return curve_at_threshold(curve, 0.5).recall


_FIGURES: Mapping[str, Statistic] = {"f1": _f1, "precision": _precision, "recall": _recall}


def compare_quality(
    scores: pd.DataFrame, old: CascadePolicy, new: CascadePolicy, replicates: int, seed: int
) -> dict[str, Any]:
    """F1, precision and recall on the ``test`` rows of a fresh sample, weighted; JSON-ready.

    ``old``, ``new`` and ``difference`` (new minus old) hold 95 % intervals of the bootstrap over videos; for the
    difference a replicate draws once for both.

    Raises:
        DataError: a column is unusable.
    """
    test = labelled_split(scores, "test")
    flags = {
        name: decision_score(policy.decide(test.base, test.mllm, test.views))
        for name, policy in (("old", old), ("new", new))
    }
    result: dict[str, Any] = {"n": len(test.label), "positives": float(test.label.sum())}
    for name, score in flags.items():
        found = bootstrap_intervals(test.label, score, test.weight, _FIGURES, replicates=replicates, seed=seed)
        result[name] = {figure: interval.to_dict() for figure, interval in found.items()}
    result["difference"] = {
        figure: bootstrap_difference(
            test.label,
            (flags["new"], statistic),
            (flags["old"], statistic),
            test.weight,
            replicates=replicates,
            seed=seed,
        ).to_dict()
        for figure, statistic in _FIGURES.items()
    }
    return result


def compare_calls(
    traffic: pd.DataFrame, old: CascadePolicy, new: CascadePolicy, asked: float | None = None
) -> dict[str, Any]:
    """Percent of videos that reach the MLLM, with Clopper–Pearson intervals; JSON-ready.

    ``asked``: percent of calls for which the new base threshold was read off this traffic (``escalated``).
    """
    rows = traffic.assign(weight=1.0)
    made: dict[str, Any] = {"n": len(rows)}
    return made | {"old": call_percent(rows, old), "new": call_percent(rows, new, asked)}


def flipped(traffic: pd.DataFrame, old: CascadePolicy, new: CascadePolicy) -> pd.DataFrame:
    """Videos whose decision changes or is not known any more: video_id, base, mllm, before, after.

    A decision is ``unknown`` where the policy asks the MLLM and nobody has its score.
    """
    before, after = (_decisions(traffic, policy) for policy in (old, new))
    columns = traffic[["video_id", "base", "mllm"]].assign(before=before, after=after)
    changed: pd.DataFrame = columns.loc[before != after].reset_index(drop=True)
    return changed


def flip_counts(flips: pd.DataFrame, traffic: int) -> dict[str, int]:
    """How many of ``traffic`` videos become positive, negative, or unknown since nobody has their MLLM score."""
    known = flips[flips["before"] != "unknown"]
    kinds = ("positive", "negative", "unknown")
    return {"of": traffic, **{f"to_{kind}": int((known["after"] == kind).sum()) for kind in kinds}}


def _decisions(traffic: pd.DataFrame, policy: CascadePolicy) -> Any:
    base, mllm, views = (traffic[name].to_numpy(dtype=np.float64) for name in ("base", "mllm", "views"))
    unknown: BoolArray = policy.escalates(base, views) & np.isnan(mllm)
    positive = policy.decide(base, np.where(unknown, 0.0, mllm), views)
    return np.select([unknown, positive], ["unknown", "positive"], "negative")
