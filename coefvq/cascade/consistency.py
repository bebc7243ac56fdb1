"""What figures of a cascade must satisfy among themselves, whatever the models are.

With prevalence π, and R and P the base model's recall and precision at its threshold on one set of videos:

- **cost**: the share of MLLM calls on that set is π · R / P, since R · π of all videos are escalated positives
  and they are the share P of the escalated;
- **ceiling**: where filtered-out videos are negatives and nothing but the base score escalates, no recall of
  the cascade, at any precision, exceeds R;
- **order**: R@P does not rise with P, and calls do not rise with the base threshold.

``audit_issue`` holds the reports of an issue to this. The paper's own tables are in ``paper_audit``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from coefvq.cascade.policy import threshold_text

# both sides are computed from the same sums in another order; prints of the reports are not rounded
TOLERANCE = 1e-9

Verdict = Literal["holds", "broken", "not asked"]


@dataclass(frozen=True)
class Finding:
    """One check: which rule, where, what it says in words; ``expected`` and ``found`` where they are numbers."""

    rule: str
    where: str
    verdict: Verdict
    explanation: str
    expected: float | None = None
    found: float | None = None


@dataclass(frozen=True)
class Interval:
    """A closed interval; empty when ``low > high``."""

    low: float
    high: float

    def intersect(self, other: Interval) -> Interval:
        """What both hold."""
        return Interval(max(self.low, other.low), min(self.high, other.high))

    @property
    def empty(self) -> bool:
        """Whether nothing is in it."""
        return self.low > self.high


def expected_qps_ratio(prevalence: float, base_recall: float, base_precision: float) -> float:
    """MLLM calls per 100 videos: 100 · π · R / P; all arguments are shares."""
    return 100.0 * prevalence * base_recall / base_precision


def implied_prevalence(
    qps_ratio: float, base_precision: float, base_recall: float, qps_rounding: float = 0.0, recall_rounding: float = 0.0
) -> Interval:
    """Prevalences π = QPS · P / R that figures rounded to ± the given amounts allow.

    Args:
        qps_ratio: percent, as ``qps_rounding``.
        base_precision: share; taken as exact, since it is a target and not a measurement.
        base_recall: share, as ``recall_rounding``.
    """
    low = (qps_ratio - qps_rounding) / 100.0 * base_precision / min(base_recall + recall_rounding, 1.0)
    high = (qps_ratio + qps_rounding) / 100.0 * base_precision / (base_recall - recall_rounding)
    return Interval(low, high)


def best_f1_bound(recall_at: Mapping[float, float]) -> float:
    """The F1 that some point of R@P alone reaches, so no best F1 is below it; percent in, percent out."""
    return max(2.0 * p * r / (p + r) for p, r in recall_at.items() if p + r > 0.0)


def audit_issue(evaluation: Mapping[str, Any], thresholds: Mapping[str, Any]) -> list[Finding]:
    """Hold ``evaluation.json`` and ``thresholds.json`` of one issue to the rules.

    Checked exactly on val and test, where recall and precision of the base model are known; on traffic,
    which has no labels, the cost rule gives the prevalence it would take, for a person to judge.
    """
    issue = str(thresholds["issue"])
    entries = [entry for entry in thresholds["policies"] if entry.get("policy")]
    findings = [finding for entry in entries for finding in _policy_findings(issue, entry)]
    findings += _falling_calls(issue, entries)
    for split in ("val", "test", "test_posterior"):
        models = evaluation.get(split) or {}
        for name in ("base", "mllm"):
            if models.get(name):
                findings.append(_falling_recall(f"{issue} {split} {name}", recalls(models[name])))
    return findings


def recalls(summary: Mapping[str, Any]) -> dict[float, float | None]:
    """P in percent -> R@P as a share (None: not reached), from a summary's keys ``r_at_p<P>``."""
    prefix = "r_at_p"
    # a key such as r_at_p60_interval carries no recall
    found = {key.removeprefix(prefix): value for key, value in summary.items() if key.startswith(prefix)}
    return {float(key): value for key, value in found.items() if key.replace(".", "", 1).isdigit()}


def _policy_findings(issue: str, entry: Mapping[str, Any]) -> Iterator[Finding]:
    policy = entry["policy"]
    p_base = entry["p_base"]
    where = f"{issue} P_base {'none' if p_base is None else format(p_base, 'g')}"
    other = _other_ways(policy)
    yield _cost(f"{where} val", entry, other)
    yield from _traffic(f"{where} traffic", entry, other)
    for split, recall in (("val", entry.get("base_recall_val")), ("test", entry.get("base_recall_test"))):
        summary = entry.get(split)
        if summary and recall is not None:
            yield _ceiling(f"{where} {split}", summary, recall, other)
            yield _falling_recall(f"{where} {split}", recalls(summary))


def _other_ways(policy: Mapping[str, Any]) -> str | None:
    """How a video can become positive, or be escalated, other than by base score and MLLM; None if it cannot."""
    if policy.get("views_trigger") is not None:
        return f"videos with {policy['views_trigger']} views are escalated whatever their base score"
    if policy.get("filtered", "negative") != "negative":
        return f"filtered-out videos mean '{policy['filtered']}', not negative"
    if policy.get("accept_threshold") is not None:
        return "the base model accepts videos without the MLLM"
    return None


def _cost(where: str, entry: Mapping[str, Any], other: str | None) -> Finding:
    found = entry.get("qps_ratio_val")
    summary = entry.get("val")
    if other is not None or found is None or not summary or not entry["base_precision_val"]:
        return Finding("cost", where, "not asked", f"does not apply: {other}" if other else "no figures")
    precision, recall, prevalence = entry["base_precision_val"], entry["base_recall_val"], summary["prevalence"]
    expected = expected_qps_ratio(prevalence, recall, precision)
    text = f"{found:.2f} % of calls; π·R/P = {prevalence:.4f} · {recall:.4f} / {precision:.4f} = {expected:.2f} %"
    return Finding("cost", where, _verdict(abs(found - expected) <= 1e-6), text, expected, float(found))


def _traffic(where: str, entry: Mapping[str, Any], other: str | None) -> Iterator[Finding]:
    """No verdict: traffic has no labels, so a person must say whether the prevalence it would take is likely."""
    calls, summary = entry.get("qps_ratio"), entry.get("val")
    if other is not None or calls is None or not summary or not entry["base_recall_val"]:
        return
    allowed = implied_prevalence(calls, entry["base_precision_val"], entry["base_recall_val"])
    text = (
        f"{calls:.2f} % of calls; with the base model as on validation that is a prevalence of {allowed.low:.4f} "
        f"(validation: {summary['prevalence']:.4f})"
    )
    yield Finding("cost", where, "not asked", text, float(summary["prevalence"]), allowed.low)


def _ceiling(where: str, summary: Mapping[str, Any], base_recall: float, other: str | None) -> Finding:
    if other is not None:
        return Finding("ceiling", where, "not asked", f"does not apply: {other}")
    reached = [value for value in (*recalls(summary).values(), summary.get("recall")) if value is not None]
    highest = max(reached, default=0.0)
    text = f"highest recall {100 * highest:.1f} %, base recall at its threshold {100 * base_recall:.1f} %"
    return Finding("ceiling", where, _verdict(highest <= base_recall + TOLERANCE), text, base_recall, highest)


def _falling_recall(where: str, recall_at: Mapping[float, float | None]) -> Finding:
    # not reached is a recall of 0
    values = [recall_at[target] or 0.0 for target in sorted(recall_at)]
    text = ", ".join(f"R@P{target:g} {100 * (recall_at[target] or 0.0):.1f}" for target in sorted(recall_at))
    return Finding("order of R@P", where, _verdict(_falls(values)), text or "no R@P")


def _falling_calls(issue: str, entries: Sequence[Mapping[str, Any]]) -> list[Finding]:
    found = []
    for key, split in (("qps_ratio_val", "val"), ("qps_ratio", "traffic")):
        rows = sorted(
            (float(entry["policy"]["base_threshold"]), float(entry[key]))
            for entry in entries
            if entry.get(key) is not None
        )
        if len(rows) > 1:
            text = "; ".join(f"{calls:.2f} % from {threshold_text(threshold)}" for threshold, calls in rows)
            verdict = _verdict(_falls([calls for _, calls in rows]))
            found.append(Finding("order of calls", f"{issue} {split}", verdict, text))
    return found


def _falls(values: Iterable[float]) -> bool:
    listed = list(values)
    return all(after <= before + TOLERANCE for before, after in pairwise(listed))


def _verdict(holds: bool) -> Verdict:
    return "holds" if holds else "broken"
