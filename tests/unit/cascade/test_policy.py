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
        ({"filtered": "base"}, "filtered = base: input should be 'negative', 'keep_base_score' or 'excluded'"),
        ({"mllm_down": "wait"}, "mllm_down = wait: input should be 'hold', 'base_only' or 'ignore'"),
        ({"accept_threshold": 0.3}, "accept_threshold must be at least base_threshold (0.4)"),
        ({"schema_version": 3}, "schema_version = 3"),
        ({"schema_version": 1, "mllm_down": "hold"}, "mllm_down: unknown key in schema_version 1"),
        ({"schema_version": 1, "filtered": "excluded"}, "filtered = excluded: schema_version 1 knows 'negative' only"),
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


def test_version_1_reads_as_what_it_meant() -> None:
    old = {"schema_version": 1, "filtered": "negative", "issue": "icd", "base_threshold": 0.4}
    read = CascadePolicy.from_dict(old | {"decision_threshold": 0.7, "p_base": 30.0, "views_trigger": None})
    assert read == policy()
    assert read.to_dict() == {
        "schema_version": 2,
        "issue": "icd",
        "base_threshold": 0.4,
        "decision_threshold": 0.7,
        "p_base": 30.0,
        "views_trigger": None,
        "accept_threshold": None,
        "filtered": "negative",
        "mllm_down": "hold",
    }


def test_early_acceptance_saves_the_call() -> None:
    sure = policy(accept_threshold=0.8, views_trigger=1000)
    base, mllm, views = [0.8, 0.79, 0.9, 0.1], [np.nan, 0.1, 0.2, np.nan], [0, 0, 1000, 999]
    assert sure.accepts(base, views).tolist() == [True, False, False, False]
    assert sure.escalates(base, views).tolist() == [False, True, True, False]
    assert sure.final_score(base, mllm, views).tolist() == [1.0, 0.1, 0.2, 0.0]
    assert sure.decide(base, mllm, views).tolist() == [True, False, False, False]


def test_what_a_filtered_video_means() -> None:
    base, mllm = [0.3, 0.1, 0.9], [np.nan, np.nan, 0.8]
    assert policy(filtered="negative").final_score(base, mllm).tolist() == [0.0, 0.0, 0.8]
    kept = policy(filtered="keep_base_score", decision_threshold=0.2)
    assert kept.final_score(base, mllm).tolist() == [0.3, 0.1, 0.8]
    assert kept.decide(base, mllm).tolist() == [True, False, True]
    left_out = policy(filtered="excluded")
    np.testing.assert_array_equal(left_out.final_score(base, mllm), [np.nan, np.nan, 0.8])
    assert left_out.judges(base).tolist() == [False, False, True]
    assert left_out.decide(base, mllm).tolist() == [False, False, True]


@pytest.mark.parametrize(("rule", "score"), [("hold", np.nan), ("base_only", 0.9), ("ignore", 0.0)])
def test_what_becomes_of_videos_while_the_mllm_is_down(rule, score) -> None:
    final = policy(mllm_down=rule).final_score([0.9, 0.1, 0.9], [np.nan, np.nan, 0.75], down=[True, True, False])
    np.testing.assert_array_equal(final, [score, 0.0, 0.75])


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        policy().base_threshold = 0.1
