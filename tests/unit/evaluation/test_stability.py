"""The τ-band: who is in it, and what counts as changing sides."""

import numpy as np
import pytest

from coefvq.cascade.policy import CascadePolicy
from coefvq.evaluation.stability import Rescored, held_against, near_thresholds, stability_report

POLICY = CascadePolicy(issue="icd", base_threshold=0.5, decision_threshold=0.3, p_base=None, views_trigger=None)

SHIFT = np.array([0.02, 0.0, 0.0, 0.0])


def test_the_band_is_what_lies_nearest():
    base = np.array([0.1, 0.49, 0.51, 0.9, 0.95, 0.2])
    mllm = np.array([0.3, 0.9, 0.9, 0.31, 0.8, 0.3])
    # 1 and 2 lie at the base threshold, 3 at the decision threshold; 0 and 5 are filtered out, whatever the MLLM says
    assert near_thresholds(POLICY, base, mllm, 2).tolist() == [1, 2, 3, 4]
    assert near_thresholds(POLICY, base, mllm, 1).tolist() == [1, 3]
    assert near_thresholds(POLICY, base[:2], mllm[:2], 5).tolist() == [0, 1]


def test_flips_are_counted_once_and_only_where_gated():
    base, mllm = np.array([0.49, 0.6, 0.6, 0.6]), np.array([0.9, 0.31, 0.8, 0.2])
    moved = Rescored("moved", True, base + SHIFT, mllm - np.roll(SHIFT, 1))
    again = Rescored("again", True, base + SHIFT, mllm)
    rough = Rescored("rough", False, base, mllm + 10 * np.roll(SHIFT, 3))
    report = stability_report(POLICY, base, mllm, [moved, again, rough], total=900)
    assert (report["n"], report["total"], report["flip_rate"]) == (4, 900, 0.5)
    flips = [(row["escalation_flips"], row["decision_flips"], row["flip_rate"]) for row in report["variants"]]
    assert flips == [(1, 2, 0.5), (1, 1, 0.25), (0, 1, 0.25)]
    assert report["variants"][2]["max_mllm_difference"] == pytest.approx(0.2)
    assert held_against(report, 0.5)["passed"]
    assert not held_against(report, 0.49)["passed"]


def test_nothing_changes_nothing_flips():
    base, mllm = np.array([0.5, 0.7]), np.array([0.3, 0.1])
    report = stability_report(POLICY, base, mllm, [Rescored("same", True, base, mllm)], total=2)
    assert report["flip_rate"] == 0.0
    assert stability_report(POLICY, [], [], [], total=0)["flip_rate"] == 0.0


def test_a_video_whose_score_is_the_threshold_is_no_instability():
    base, mllm = np.array([0.5, 0.7, 0.8]), np.array([0.9, 0.3, 0.8])
    shaken = Rescored("shaken", True, base - 1e-8, mllm - 1e-8)
    report = stability_report(POLICY, base, mllm, [shaken], total=3)
    assert (report["on_threshold"], report["flip_rate"]) == (2, 0.0)
    assert report["variants"][0]["decision_flips"] == 2
