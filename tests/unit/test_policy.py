"""The policy: who is escalated, what is decided, and its JSON."""

import json

import numpy as np
import pytest

from coefvq.cascade.policy import CascadePolicy
from coefvq.errors import ConfigError, DataError


def policy(**changes) -> CascadePolicy:
    fields = {
        "issue": "icd",
        "base_threshold": 0.4,
        "decision_threshold": 0.7,
        "p_base": 30.0,
        "views_trigger": None,
    }
    return CascadePolicy.from_dict(fields | changes)


def test_thresholds_are_inclusive() -> None:
    base, mllm = [0.4, np.nextafter(0.4, 0), 0.9, 0.9], [0.7, 0.9, 0.7, np.nextafter(0.7, 0)]
    assert policy().escalates(base).tolist() == [True, False, True, True]
    assert policy().decide(base, mllm).tolist() == [True, False, True, False]


def test_a_filtered_video_is_negative_with_score_zero() -> None:
    base, mllm = [0.1, 0.5, 0.5], [1.0, 0.6, 0.0]
    assert policy().final_score(base, mllm).tolist() == [0.0, 0.6, 0.0]
    assert policy().ranking_score(base, mllm).tolist() == [-np.inf, 0.6, -np.inf]
    tiny = policy(decision_threshold=5e-324)
    assert tiny.decide(base, mllm).tolist() == [False, True, False]


def test_the_mllm_need_not_be_asked_about_filtered_videos() -> None:
    assert policy().decide([0.1, 0.9], [np.nan, 0.8]).tolist() == [False, True]
    with pytest.raises(DataError, match="MLLM score of row 1 is nan"):
        policy().decide([0.1, 0.9], [0.8, np.nan])


def test_many_views_escalate_whatever_the_score() -> None:
    triggered = policy(views_trigger=1000)
    base, views = [0.1, 0.1, 0.1, 0.9], [1000, 999, None, None]
    assert triggered.escalates(base, views).tolist() == [True, False, False, True]
    assert triggered.decide(base, [0.8] * 4, views).tolist() == [True, False, False, True]
    assert triggered.escalates(base).tolist() == [False, False, False, True]
    assert policy().escalates(base, views).tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("base", "mllm", "views", "message"),
    [
        ([0.5, np.nan], [0.5, 0.5], None, "base score of row 1 is nan"),
        ([1.2], [0.5], None, "base score of row 0 is 1.2"),
        ([0.5], [-3.0], None, "MLLM score of row 0 is -3.0"),
        ([0.5, 0.6], [0.5], None, "MLLM has shape"),
        ([0.5], [0.5], [1, 2], "views has shape"),
        (0.5, 0.5, None, "base has shape"),
    ],
)
def test_unusable_scores_are_refused(base, mllm, views, message) -> None:
    with pytest.raises(DataError, match=message):
        policy(views_trigger=5).decide(base, mllm, views)


def test_json_reads_back_to_the_same_policy() -> None:
    original = policy(base_threshold=0.1 + 0.2, views_trigger=500)
    assert CascadePolicy.from_json(original.to_json()) == original
    assert json.loads(original.to_json()) == original.to_dict()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_treshold": 0.5}, "base_treshold: unknown key; known here: issue, base_threshold"),
        ({"decision_threshold": 0.0}, "decision_threshold = 0.0"),
        ({"decision_threshold": float("nan")}, "decision_threshold = nan"),
        ({"base_threshold": 1.5}, "base_threshold = 1.5"),
        ({"base_threshold": "0.5"}, "base_threshold = 0.5: input should be a valid number"),
        ({"views_trigger": -1}, "views_trigger = -1"),
        ({"views_trigger": 1.5}, "views_trigger = 1.5"),
        ({"filtered": "base"}, "filtered = base: input should be 'negative'"),
        ({"schema_version": 2}, "schema_version = 2"),
        ({"p_base": 0.0}, "p_base = 0.0"),
        ({"issue": "../icd"}, "issue = ../icd"),
    ],
)
def test_a_wrong_key_is_named(changes, message) -> None:
    with pytest.raises(ConfigError) as raised:
        policy(**changes)
    assert str(raised.value).startswith(f"policy: {message}")
    assert "\n" not in str(raised.value)


def test_missing_keys_and_broken_json_are_named() -> None:
    with pytest.raises(ConfigError, match=r"bundle/policy.json: base_threshold: missing key"):
        CascadePolicy.from_json('{"issue": "icd"}', "bundle/policy.json")
    with pytest.raises(ConfigError, match="policy: not JSON"):
        CascadePolicy.from_json("{")
    with pytest.raises(ConfigError, match=r"policy: \(top level\)"):
        CascadePolicy.from_json("[]")


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        policy().base_threshold = 0.1
