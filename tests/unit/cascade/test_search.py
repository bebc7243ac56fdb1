"""Threshold search on cases small enough to do by hand."""

import numpy as np
import pytest

from coefvq.cascade.policy import CascadePolicy
from coefvq.cascade.search import (
    CascadeCandidate,
    ScoredSplit,
    escalate_all,
    frontier_points,
    qps_ratio,
    search,
    select,
)
from coefvq.errors import ConfigError, DataError

# base precision from the top: 1, 1/2, 2/3, 2/4, 3/5, 3/6, 3/7, 3/8
VAL = ScoredSplit(
    label=[1, 0, 1, 0, 1, 0, 0, 0],
    base=[0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2],
    mllm=[0.8, 0.1, 0.6, 0.7, 0.9, 0.95, 0.2, 0.3],
)


def test_base_threshold_has_the_highest_recall_at_p_base() -> None:
    by_p = {candidate.p_base: candidate for candidate in search("icd", VAL, [50.0, 60.0, 60.5, 66.0, 90.0])}
    assert [by_p[p].policy.base_threshold for p in by_p] == [0.5, 0.5, 0.7, 0.7, 0.9]
    assert by_p[60.0].base_precision == 0.6
    assert (by_p[66.0].base_recall, by_p[66.0].support) == (pytest.approx(2 / 3), 2)
    assert by_p[60.0].qps_ratio == 62.5


def test_decision_threshold_has_the_best_f1_of_the_final_score() -> None:
    candidate = search("icd", VAL, [60.0])[0]
    # of the five escalated the best cut keeps 0.9, 0.8, 0.7, 0.6: three true, one false
    assert candidate.policy.decision_threshold == 0.6
    assert (candidate.precision, candidate.recall) == (0.75, 1.0)
    assert candidate.f1 == pytest.approx(6 / 7)


def test_an_unreachable_precision_is_recorded_not_invented() -> None:
    val = ScoredSplit(label=[0, 1, 0, 1], base=[0.9, 0.8, 0.7, 0.6], mllm=[0.1, 0.9, 0.2, 0.8])
    candidate = search("icd", val, [60.0])[0]
    assert (candidate.reachable, candidate.policy, candidate.f1, candidate.qps_ratio) == (
        False,
        None,
        None,
        None,
    )
    assert (candidate.base_precision, candidate.base_recall, candidate.support) == (0.5, 0.0, 0.0)


def test_escalating_all_is_the_mllm_alone() -> None:
    everything = escalate_all("icd", VAL)
    assert everything.qps_ratio == 100.0
    assert everything.base_recall == 1.0
    policy = everything.policy
    np.testing.assert_array_equal(policy.final_score(VAL.base, VAL.mllm), VAL.mllm)
    assert policy.escalates([0.0]).all()


def test_views_bring_filtered_videos_back() -> None:
    val = ScoredSplit(VAL.label, VAL.base, VAL.mllm, views=[0, 0, 0, 0, 10, 0, 0, 0])
    plain, triggered = search("icd", val, [90.0])[0], search("icd", val, [90.0], views_trigger=10)[0]
    assert plain.qps_ratio == 12.5
    assert triggered.qps_ratio == 25.0
    assert triggered.recall > plain.recall


def test_wrong_settings_name_the_key() -> None:
    with pytest.raises(ConfigError, match=r"thresholds\.icd: views_trigger = -1"):
        search("icd", VAL, [50.0], views_trigger=-1)


def test_mllm_scores_of_zero_leave_nothing_to_decide() -> None:
    with pytest.raises(DataError, match="check the MLLM scores for zeros"):
        search("icd", ScoredSplit(VAL.label, VAL.base, np.zeros(8)), [50.0])


def candidate(p_base: float, f1: float, qps: float) -> CascadeCandidate:
    policy = CascadePolicy(
        issue="icd", base_threshold=p_base / 100, decision_threshold=0.5, p_base=p_base, views_trigger=None
    )
    return CascadeCandidate(p_base, True, 0.5, 0.5, 9.0, policy, f1, 0.5, 0.5, qps)


UNREACHABLE = CascadeCandidate(90.0, False, 0.41, 0.0, 0.0)
MLLM_ONLY = escalate_all("icd", VAL)  # F1 6/8 = 0.75


def test_selects_the_fewest_calls_within_the_loss() -> None:
    listed = [candidate(20.0, 0.75, 40.0), candidate(30.0, 0.73, 20.0), candidate(50.0, 0.60, 5.0), UNREACHABLE]
    assert MLLM_ONLY.f1 == 0.75
    choice = select(listed, MLLM_ONLY, 0.03)
    assert (choice.p_base, choice.policy) == (30.0, listed[1].policy)
    assert choice.reason == (
        "on validation, fewest MLLM calls (20.0 %) among those within 3 points of the MLLM alone (F1 75.0): F1 73.0"
    )
    # a loss of exactly the allowance is within it, though 0.75 - 0.69 is a little more than 0.06 in binary
    assert 0.75 - 0.69 > 0.06
    assert select([*listed, candidate(40.0, 0.06, 1.0)], MLLM_ONLY, 0.69).p_base == 40.0


def test_equal_calls_go_to_the_better_f1() -> None:
    choice = select([candidate(20.0, 0.74, 10.0), candidate(30.0, 0.75, 10.0)], MLLM_ONLY, 0.03)
    assert choice.p_base == 30.0


def test_when_all_lose_too_much_the_best_f1_is_taken_and_said() -> None:
    choice = select([candidate(20.0, 0.5, 40.0), candidate(30.0, 0.4, 20.0), UNREACHABLE], MLLM_ONLY, 0.03)
    assert choice.p_base == 20.0
    assert "none stays within 3 points" in choice.reason


def test_when_none_is_reachable_everything_is_escalated_and_said() -> None:
    choice = select([UNREACHABLE], MLLM_ONLY, 0.03)
    assert choice.p_base is None
    assert choice.policy == MLLM_ONLY.policy
    assert "no P_base is reachable" in choice.reason
    assert "41.0 %" in choice.reason
    assert qps_ratio(choice.policy, np.linspace(0, 1, 7)) == 100.0


def test_select_insists_on_the_reference() -> None:
    with pytest.raises(ValueError, match="escalate_all"):
        select([], UNREACHABLE, 0.03)


def test_qps_ratio_is_weighted() -> None:
    policy = candidate(50.0, 0.5, 10.0).policy
    assert qps_ratio(policy, [0.9, 0.1, 0.1, 0.1]) == 25.0
    assert qps_ratio(policy, [0.9, 0.1, 0.1, 0.1], weight=[1, 1, 1, 7]) == 10.0
    for weight in ([], [0.0] * 4, [1.0]):
        with pytest.raises(DataError, match="weight"):
            qps_ratio(policy, [0.9, 0.1, 0.1, 0.1], weight=weight)
    with pytest.raises(DataError, match="weight"):
        qps_ratio(policy, [])


def test_frontier_by_hand() -> None:
    points = frontier_points(VAL, 0.6)
    assert [point.qps_ratio for point in points] == [12.5 * k for k in range(1, 9)]
    fifth = points[4]
    assert fifth.base_threshold == 0.5
    assert (fifth.recall, fifth.f1) == (1.0, pytest.approx(6 / 7))
    # with everything escalated the false 0.95 leads: three of five at best
    assert points[-1].f1 == pytest.approx(0.75)


def test_frontier_is_thinned_but_keeps_its_ends() -> None:
    rng = np.random.default_rng(0)
    split = ScoredSplit((rng.random(2000) < 0.1).astype(float), rng.random(2000), rng.random(2000))
    points = frontier_points(split, 0.6, n_points=50)
    assert len(points) <= 50
    assert (points[0].qps_ratio, points[-1].qps_ratio) == (0.05, 100.0)
