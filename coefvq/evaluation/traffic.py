"""Share of calls on unlabelled traffic: how a threshold that was read off it is measured on it, how sure that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from coefvq.cascade.call_share import Traffic, base_threshold_at
from coefvq.cascade.escalation import BoolArray
from coefvq.cascade.policy import CascadePolicy
from coefvq.cascade.search import qps_ratio
from coefvq.errors import DataError
from coefvq.evaluation.intervals import weighted_share
from coefvq.evaluation.score_files import float_column
from coefvq.files import sha256_json

if TYPE_CHECKING:
    import pandas as pd

#: an interval that reaches further than this from the share, in points, promises no share of calls
WIDEST_HALF = 5.0
#: of the traffic the MLLM scores at most so many videos
MLLM_ROWS = 400
#: Variance of a cross-fitted share around the true one, in variances of a share of as many independent videos: at most
#: so much for 150 videos and more, by simulation (tests/unit/evaluation/test_traffic.py)
_DESIGN_EFFECT = 1.44
#: normal quantile of a two-sided 95 % interval
_Z = 1.96


class OneHalfError(DataError):
    """All videos of the traffic lie in one half, so there is no other one to measure."""


def traffic_columns(rows: pd.DataFrame) -> Traffic:
    """What the search for a base threshold reads; the MLLM's score is not among it."""
    return Traffic(float_column(rows, "base"), float_column(rows, "views"), float_column(rows, "weight"))


def in_first_half(rows: pd.DataFrame) -> BoolArray:
    """Bool [n]: about half of the rows, by a hash of the id, so that a video stays on its side as others come."""
    return np.array([sha256_json(str(video))[0] in "01234567" for video in rows["video_id"]], dtype=bool)


def escalated(rows: pd.DataFrame, policy: CascadePolicy, qps: float | None = None) -> BoolArray:
    """Bool [n]: which videos of traffic reach the MLLM.

    ``qps`` says that the policy's base threshold was read off these very rows, for so many percent of calls. Then none
    counts at a threshold that it helped to choose: each half gets the one that the other half gives (two-fold
    cross-fitting), and none has to be kept back to measure with.

    Raises:
        OneHalfError: with ``qps``, a half has no video.
    """
    base, views = float_column(rows, "base"), float_column(rows, "views")
    if qps is None or not _depends_on_traffic(policy):
        return policy.escalates(base, views)
    first, asked = in_first_half(rows), np.zeros(len(rows), dtype=bool)
    if first.all() or not first.any():
        raise OneHalfError(f"traffic: {len(rows)} video(s) make no two halves: raise split.fractions.traffic")
    for chooses in (first, ~first):
        threshold, _ = base_threshold_at(traffic_columns(rows[chooses]), qps, policy.views_trigger)
        other = policy.model_copy(update={"base_threshold": threshold})
        asked[~chooses] = other.escalates(base[~chooses], views[~chooses])
    return asked


def for_base_only(rows: pd.DataFrame) -> BoolArray:
    """Bool [n]: traffic beyond ``MLLM_ROWS`` videos, which come first in the order of a hash of the id.

    The share of calls needs the base model's scores alone; the MLLM's serve to estimate the prevalence.
    """
    traffic = rows.loc[rows["split"] == "traffic", "video_id"].astype("str")
    late = traffic.map(sha256_json).sort_values().index[MLLM_ROWS:]
    return np.asarray(rows.index.isin(late), dtype=bool)


def measured_share(rows: pd.DataFrame, policy: CascadePolicy, qps: float | None = None) -> dict[str, Any]:
    """QPS ratio of the policy in percent and its 95 % interval (Clopper-Pearson); ``qps`` as in ``escalated``.

    Both are null where there is no traffic, or with ``qps`` too little to have two halves. A policy that asks the MLLM
    always or never has no interval.
    """
    if not len(rows):
        return {"qps_ratio": None, "qps_ratio_interval": None}
    if not _depends_on_traffic(policy):
        ratio = qps_ratio(policy, *(float_column(rows, name) for name in ("base", "views", "weight")))
        return {"qps_ratio": ratio, "qps_ratio_interval": None}
    try:
        percent = call_percent(rows, policy, qps)
    except OneHalfError:
        return {"qps_ratio": None, "qps_ratio_interval": None}
    return {"qps_ratio": percent.pop("value"), "qps_ratio_interval": percent}


def call_percent(rows: pd.DataFrame, policy: CascadePolicy, qps: float | None = None) -> dict[str, float | None]:
    """``value``, ``low`` and ``high`` of the percent of videos that reach the MLLM; ``qps`` as in ``escalated``."""
    effect = 1.0 if qps is None else _DESIGN_EFFECT
    share = weighted_share(escalated(rows, policy, qps), float_column(rows, "weight"), design_effect=effect)
    return {name: None if end is None else 100.0 * end for name, end in share.to_dict().items()}


def share_caution(policy: CascadePolicy, wanted: float, rows: int) -> str:
    """What to say where ``rows`` videos of traffic cannot hold a share of calls in percent; empty where they can.

    A policy that asks the MLLM always or never needs no traffic.
    """
    if not _depends_on_traffic(policy):
        return ""
    spread = wanted / 100.0 * (1.0 - wanted / 100.0)
    half = 100.0 * _Z * np.sqrt(spread * _DESIGN_EFFECT / max(rows, 1.0))
    if half <= WIDEST_HALF:
        return ""
    needed = int(np.ceil(spread * _DESIGN_EFFECT * (100.0 * _Z / WIDEST_HALF) ** 2))
    return (
        f"; {rows} traffic videos hold {wanted:g} % of calls to ±{half:.0f} points only, "
        f"{needed} would to ±{WIDEST_HALF:g}: raise split.fractions.traffic"
    )


def _depends_on_traffic(policy: CascadePolicy) -> bool:
    """Whether some videos reach the MLLM and others do not."""
    return policy.asks_mllm and policy.base_threshold > 0.0
