"""Properties of the cascade: its ceiling, its cost identity, and what a threshold can and cannot do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coefvq.cascade.curves import at_threshold, best_f1_threshold, recall_at_precision
from coefvq.cascade.policy import CascadePolicy
from coefvq.cascade.search import ScoredSplit, escalate_all, frontier_points, qps_ratio, search, select
from coefvq.evaluation.report import evaluate_policy

scores = st.integers(0, 20).map(lambda k: k / 20)
probabilities = st.floats(0, 1)
QUICK = settings(max_examples=30, deadline=None, derandomize=True)
TARGETS = (30.0, 50.0, 60.0, 80.0)


@st.composite
def splits(draw, max_size: int = 40) -> ScoredSplit:
    n = draw(st.integers(3, max_size))

    def column(values):
        return np.array(draw(st.lists(values, min_size=n, max_size=n)), float)

    label = column(st.integers(0, 1))
    label[:2] = (0, 1)
    mllm = np.maximum(column(scores), 0.01)
    return ScoredSplit(label, column(scores), mllm, column(st.integers(0, 9)), column(st.integers(1, 3)))


@st.composite
def policies(draw, any_kind: bool = False) -> CascadePolicy:
    base = draw(probabilities)
    return CascadePolicy(
        issue=draw(st.from_regex(r"[a-z][a-z0-9_]{0,31}", fullmatch=True)),
        base_threshold=base,
        accept_threshold=draw(st.none() | st.floats(base, 1)) if any_kind else None,
        filtered=draw(st.sampled_from(("negative", "keep_base_score", "excluded"))) if any_kind else "negative",
        mllm_down=draw(st.sampled_from(("hold", "base_only", "ignore"))),
        decision_threshold=draw(st.floats(0, 1, exclude_min=True)),
        p_base=draw(st.none() | st.floats(0, 100, exclude_min=True, exclude_max=True)),
        views_trigger=draw(st.none() | st.integers(0, 10**9)),
    )


def summary_of(policy: CascadePolicy, split: ScoredSplit) -> dict:
    return evaluate_policy(policy, split.label, split.base, split.mllm, split.views, split.weight, TARGETS)


@QUICK
@given(splits(), st.integers(5, 95))
def test_calls_are_prevalence_times_recall_over_precision(split, percent) -> None:
    (candidate,) = search("icd", split, [float(percent)])
    if candidate.policy is None:
        return
    prevalence = np.average(split.label, weights=split.weight)
    exact = prevalence * candidate.base_recall / candidate.base_precision
    assert candidate.qps_ratio == pytest.approx(100 * exact)
    assert qps_ratio(candidate.policy, split.base, None, split.weight) == pytest.approx(100 * exact)
    # P_base itself bounds the cost: the paper's QPS = π·R_base(P)/P holds with equality where P is met exactly
    assert exact <= prevalence * candidate.base_recall / (percent / 100) + 1e-9


@QUICK
@given(splits(), policies())
def test_no_cascade_recalls_more_than_its_base_lets_through(split, policy) -> None:
    quiet = policy.model_copy(update={"views_trigger": None})
    ceiling = at_threshold(split.label, split.base, quiet.base_threshold, split.weight).recall
    result = summary_of(quiet, split)
    recalls = [result["recall"], *(result[f"r_at_p{target:g}"] or 0.0 for target in TARGETS)]
    assert max(recalls) <= ceiling + 1e-12


@QUICK
@given(splits(), policies(), probabilities)
def test_raising_the_base_threshold_never_costs_more_calls(split, policy, other) -> None:
    low, high = sorted((policy.base_threshold, other))
    costs = [
        qps_ratio(policy.model_copy(update={"base_threshold": t}), split.base, split.views, split.weight)
        for t in (low, high)
    ]
    assert costs[0] >= costs[1]


@QUICK
@given(splits(), policies(any_kind=True))
def test_a_decision_is_a_final_score_at_the_threshold(split, policy) -> None:
    final = policy.final_score(split.base, split.mllm, split.views)
    decided = policy.decide(split.base, split.mllm, split.views)
    escalated = policy.escalates(split.base, split.views)
    np.testing.assert_array_equal(decided, final >= policy.decision_threshold)
    accepted = policy.accepts(split.base, split.views)
    assert not (escalated & accepted).any()
    assert decided[accepted].all()
    filtered = final[~escalated & ~accepted]
    meaning = {"negative": 0.0, "keep_base_score": split.base[~escalated & ~accepted], "excluded": np.nan}
    np.testing.assert_array_equal(filtered, np.broadcast_to(meaning[policy.filtered], filtered.shape))
    if policy.filtered != "keep_base_score":
        assert not (decided & ~escalated & ~accepted).any()
    np.testing.assert_array_equal(np.isnan(final), ~policy.judges(split.base, split.views))


@QUICK
@given(splits(), policies(any_kind=True), st.integers(0, 255))
def test_one_by_one_as_in_a_stream_is_all_at_once(split, policy, bits) -> None:
    down = np.array([(bits >> (row % 8)) & 1 == 1 for row in range(len(split.base))])
    whole = policy.decide(split.base, split.mllm, split.views, down)
    streamed = []
    for base, mllm, views, silent in zip(split.base, split.mllm, split.views, down, strict=True):
        asked = policy.escalates([base], [views])[0] and not silent
        streamed.append(policy.decide([base], [mllm if asked else np.nan], [views], [silent])[0])
    assert whole.tolist() == streamed


@QUICK
@given(policies(any_kind=True))
def test_json_round_trip(policy) -> None:
    assert CascadePolicy.from_json(policy.to_json()) == policy


@QUICK
@given(splits())
def test_escalating_all_gives_the_figures_of_the_mllm_alone(split) -> None:
    everything = escalate_all("icd", split)
    alone = best_f1_threshold(split.label, split.mllm, split.weight)
    assert everything.policy.decision_threshold == alone.threshold
    result = summary_of(everything.policy, split)
    assert result["f1"] == everything.f1 == alone.f1
    for target in TARGETS:
        found = recall_at_precision(split.label, split.mllm, target / 100, split.weight)
        assert result[f"r_at_p{target:g}"] == (found.recall if found.reachable else None)


@QUICK
@given(splits())
def test_reported_validation_figures_are_those_of_the_policy(split) -> None:
    for candidate in search("icd", split, [20.0, 50.0], views_trigger=8):
        if candidate.policy is not None:
            result = summary_of(candidate.policy, split)
            assert (result["f1"], result["precision"], result["recall"]) == (
                candidate.f1,
                candidate.precision,
                candidate.recall,
            )
            assert qps_ratio(candidate.policy, split.base, split.views, split.weight) == candidate.qps_ratio


@QUICK
@given(splits(), st.floats(0, 1))
def test_selection_keeps_its_word(split, loss) -> None:
    candidates = search("icd", split, [20.0, 40.0, 60.0, 80.0])
    everything = escalate_all("icd", split)
    choice = select(candidates, everything, loss)
    usable = [c for c in candidates if c.policy is not None]
    if not usable:
        assert choice.policy == everything.policy
        return
    chosen = next(c for c in usable if c.p_base == choice.p_base)
    keeping = [c for c in usable if c.f1 >= everything.f1 - loss - 1e-9]
    if keeping:
        assert chosen.qps_ratio == min(c.qps_ratio for c in keeping)
    else:
        assert chosen.f1 == max(c.f1 for c in usable)


@QUICK
@given(splits())
def test_candidates_lie_on_the_frontier(split) -> None:
    by_threshold = {point.base_threshold: point for point in frontier_points(split, 0.6)}
    for candidate in search("icd", split, [30.0, 60.0]):
        if candidate.policy is not None:
            point = by_threshold[candidate.policy.base_threshold]
            assert point.f1 == candidate.f1
            assert point.qps_ratio == pytest.approx(candidate.qps_ratio)
