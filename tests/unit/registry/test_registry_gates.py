"""The gate: each condition at, below and above its limit."""

from __future__ import annotations

from typing import Any

import pytest

from coefvq.config import Gate
from coefvq.errors import RegistryError
from coefvq.registry.bundle import Candidate, Retuning
from coefvq.registry.gates import GateCheck, GateReport, check
from tests.unit.registry_samples import DATA, METRICS, candidate, with_metrics

GATE = Gate(min_average_precision_gain=0.1, max_qps_ratio=60.0, max_f1_drop=0.05, max_flip_rate=0.02)


MLLM_AT_60 = {**METRICS["mllm"], "f1": 0.6}


def _one(name: str, subject: Candidate, champion: Candidate | None = None) -> GateCheck:
    report = check(subject, champion, GATE)
    assert report.passed == all(item.passed for item in report.checks)
    return next(item for item in report.checks if item.name == name)


@pytest.mark.parametrize(("reached", "passed"), [(0.19, False), (0.2, True), (0.3, True), (0.05, False)])
def test_the_mllm_must_beat_guessing(reached: float, passed: bool) -> None:
    found = _one("average_precision_gain", with_metrics("mllm", average_precision=reached))
    assert (found.passed, found.value) == (passed, pytest.approx(reached - 0.1))
    assert "on 200 test videos, guessing 0.100" in found.explanation


@pytest.mark.parametrize(("ratio", "passed"), [(0.0, True), (60.0, True), (60.1, False)])
def test_the_mllm_must_not_see_too_much_traffic(ratio: float, passed: bool) -> None:
    assert _one("qps_ratio", with_metrics("cascade", qps_ratio=ratio)).passed is passed


# 0.80 - 0.75 is more than 0.05 in binary
@pytest.mark.parametrize(("f1", "passed"), [(0.80, True), (0.75, True), (0.749, False), (0.9, True)])
def test_f1_must_not_drop_below_the_champions(f1: float, passed: bool) -> None:
    found = _one("f1_drop", with_metrics("cascade", f1=f1), with_metrics("cascade", f1=0.80))
    assert (found.passed, found.value) == (passed, pytest.approx(0.80 - f1))


# 0.97 of 0.6 is 0.582
@pytest.mark.parametrize(("f1", "passed"), [(0.7, True), (0.582, True), (0.5819, False), (0.0, False)])
def test_the_policy_must_keep_the_mllms_f1(f1: float, passed: bool) -> None:
    subject = candidate(metrics={**METRICS, "cascade": {**METRICS["cascade"], "f1": f1}, "mllm": MLLM_AT_60})
    found = _one("kept_f1", subject)
    assert (found.passed, found.value) == (passed, pytest.approx(f1 / 0.6))
    assert ("improve the base model" in found.explanation) is not passed


@pytest.mark.parametrize(("f1", "passed"), [(0.41, True), (0.4, True), (0.399, False)])
def test_the_policy_must_not_fall_below_the_base_model_alone(f1: float, passed: bool) -> None:
    found = _one("f1_over_base", with_metrics("cascade", f1=f1))
    assert (found.passed, found.value) == (passed, pytest.approx(f1 - 0.4))
    assert ("release the base model alone" in found.explanation) is not passed


def test_intervals_stand_beside_the_figures_where_they_are_known() -> None:
    against = {"kept_f1": {"value": 0.98, "low": 0.9, "high": 1.05}}
    assert (
        "95 % interval 90.0 to 105.0"
        in _one("kept_f1", candidate(metrics=METRICS | {"against_models": against})).explanation
    )
    assert "interval" not in _one("kept_f1", candidate()).explanation
    calls = METRICS["cascade"] | {"qps_ratio_interval": {"low": 12.1, "high": 24.9}}
    measured = _one("qps_ratio", candidate(metrics=METRICS | {"cascade": calls}))
    assert ", 95 % interval 12.1 to 24.9;" in measured.explanation
    assert "interval" not in _one("qps_ratio", candidate()).explanation


@pytest.mark.parametrize(("rate", "passed"), [(0.0, True), (0.02, True), (0.021, False)])
def test_decisions_must_not_hang_on_how_videos_are_scored(rate: float, passed: bool) -> None:
    found = _one("flip_rate", with_metrics("stability", flip_rate=rate))
    assert found.passed is passed
    assert "100 videos nearest to a threshold" in found.explanation


def test_without_a_champion_there_is_nothing_to_compare() -> None:
    found = _one("f1_drop", candidate())
    assert (found.passed, found.value) == (True, None)
    assert "no champion yet" in found.explanation


@pytest.mark.parametrize("changed", ["manifest_sha256", "splits_sha256"])
def test_other_test_data_is_not_compared_and_said_so(changed: str) -> None:
    other = candidate(data=DATA.model_copy(update={changed: "c" * 64}), metrics={**METRICS, "cascade": {"f1": 0.99}})
    found = _one("f1_drop", candidate(), other)
    assert (found.passed, found.value) == (True, None)
    assert "not comparable: the champion was tested on other data" in found.explanation


def _retuned(f1: float, origin: Candidate, champion_f1: float | None) -> Candidate:
    made = Retuning(
        bundle_version="1-abc",
        content_hash=origin.content_hash,
        labels_sha256="1" * 64,
        scores_sha256="2" * 64,
        labelled=500,
        positives=50,
        traffic=5000,
        champion_f1=champion_f1,
    )
    cascade = {**METRICS["cascade"], "f1": f1}
    return candidate(policy={"base_threshold": 0.4}, metrics={**METRICS, "cascade": cascade}, retuned=made)


@pytest.mark.parametrize(("champion_f1", "passed"), [(0.5, True), (0.7, False)])
def test_a_retuned_pair_is_compared_with_its_champion_on_the_fresh_labels(champion_f1: float, passed: bool) -> None:
    champion = with_metrics("cascade", f1=0.99)  # on its own test split: another set of videos
    found = _one("f1_drop", _retuned(0.6, champion, champion_f1), champion)
    assert (found.passed, found.value) == (passed, pytest.approx(champion_f1 - 0.6))
    assert "on the same fresh labels" in found.explanation


def test_figures_on_fresh_labels_and_on_test_are_not_compared() -> None:
    champion = candidate()
    retuned = _retuned(0.9, champion, 0.5)
    another = _one("f1_drop", retuned, candidate(policy={"base_threshold": 0.1}))
    later = _one("f1_drop", with_metrics("cascade", f1=0.1), retuned)
    assert another.value is later.value is None
    assert "not comparable: the champion was tested on other data" in another.explanation
    unknown = _one("f1_drop", _retuned(0.9, champion, None), champion)
    assert "the champion's F1 has no value" in unknown.explanation


@pytest.mark.parametrize(
    ("group", "key", "name"),
    [
        ("mllm", "average_precision", "average_precision_gain"),
        ("mllm", "prevalence", "average_precision_gain"),
        ("cascade", "qps_ratio", "qps_ratio"),
        ("cascade", "f1", "f1_drop"),
        ("cascade", "f1", "kept_f1"),
        ("mllm", "f1", "kept_f1"),
        ("base", "f1", "f1_over_base"),
        ("base", "roc_auc", "base_auc"),
        ("cascade", "prevalence", "f1_over_guess"),
        ("cascade", "f1", "f1_over_shortcut"),
    ],
)
def test_an_undefined_metric_fails_its_check(group: str, key: str, name: str) -> None:
    found = _one(name, with_metrics(group, **{key: None}), candidate())
    assert (found.passed, found.value) == (False, None)
    assert found.explanation.startswith("undefined: ")


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"cascade": {"f1": 0.5}}, "metrics.cascade.qps_ratio is missing"),
        ({"cascade": {"f1": "high", "qps_ratio": 1}}, "metrics.cascade.f1 = 'high': expected a number"),
        ({"cascade": {"f1": True, "qps_ratio": 1}}, "metrics.cascade.f1 = True: expected a number"),
    ],
)
def test_a_metric_that_is_absent_or_no_number_is_an_error(metrics: dict[str, Any], message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        check(candidate(metrics={**METRICS, **metrics}), None, GATE)


def test_a_champion_without_f1_does_not_block() -> None:
    found = _one("f1_drop", candidate(), with_metrics("cascade", f1=None))
    assert found.passed
    assert "the champion's F1 has no value" in found.explanation


def test_failures_are_one_line_and_the_report_survives_json() -> None:
    report = check(with_metrics("cascade", qps_ratio=90.0), None, GATE)
    assert report.failures == "qps_ratio: 90.0 % of traffic reach the MLLM; at most 60.0 % wanted"
    assert GateReport.model_validate_json(report.model_dump_json()) == report


@pytest.mark.parametrize(("auc", "passed"), [(0.39, False), (0.5, False), (0.501, True), (0.9, True)])
def test_the_base_model_must_beat_chance(auc: float, passed: bool) -> None:
    found = _one("base_auc", with_metrics("base", roc_auc=auc, roc_auc_interval={"low": 0.3, "high": 0.6}))
    assert (found.passed, found.value) == (passed, auc)
    assert "on 200 test videos, 95 % interval 30.0 to 60.0; above 50 wanted" in found.explanation
    assert ("check the labels" in found.explanation) is not passed


# a share of 0.1 is positive: flagging all reaches 2 · 0.1 / 1.1
@pytest.mark.parametrize(("f1", "passed"), [(0.18, False), (2 * 0.1 / 1.1, False), (0.19, True)])
def test_the_policy_must_beat_flagging_every_video(f1: float, passed: bool) -> None:
    found = _one("f1_over_guess", with_metrics("cascade", f1=f1))
    assert (found.passed, found.value) == (passed, pytest.approx(f1 - 0.2 / 1.1))
    assert "flagging every video 0.182" in found.explanation
    assert ("train longer" in found.explanation) is not passed


@pytest.mark.parametrize(("f1", "passed"), [(0.33, False), (0.64, False), (0.65, True)])
def test_the_policy_must_beat_the_metadata_shortcut(f1: float, passed: bool) -> None:
    cascade = {**METRICS["cascade"], "f1": f1}
    found = _one("f1_over_shortcut", candidate(metrics=METRICS | {"cascade": cascade, "shortcut": {"f1": 0.64}}))
    assert (found.passed, found.value) == (passed, pytest.approx(f1 - 0.64))
    assert ("encode the clips" in found.explanation) is not passed


def test_without_a_shortcut_there_is_nothing_to_compare_with() -> None:
    for metrics in (METRICS, METRICS | {"shortcut": None}):
        found = _one("f1_over_shortcut", candidate(metrics=metrics))
        assert (found.passed, found.value) == (True, None)


def test_yardsticks_can_be_switched_off() -> None:
    limits = {"min_base_auc": 0.0, "min_f1_over_guess": -1.0, "min_f1_over_shortcut": -1.0}
    cascade = {**METRICS["cascade"], "f1": 0.0}
    subject = candidate(
        metrics=METRICS | {"base": {**METRICS["base"], "roc_auc": 0.0}, "cascade": cascade, "shortcut": {"f1": 0.9}}
    )
    checks = {item.name: item.passed for item in check(subject, None, GATE.model_copy(update=limits)).checks}
    assert all(checks[name] for name in ("base_auc", "f1_over_guess", "f1_over_shortcut"))
