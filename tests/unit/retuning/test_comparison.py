"""Old against new: calls, figures with intervals, decisions that change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coefvq.cascade.curves import at_threshold
from coefvq.config import Thresholds
from coefvq.evaluation.intervals import Interval
from coefvq.retuning.comparison import compare_calls, compare_quality, flip_counts, flipped
from coefvq.retuning.sample import fresh_sample
from coefvq.stages.thresholds import search_policies
from tests.unit.retuning.fresh_world import OLD, frame, labels, world

RULE = Thresholds(mode="qps", max_qps_ratio=25.0, min_kept_f1=0.9, views_trigger=None)


def retuned(shift: float, seed: int, n: int = 4000):
    traffic = world(n, seed, shift)
    sample = fresh_sample(traffic, labels(n, seed, every=4), OLD, 20)
    found = search_policies(sample.scores, "icd", RULE, [60.0])
    return traffic, sample, OLD.from_dict(found["policy"])


@settings(max_examples=10, deadline=None)
@given(st.floats(min_value=-2.0, max_value=2.0))
def test_after_a_shift_the_share_of_calls_returns(shift: float):
    """The rule wants 25 % of calls. However far the base scores have moved, the same videos are called."""
    n = 2000
    traffic, _, new = retuned(shift, 0, n)
    calls = compare_calls(traffic.frame, OLD, new)
    assert calls["new"]["value"] == pytest.approx(25.0, abs=2.5)
    still = retuned(0.0, 0, n)[2].escalates(world(n, 0).frame["base"])
    assert (new.escalates(traffic.frame["base"]) == still).all()


def test_a_shift_shows_as_too_many_calls_of_the_old_policy():
    traffic, sample, new = retuned(1.5, 1)
    calls = compare_calls(traffic.frame, OLD, new)
    assert calls["old"]["low"] > 40.0
    quality = compare_quality(sample.scores, OLD, new, 200, 0)
    assert quality["n"] == 500
    for side in ("old", "new"):
        for figure in ("f1", "precision", "recall"):
            found = Interval(**quality[side][figure])
            assert found.low <= found.value <= found.high


def test_figures_are_those_at_the_threshold_on_the_held_out_half():
    _, sample, new = retuned(0.5, 2)
    quality = compare_quality(sample.scores, OLD, new, 200, 0)
    test = sample.scores[sample.scores["split"] == "test"]
    by_hand = {
        name: at_threshold(
            test["label"], policy.ranking_score(test["base"], test["mllm"]), policy.decision_threshold, test["weight"]
        )
        for name, policy in (("old", OLD), ("new", new))
    }
    for name, point in by_hand.items():
        assert quality[name]["f1"]["value"] == pytest.approx(point.f1)
        assert quality[name]["recall"]["value"] == pytest.approx(point.recall)
        assert quality[name]["precision"]["value"] == pytest.approx(point.precision)
    gained = by_hand["new"].f1 - by_hand["old"].f1
    assert quality["difference"]["f1"]["value"] == pytest.approx(gained)
    same = compare_quality(sample.scores, OLD, OLD, 200, 0)["difference"]["f1"]
    assert (same["low"], same["value"], same["high"]) == (0.0, 0.0, 0.0)


def test_flips_by_hand():
    new = OLD.model_copy(update={"base_threshold": 0.3, "decision_threshold": 0.7})
    traffic = frame(base=np.array([0.6, 0.6, 0.4, 0.4, 0.4, 0.1]), mllm=np.array([0.9, 0.6, 0.9, np.nan, 0.2, np.nan]))
    flips = flipped(traffic, OLD, new)
    assert flips[["video_id", "before", "after"]].to_numpy().tolist() == [
        ["v00001", "positive", "negative"],
        ["v00002", "negative", "positive"],
        ["v00003", "negative", "unknown"],
    ]
    assert flip_counts(flips, 6) == {"of": 6, "to_positive": 1, "to_negative": 1, "to_unknown": 1}
