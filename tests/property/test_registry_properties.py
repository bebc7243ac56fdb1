"""Properties of the history's stack, the gate and the content hash."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from coefvq.config import Gate
from coefvq.flat import flat_metrics
from coefvq.registry.bundle import DataRef, ModelRef, build_candidate, content_hash, parse_candidate
from coefvq.registry.gates import check
from coefvq.registry.history import Decision, champion_stack

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
SHARE = st.floats(0.0, 1.0)
# mlflow.utils.validation.validate_param_and_metric_name, without the 3 s of its import
MLFLOW_NAME = re.compile(r"[/\w.\- :]*")
# a loaded machine is not a failure
untimed = settings(deadline=None)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
OBJECT = st.dictionaries(st.text(max_size=5), JSON, max_size=3)


def _decision(action: str, version: int) -> Decision:
    ends = {"from_version": str(version)} if action == "reject" else {"to_version": str(version)}
    fields = {"sequence": 1, "at": "", "by": "ana", "reason": "why", "issue": "icd", "state": "done"}
    return Decision.model_validate({**fields, "action": action, "content_hash": f"h{version}", **ends})


@untimed
@given(st.lists(st.sampled_from(["approve", "reject", "rollback"]), max_size=40))
def test_the_stack_is_that_of_an_undo_list(actions: list[str]) -> None:
    history: list[Decision] = []
    expected: list[int] = []
    for number, action in enumerate(actions, start=1):
        if action == "approve":
            expected.append(number)
            history.append(_decision("approve", number))
        elif action == "reject":
            history.append(_decision("reject", number))
        elif len(expected) > 1:
            expected.pop()
            history.append(_decision("rollback", expected[-1]))
        assert champion_stack(history) == [(str(version), f"h{version}") for version in expected]


def _candidate(policy: dict[str, Any], f1: float, qps_ratio: float, reached: float, prevalence: float) -> Any:
    return build_candidate(
        "icd",
        base=ModelRef(model_id="m-1", run_id="r-1", sha256="1" * 64),
        mllm=ModelRef(model_id="m-2", run_id="r-2", sha256="2" * 64),
        policy=policy,
        preprocessing={},
        data=DataRef(manifest_sha256="a" * 64, splits_sha256="b" * 64, version=None),
        params={},
        metrics={
            "base": {"f1": 0.0, "roc_auc": 0.6, "n": 100},
            "mllm": {"average_precision": reached, "prevalence": prevalence, "n": 10, "f1": 0.0},
            "cascade": {"f1": f1, "qps_ratio": qps_ratio, "prevalence": prevalence},
            "stability": {"n": 100, "flip_rate": 0.0},
        },
    )


@untimed
@given(SHARE, SHARE, st.floats(0.0, 100.0), SHARE, SHARE, SHARE)
def test_a_better_candidate_never_fails_where_a_worse_one_passes(
    f1: float, champion_f1: float, qps_ratio: float, reached: float, prevalence: float, better: float
) -> None:
    params = Gate(min_average_precision_gain=0.1, max_qps_ratio=50.0, max_f1_drop=0.05, max_flip_rate=0.02)
    champion = _candidate({}, champion_f1, 0.0, 1.0, prevalence)
    worse = check(_candidate({}, f1, qps_ratio, reached, prevalence), champion, params)
    improved = _candidate(
        {}, f1 + better * (1.0 - f1), qps_ratio * (1.0 - better), reached + better * (1.0 - reached), prevalence
    )
    assert check(improved, champion, params).passed >= worse.passed
    assert worse.passed is (worse.failures == "")


@untimed
@given(SHARE, st.floats(0.0, 0.5))
def test_a_drop_of_exactly_the_limit_passes(f1: float, limit: float) -> None:
    others = {"min_average_precision_gain": -1.0, "max_qps_ratio": 100.0, "max_flip_rate": 0.02}
    params = Gate(**others, min_f1_over_guess=-1.0, max_f1_drop=limit)
    champion, candidate = _candidate({}, f1 + limit, 0.0, 1.0, 0.0), _candidate({}, f1, 0.0, 1.0, 0.0)
    assert check(candidate, champion, params).passed


@untimed
@given(OBJECT, st.randoms(use_true_random=False))
def test_a_candidate_survives_json_and_key_order_does_not_matter(policy: dict[str, Any], random: Any) -> None:
    candidate = _candidate(policy, 0.5, 1.0, 0.5, 0.1)
    assert parse_candidate(candidate.to_json(), "x") == candidate
    keys = list(policy)
    random.shuffle(keys)
    shuffled = {key: policy[key] for key in keys}
    assert content_hash("icd", "1" * 64, "2" * 64, shuffled, {}) == candidate.content_hash


@untimed
@given(HEX, HEX)
def test_base_and_mllm_do_not_stand_in_for_each_other(one: str, other: str) -> None:
    same = content_hash("icd", one, other, {}, {}) == content_hash("icd", other, one, {}, {})
    assert same is (one == other)


@untimed
@given(OBJECT)
def test_flat_metrics_are_numbers_under_names_mlflow_takes(metrics: dict[str, Any]) -> None:
    for name, value in flat_metrics(metrics).items():
        assert isinstance(value, float)
        assert MLFLOW_NAME.fullmatch(name)
