"""Thresholds for a share of calls: base threshold from traffic, and which of three policies is released."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coefvq.cascade.call_share import (
    BASE_ALONE,
    MLLM_ON_ALL,
    CallShare,
    Traffic,
    base_threshold_at,
    choose_for_share,
    kept_margin,
    share_that_keeps,
)
from coefvq.cascade.curves import best_f1_threshold
from coefvq.cascade.policy import CascadePolicy
from coefvq.cascade.search import ScoredSplit
from coefvq.errors import DataError

WANTED = CallShare(20.0, 0.97)


def world(base_noise: float, mllm_noise: float, n: int = 4000, prevalence: float = 0.1) -> tuple[ScoredSplit, Traffic]:
    """Labelled validation rows and as many unlabelled ones; the noises say how well each model sees the label."""
    rng = np.random.default_rng(3)

    def scored(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        label = (rng.random(size) < prevalence).astype(float)
        base, mllm = (1 / (1 + np.exp(-(label * 4 - 2 + rng.normal(0, s, size)))) for s in (base_noise, mllm_noise))
        return label, base, mllm

    label, base, mllm = scored(n)
    return ScoredSplit(label, base, mllm), Traffic(scored(n)[1])


@given(
    scores=st.lists(st.integers(0, 20), min_size=1, max_size=60),
    qps=st.floats(0.1, 100.0),
    data=st.data(),
)
def test_base_threshold_is_the_lowest_within_the_share(scores, qps, data):
    base = np.array(scores) / 20.0
    weight = np.array(data.draw(st.lists(st.integers(1, 5), min_size=len(scores), max_size=len(scores))), float)
    threshold, share = base_threshold_at(Traffic(base, None, weight), qps, None)
    taken = 100.0 * weight[base >= threshold].sum() / weight.sum()
    assert share == pytest.approx(taken)
    # where the highest group scores 1 and does not fit, no threshold can hold it back
    assert share <= qps * (1 + 1e-6) or threshold == base.min() == 1.0 or threshold == base.max() == 1.0
    lower = base[base < threshold]
    if len(lower) and share <= qps:
        assert 100.0 * weight[base >= lower.max()].sum() / weight.sum() > qps


def test_views_count_as_calls():
    base, views = np.linspace(0.1, 0.9, 9), np.array([1000.0] * 3 + [0.0] * 6)
    plain, _ = base_threshold_at(Traffic(base), 50.0, None)
    watched, share = base_threshold_at(Traffic(base, views), 50.0, 1000)
    assert watched > plain
    policy = CascadePolicy(issue="icd", base_threshold=watched, decision_threshold=0.5, p_base=None, views_trigger=1000)
    assert 100.0 * policy.escalates(base, views).mean() == pytest.approx(share)
    assert share <= 50.0


def test_a_good_pair_gets_a_cascade_with_the_mllms_own_threshold():
    val, traffic = world(base_noise=1.5, mllm_noise=1.2)
    listed, choice = choose_for_share("icd", val, traffic, WANTED)
    alone, cascade, everything = listed
    assert choice.policy == cascade.policy
    assert choice.policy.decision_threshold == best_f1_threshold(val.label, val.mllm).threshold
    assert 100.0 * choice.policy.escalates(traffic.base).mean() <= 20.0
    assert cascade.f1 >= max(0.97 * everything.f1, alone.f1)
    assert "keeps 97 % of the MLLM's F1" in choice.reason


def test_a_base_that_sees_enough_is_released_alone():
    val, traffic = world(base_noise=1.2, mllm_noise=1.2)
    listed, choice = choose_for_share("icd", val, traffic, WANTED)
    assert choice.policy == listed[0].policy
    assert listed[0].name == BASE_ALONE
    assert not choice.policy.asks_mllm
    assert not choice.policy.escalates(traffic.base).any()
    flagged = choice.policy.decide(val.base, np.full(len(val.base), np.nan))
    assert np.array_equal(flagged, val.base >= best_f1_threshold(val.label, val.base).threshold)
    # ranking is the base model's own, so that R@P of the policy is the base's
    assert np.array_equal(choice.policy.final_score(val.base, val.mllm), val.base)


def test_what_no_cascade_can_meet_is_said_with_the_share_that_would():
    val, traffic = world(base_noise=6.0, mllm_noise=1.0)
    listed, choice = choose_for_share("icd", val, traffic, WANTED)
    assert choice.policy == listed[2].policy
    assert listed[2].name == MLLM_ON_ALL
    floor = 0.97 * listed[2].f1
    enough = share_that_keeps(val, traffic, choice.policy.decision_threshold, floor)
    assert enough is not None
    assert enough > 20.0
    assert f"one with {enough:.1f} % would" in choice.reason
    # and it does: asked for a little more, the cascade is chosen
    again = choose_for_share("icd", val, traffic, CallShare(min(100.0, enough + 0.5), 0.97))
    assert again[1].policy == again[0][1].policy


def test_the_share_that_would_do_does_it_on_little_traffic_too():
    val, traffic = world(base_noise=3.0, mllm_noise=1.0)
    for start in range(0, 1200, 40):
        few = Traffic(traffic.base[start : start + 40])
        listed, _ = choose_for_share("icd", val, few, CallShare(2.5, 0.97))
        decision, floor = listed[2].policy.decision_threshold, 0.97 * listed[2].f1
        enough = share_that_keeps(val, few, decision, floor)
        assert enough is not None
        f1 = {
            share: choose_for_share("icd", val, few, CallShare(share, 0.97))[0][1].f1
            for share in (enough, enough - 1.0)
        }
        assert f1[enough - 1.0] < floor <= f1[enough] + 1e-12


def test_a_threshold_lies_in_the_middle_between_two_scores():
    scores = np.array([0.9, 0.5, 0.7, 0.7, 0.1])
    assert base_threshold_at(Traffic(scores), 20.0, None) == (pytest.approx(0.8), 20.0)
    assert base_threshold_at(Traffic(scores), 79.0, None) == (pytest.approx(0.6), 60.0)  # equal scores stay together
    assert base_threshold_at(Traffic(scores), 100.0, None) == (0.1, 100.0)
    near = np.array([0.5, np.nextafter(0.5, 0.0)])  # nothing lies between
    threshold, share = base_threshold_at(Traffic(near), 50.0, None)
    assert (float((near >= threshold).mean()), share) == (0.5, 50.0)


@pytest.mark.parametrize(("policy", "place"), [("base", 0), ("mllm", 2)])
def test_a_model_that_was_asked_for_decides_alone_whatever_validation_says(policy, place):
    val, traffic = world(base_noise=1.5, mllm_noise=1.2)
    listed, choice = choose_for_share("icd", val, traffic, CallShare(20.0, 0.97, policy))
    assert choice.policy == listed[place].policy
    assert choice.policy != choose_for_share("icd", val, traffic, WANTED)[1].policy
    assert choice.reason.startswith(f"policy: {policy} was asked for, so {listed[place].name} decides")


@pytest.mark.parametrize("noises", [(0.5, 3.0), (2.0, 1.2), (6.0, 1.0), (3.0, 3.0), (9.0, 9.0)])
@pytest.mark.parametrize("qps", [1.0, 10.0, 50.0])
def test_the_released_policy_never_falls_below_base_alone_nor_below_the_floor(noises, qps):
    val, traffic = world(*noises, n=600)
    listed, choice = choose_for_share("icd", val, traffic, CallShare(qps, 0.97))
    chosen = next(item for item in listed if item.policy == choice.policy)
    assert chosen.f1 >= 0.97 * listed[2].f1 - 1e-12
    assert chosen.f1 >= min(listed[0].f1, listed[2].f1) - 1e-12
    if chosen.name not in (BASE_ALONE, MLLM_ON_ALL):
        assert chosen.f1 >= listed[0].f1


def test_the_error_of_the_margin_is_its_spread_over_samples():
    val, _ = world(2.0, 1.2, n=200_000)
    mine, other = val.base >= 0.7, val.mllm >= 0.5
    found = []
    for start in range(0, 200_000, 1000):
        part = slice(start, start + 1000)
        split = ScoredSplit(val.label[part], val.base[part], val.mllm[part])
        found.append(kept_margin(split, mine[part], other[part], 0.9))
    margins, errors = np.array(found).T
    assert errors.mean() == pytest.approx(margins.std(), rel=0.12)


def test_a_choice_that_chance_could_reverse_says_how_many_labels_would_settle_it():
    few, traffic = world(2.0, 1.2, n=300)
    reason = choose_for_share("icd", few, traffic, WANTED)[1].reason
    about = re.search(r"on 300 labels, about ([\d,]+) would settle it", reason)
    assert about is not None
    digits = about[1].replace(",", "")
    assert int(digits) > 300
    assert digits[2:].strip("0") == ""
    many, traffic = world(0.8, 3.0, n=20_000)
    assert "would settle it" not in choose_for_share("icd", many, traffic, WANTED)[1].reason


def test_no_number_of_labels_is_named_where_the_margin_is_next_to_nothing():
    few, traffic = world(2.0, 1.2, n=300)
    (alone, cascade, everything), chosen = choose_for_share("icd", few, traffic, WANTED)
    (mine,) = [one.f1 for one in (alone, cascade) if one.policy == chosen.policy]
    assert mine is not None
    assert everything.f1 is not None
    nearly = CallShare(WANTED.qps, mine / everything.f1 - 1e-6)
    assert choose_for_share("icd", few, traffic, nearly)[1].reason.endswith("; on 300 labels it is a draw")


def test_without_traffic_it_says_what_to_do():
    val, _ = world(2.0, 1.2, n=100)
    with pytest.raises(DataError, match=r"traffic: no video.*split.fractions.traffic"):
        choose_for_share("icd", val, Traffic(np.array([])), WANTED)
