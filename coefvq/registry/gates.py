"""Conditions a candidate must meet before a person is asked to approve it. Pure.

Metrics read, all on the test split (of a re-tuned pair: on the fresh labels) unless it says otherwise:
``base.roc_auc``, ``base.n``, ``mllm.average_precision``, ``mllm.prevalence``, ``mllm.n``, ``cascade.f1``,
``cascade.prevalence``, ``mllm.f1``, ``base.f1`` and, where it was measured, ``shortcut.f1`` (shares),
``cascade.qps_ratio`` (percent of traffic), ``stability.n`` and ``stability.flip_rate`` (share of the videos nearest to
a threshold). A metric may be null where it is undefined, which fails its check; a metric that is not there at all is an
error.
"""

from __future__ import annotations

from coefvq.config import Gate
from coefvq.registry.bundle import Candidate
from coefvq.registry.gate_report import SLACK, GateCheck, GateReport, interval_text, metric, undefined
from coefvq.registry.yardsticks import over_chance, over_guess, over_shortcut

__all__ = ["GateCheck", "GateReport", "check"]


def check(candidate: Candidate, champion: Candidate | None, params: Gate) -> GateReport:
    """Hold a candidate against the gate of params.yaml and, on the same test data, against the champion.

    Raises:
        RegistryError: a metric is not in the candidate.
    """
    checks = (
        over_chance(candidate, params.min_base_auc),
        _average_precision(candidate, params),
        _qps_ratio(candidate, params),
        _kept_f1(candidate, params),
        _over_base(candidate, params),
        over_guess(candidate, params.min_f1_over_guess),
        over_shortcut(candidate, params.min_f1_over_shortcut),
        *(_own_metric(candidate, name, limit) for name, limit in params.min_metrics.items()),
        _f1(candidate, champion, params),
        _flip_rate(candidate, params),
    )
    return GateReport(passed=all(item.passed for item in checks), checks=checks)


def _average_precision(candidate: Candidate, params: Gate) -> GateCheck:
    limit = params.min_average_precision_gain
    reached = metric(candidate, "mllm", "average_precision")
    chance = metric(candidate, "mllm", "prevalence")
    n = metric(candidate, "mllm", "n")
    if reached is None or chance is None:
        return undefined("average_precision_gain", limit, "the test split has no positives or no negatives")
    on = f"on {n:.0f} test videos" if n is not None else "on test"
    return GateCheck(
        name="average_precision_gain",
        passed=reached - chance >= limit - SLACK,
        value=reached - chance,
        limit=limit,
        explanation=f"MLLM {reached:.3f} {on}, guessing {chance:.3f}; at least {limit:+.3f} wanted",
    )


def _qps_ratio(candidate: Candidate, params: Gate) -> GateCheck:
    limit = params.max_qps_ratio
    ratio = metric(candidate, "cascade", "qps_ratio")
    if ratio is None:
        return undefined("qps_ratio", limit, "the traffic split is empty")
    return GateCheck(
        name="qps_ratio",
        passed=ratio <= limit + SLACK,
        value=ratio,
        limit=limit,
        explanation=(
            f"{ratio:.1f} % of traffic reach the MLLM{_share_interval(candidate)}; at most {limit:.1f} % wanted"
        ),
    )


def _kept_f1(candidate: Candidate, params: Gate) -> GateCheck:
    limit = params.min_kept_f1
    mine, mllm = metric(candidate, "cascade", "f1"), metric(candidate, "mllm", "f1")
    if mine is None or mllm is None:
        return undefined("kept_f1", limit, "an F1 has no value")
    kept = mine / mllm if mllm else 1.0
    alone = f"; allow more MLLM calls, improve the base model, or release it alone ({_alone(candidate)})"
    remedy = "" if kept >= limit - SLACK else alone
    return GateCheck(
        name="kept_f1",
        passed=kept >= limit - SLACK,
        value=kept,
        limit=limit,
        explanation=(
            f"F1 {mine:.3f} is {100 * kept:.1f} % of the MLLM's on every video ({mllm:.3f})"
            f"{_interval(candidate, 'kept_f1')}; at least {100 * limit:g} % wanted{remedy}"
        ),
    )


def _over_base(candidate: Candidate, params: Gate) -> GateCheck:
    limit = params.min_f1_over_base
    mine, base = metric(candidate, "cascade", "f1"), metric(candidate, "base", "f1")
    if mine is None or base is None:
        return undefined("f1_over_base", limit, "an F1 has no value")
    passed = mine - base >= limit - SLACK
    remedy = "" if passed else f"; release the base model alone ({_alone(candidate)}) or train again"
    return GateCheck(
        name="f1_over_base",
        passed=passed,
        value=mine - base,
        limit=limit,
        explanation=(
            f"F1 {mine:.3f}, base model alone {base:.3f}: {100 * (mine - base):+.1f} points"
            f"{_interval(candidate, 'f1_over_base')}; at least {100 * limit:+g} wanted{remedy}"
        ),
    )


def _alone(candidate: Candidate) -> str:
    """The setting that releases the base model without its MLLM."""
    return f"thresholds.{candidate.issue}.policy: base, in mode qps"


def _interval(candidate: Candidate, key: str) -> str:
    """Its 95 % interval on test in percent; empty for a candidate that was made before intervals were kept."""
    return interval_text(candidate.metrics.get("against_models"), key, 100.0)


def _share_interval(candidate: Candidate) -> str:
    """The 95 % interval of the share of calls on traffic; likewise."""
    return interval_text(candidate.metrics.get("cascade"), "qps_ratio_interval", 1.0)


def _own_metric(candidate: Candidate, name: str, limit: float) -> GateCheck:
    """A package's figure of the policy on test."""
    value = metric(candidate, "cascade", name)
    if value is None:
        return undefined(name, limit, "the metric has no value on test")
    return GateCheck(
        name=name,
        passed=value >= limit - SLACK,
        value=value,
        limit=limit,
        explanation=f"{name} {value:.4g} on test; at least {limit:g} wanted",
    )


def _f1(candidate: Candidate, champion: Candidate | None, params: Gate) -> GateCheck:
    limit = params.max_f1_drop
    reached = metric(candidate, "cascade", "f1")
    if reached is None:
        return undefined("f1_drop", limit, "the cascade's F1 has no value")
    if champion is None:
        return _not_compared(limit, f"F1 {reached:.3f}; no champion yet, nothing to compare with")
    if not _same_test(candidate, champion):
        return _not_compared(limit, f"F1 {reached:.3f}; not comparable: the champion was tested on other data")
    before = candidate.retuned.champion_f1 if candidate.retuned else metric(champion, "cascade", "f1")
    if before is None:
        return _not_compared(limit, f"F1 {reached:.3f}; not comparable: the champion's F1 has no value")
    videos = "fresh labels" if candidate.retuned else "test data"
    return GateCheck(
        name="f1_drop",
        passed=before - reached <= limit + SLACK,
        value=before - reached,
        limit=limit,
        explanation=f"F1 {reached:.3f}, champion {before:.3f} on the same {videos}; a drop of {limit:.3f} is allowed",
    )


def _same_test(candidate: Candidate, champion: Candidate) -> bool:
    """Whether both have an F1 on the same videos: a re-tuned pair knows that of the champion it came from."""
    if candidate.retuned is not None:
        return candidate.retuned.content_hash == champion.content_hash
    return champion.retuned is None and (champion.data.manifest_sha256, champion.data.splits_sha256) == (
        candidate.data.manifest_sha256,
        candidate.data.splits_sha256,
    )


def _flip_rate(candidate: Candidate, params: Gate) -> GateCheck:
    limit = params.max_flip_rate
    rate, n = metric(candidate, "stability", "flip_rate"), metric(candidate, "stability", "n")
    if rate is None or n is None:
        return undefined("flip_rate", limit, "no video was scored again")
    return GateCheck(
        name="flip_rate",
        passed=rate <= limit + SLACK,
        value=rate,
        limit=limit,
        explanation=(
            f"{100 * rate:.2f} % of the {n:.0f} videos nearest to a threshold change sides with batch, padding, "
            f"threads or decoding; at most {100 * limit:.2f} % wanted"
        ),
    )


def _not_compared(limit: float, explanation: str) -> GateCheck:
    return GateCheck(name="f1_drop", passed=True, value=None, limit=limit, explanation=explanation)
