"""Share of calls on unlabelled traffic: which videos choose the base threshold, which measure it, how sure that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from coefvq.cascade.call_share import Traffic
from coefvq.cascade.escalation import BoolArray
from coefvq.cascade.policy import CascadePolicy
from coefvq.cascade.search import qps_ratio
from coefvq.evaluation.intervals import weighted_share
from coefvq.evaluation.score_files import float_column
from coefvq.files import sha256_json

if TYPE_CHECKING:
    import pandas as pd

#: an interval that reaches further than this from the share, in points, promises no share of calls
WIDEST_HALF = 5.0
#: of the traffic the MLLM scores at most so many videos
MLLM_ROWS = 400
#: normal quantile of a two-sided 95 % interval
_Z = 1.96


def traffic_columns(rows: pd.DataFrame) -> Traffic:
    """What the search for a base threshold reads; the MLLM's score is not among it."""
    return Traffic(float_column(rows, "base"), float_column(rows, "views"), float_column(rows, "weight"))


def chooses_threshold(rows: pd.DataFrame) -> BoolArray:
    """Bool [n]: about half of the rows, by a hash of the id, so that a video stays on its side as others come."""
    return np.array([sha256_json(str(video))[0] in "01234567" for video in rows["video_id"]], dtype=bool)


def for_base_only(rows: pd.DataFrame) -> BoolArray:
    """Bool [n]: traffic beyond ``MLLM_ROWS`` videos, which come first in the order of a hash of the id.

    The share of calls needs the base model's scores alone; the MLLM's serve to estimate the prevalence.
    """
    traffic = rows.loc[rows["split"] == "traffic", "video_id"].astype("str")
    late = traffic.map(sha256_json).sort_values().index[MLLM_ROWS:]
    return np.asarray(rows.index.isin(late), dtype=bool)


def measured_share(rows: pd.DataFrame, policy: CascadePolicy) -> dict[str, Any]:
    """QPS ratio of the policy in percent and its 95 % interval (Clopper-Pearson); null where there is no traffic.

    A policy that asks the MLLM always or never has no interval.
    """
    if not len(rows):
        return {"qps_ratio": None, "qps_ratio_interval": None}
    base, views, weight = (float_column(rows, name) for name in ("base", "views", "weight"))
    ratio = qps_ratio(policy, base, views, weight)
    if not _depends_on_traffic(policy):
        return {"qps_ratio": ratio, "qps_ratio_interval": None}
    share = weighted_share(policy.escalates(base, views), weight)
    ends = {name: None if end is None else 100.0 * end for name, end in (("low", share.low), ("high", share.high))}
    return {"qps_ratio": ratio, "qps_ratio_interval": ends}


def share_caution(policy: CascadePolicy, wanted: float, rows: int) -> str:
    """What to say where ``rows`` videos of traffic cannot hold a share of calls in percent; empty where they can.

    A policy that asks the MLLM always or never needs no traffic. Each half of the traffic has half of ``rows``: one
    chooses the threshold, the other measures it.
    """
    if not _depends_on_traffic(policy):
        return ""
    spread = wanted / 100.0 * (1.0 - wanted / 100.0)
    half = 100.0 * _Z * np.sqrt(spread / max(rows / 2, 1.0))
    if half <= WIDEST_HALF:
        return ""
    needed = 2 * int(np.ceil(spread * (100.0 * _Z / WIDEST_HALF) ** 2))
    return (
        f"; {rows} traffic videos hold {wanted:g} % of calls to ±{half:.0f} points only, "
        f"{needed} would to ±{WIDEST_HALF:g}: raise split.fractions.traffic"
    )


def _depends_on_traffic(policy: CascadePolicy) -> bool:
    """Whether some videos reach the MLLM and others do not."""
    return policy.asks_mllm and policy.base_threshold > 0.0
