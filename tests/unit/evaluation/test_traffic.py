"""The share of calls: which traffic chooses, which measures, and how sure the measured share is."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from coefvq.cascade.policy import CascadePolicy
from coefvq.evaluation.traffic import MLLM_ROWS, chooses_threshold, for_base_only, measured_share, share_caution


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


@pytest.mark.parametrize(("rows", "said"), [(72, "±12 points only, 434 would"), (300, "±6 points"), (434, "")])
def test_too_few_traffic_videos_are_named_with_the_number_that_would_do(rows: int, said: str) -> None:
    caution = share_caution(policy(0.8), 17.0, rows)
    assert (caution == "") == (said == "")
    assert said in caution
    assert (
        share_caution(policy(0.0), 17.0, rows) == share_caution(CascadePolicy.base_alone("icd", 0.4), 17.0, rows) == ""
    )


def test_a_video_keeps_its_side_as_traffic_grows() -> None:
    few, many = chooses_threshold(traffic(100)), chooses_threshold(traffic(400))
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
