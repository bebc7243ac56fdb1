"""The share of calls: how a threshold is measured on the traffic that gave it, and how sure the share is."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from coefvq.cascade.call_share import base_threshold_at
from coefvq.cascade.policy import CascadePolicy
from coefvq.evaluation.traffic import (
    MLLM_ROWS,
    escalated,
    for_base_only,
    in_first_half,
    measured_share,
    share_caution,
    traffic_columns,
)


def traffic(count: int) -> pd.DataFrame:
    random = np.random.default_rng(3)
    return pd.DataFrame(
        {"video_id": [f"v{n}" for n in range(count)], "base": random.random(count), "views": None, "weight": 1.0}
    ).astype({"views": "Int64"})


def policy(base_threshold: float) -> CascadePolicy:
    return CascadePolicy.from_dict(
        {
            "issue": "icd",
            "base_threshold": base_threshold,
            "decision_threshold": 0.5,
            "p_base": None,
            "views_trigger": None,
        }
    )


def test_the_interval_covers_the_true_share_as_often_as_it_says() -> None:
    cascade, covered = policy(0.83), 0
    rows = traffic(200 * 300)
    for part in range(300):
        share = measured_share(rows.iloc[200 * part : 200 * (part + 1)], cascade)
        covered += share["qps_ratio_interval"]["low"] <= 17.0 <= share["qps_ratio_interval"]["high"]
    assert covered >= 0.93 * 300


def test_a_policy_that_never_or_always_asks_has_no_interval() -> None:
    rows = traffic(50)
    assert measured_share(rows, policy(0.0)) == {"qps_ratio": 100.0, "qps_ratio_interval": None}
    assert measured_share(rows, CascadePolicy.base_alone("icd", 0.4)) == {"qps_ratio": 0.0, "qps_ratio_interval": None}
    assert measured_share(rows.head(0), policy(0.5)) == {"qps_ratio": None, "qps_ratio_interval": None}


@pytest.mark.parametrize(("rows", "said"), [(72, "±10 points only, 313 would"), (200, "±6 points"), (313, "")])
def test_too_few_traffic_videos_are_named_with_the_number_that_would_do(rows: int, said: str) -> None:
    caution = share_caution(policy(0.8), 17.0, rows)
    assert (caution == "") == (said == "")
    assert said in caution
    assert (
        share_caution(policy(0.0), 17.0, rows) == share_caution(CascadePolicy.base_alone("icd", 0.4), 17.0, rows) == ""
    )


def chosen(rows: pd.DataFrame, qps: float) -> CascadePolicy:
    return policy(base_threshold_at(traffic_columns(rows), qps, None)[0])


def test_no_video_counts_at_a_threshold_that_it_helped_to_choose() -> None:
    rows = traffic(60)
    first = in_first_half(rows)
    rows["base"] = np.where(first, 0.5, 0.0) + rows["base"] / 2  # one half scores above the other
    asked = escalated(rows, chosen(rows, 20.0), 20.0)
    assert asked[first].all()  # all of it is above the threshold that the lower half gives
    assert not asked[~first].any()
    plain = measured_share(rows, chosen(rows, 20.0))
    assert plain["qps_ratio"] == pytest.approx(20.0)
    crossed = measured_share(rows, chosen(rows, 20.0), 20.0)
    assert crossed["qps_ratio"] == pytest.approx(100.0 * first.mean())
    assert crossed["qps_ratio_interval"]["low"] < crossed["qps_ratio"] < crossed["qps_ratio_interval"]["high"]


def test_the_measured_share_is_that_of_videos_yet_to_come() -> None:
    """Base scores are uniform: the true share of a threshold is one minus it."""
    rows, missed, covered = traffic(300 * 150), [], 0
    for part in range(300):
        mine = rows.iloc[150 * part : 150 * (part + 1)]
        cascade = chosen(mine, 15.0)
        true, found = 100.0 * (1.0 - cascade.base_threshold), measured_share(mine, cascade, 15.0)
        missed.append(found["qps_ratio"] - true)
        covered += found["qps_ratio_interval"]["low"] <= true <= found["qps_ratio_interval"]["high"]
    assert abs(np.mean(missed)) < 0.6
    assert covered >= 0.93 * 300


def test_what_the_views_trigger_escalates_counts() -> None:
    rows = traffic(200).assign(views=pd.array([0, 900] * 100, dtype="Int64"))
    cascade = policy(0.9).model_copy(update={"views_trigger": 500})
    assert measured_share(rows, cascade, 60.0)["qps_ratio"] == pytest.approx(60.0, abs=3.0)
    assert escalated(rows, cascade, 60.0)[1::2].all()


def test_one_video_has_no_halves() -> None:
    assert measured_share(traffic(1), policy(0.5), 15.0) == {"qps_ratio": None, "qps_ratio_interval": None}


def test_a_video_keeps_its_side_as_traffic_grows() -> None:
    few, many = in_first_half(traffic(100)), in_first_half(traffic(400))
    assert (few == many[:100]).all()
    assert 0.4 < many.mean() < 0.6


def test_the_mllm_scores_some_traffic_and_everything_else() -> None:
    rows = pd.concat([traffic(3 * MLLM_ROWS).assign(split="traffic"), traffic(50).assign(split="test")])
    rows = rows.reset_index(drop=True)
    late = for_base_only(rows)
    assert (~late).sum() == MLLM_ROWS + 50
    assert not late[rows["split"] == "test"].any()
    shuffled = rows.sample(frac=1.0, random_state=1)
    assert (pd.Series(for_base_only(shuffled), shuffled.index).sort_index() == late).all()
    assert not for_base_only(rows.head(MLLM_ROWS)).any()
