"""The report's first words: what a person should know before deciding, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from coefvq.cascade.audit_sample import planned
from coefvq.cascade.policy import CascadePolicy
from coefvq.reporting.html.decisions import Change, Per1000, Whole
from coefvq.reporting.html.figures import SHIFTED_PSI, Shift
from coefvq.reporting.html.inputs import Json

Tone = Literal["good", "caution", "bad", "plain"]

FEW_POSITIVES = 100
#: what the plan of an audit is told for
AUDIT_RATE, AUDITED_VIDEOS = 0.02, 20_000
#: points of F1 between validation and test from which a reader should ask why
F1_FALL = 5.0


@dataclass(frozen=True)
class Verdict:
    """One headline with its tone, and what it rests on."""

    tone: Tone
    headline: str
    reason: str


def verdict(gate: Sequence[Json] | None, against: Change | None, is_served: bool, served_name: str | None) -> Verdict:
    """What the gate and the comparison with the served pair amount to."""
    failed = [check for check in gate or () if not check["passed"]]
    if failed:
        reasons = "; ".join(f"{str(check['name']).replace('_', ' ')}: {check['explanation']}" for check in failed)
        return Verdict("bad", "The gate refuses this pair.", f"{reasons}. Releasing it anyway takes an override.")
    passed = "It passes the gate." if gate else "It was not held against a gate yet."
    if is_served:
        return Verdict("plain", "This pair is the one being served.", f"{passed} There is nothing to decide.")
    if against is None and served_name is None:
        text = "Nothing is served for this issue yet, so there is no comparison: judge the table below."
        return Verdict("caution", "First release: the figures are yours to judge.", f"{passed} {text}")
    if against is None:
        text = (
            f"{served_name} is served, but its scores of these test videos were not kept, so decisions cannot be "
            "compared one by one."
        )
        return Verdict("caution", "It can be released; compare the figures yourself.", f"{passed} {text}")
    spread = f"F1 {_spread(against)}, on the same test videos"
    if against.low > 0:
        return Verdict("good", f"Better than {served_name}.", f"{passed} {spread}.")
    if against.high < 0:
        return Verdict("bad", f"Worse than {served_name}.", f"{passed} {spread}.")
    return Verdict("caution", f"No clear difference from {served_name}.", f"{passed} {spread}: the interval holds 0.")


def sentences(now: Whole, everything: Whole, chosen: Json, traffic: int, positive: str) -> list[str]:
    """What the pair does to 1,000 videos, in three sentences.

    ``chosen`` is its policy's entry of thresholds.json, ``positive`` what people call a positive video.
    """
    calls, interval, asked = chosen["qps_ratio"], chosen.get("qps_ratio_interval"), ""
    if calls is not None:
        spread = "" if interval is None else f" (95 % interval {interval['low']:.1f} to {interval['high']:.1f})"
        asked = f"Of {traffic:,} videos as they arrive, {calls:.1f} %{spread} reach the MLLM. "
    return [
        f"{asked}Of 1,000 videos like those of the test set, {now.flagged} are flagged: "
        f"{now.right} rightly, {now.wrong} wrongly.",
        f"{now.missed} {positive} videos are missed: {now.missed_filtered} because the base model let them go, "
        f"{now.missed_rejected} because the MLLM did.",
        f"The MLLM on every video would flag {everything.right} rightly and {everything.wrong} wrongly, "
        f"with {everything.calls:,} calls instead of {now.calls}.",
    ]


def audit_plan(now: Per1000, positive: str) -> str:
    """What an audit stream of a usual size would tell, were the test figures true."""
    scale = AUDITED_VIDEOS / 1000.0
    # what the MLLM sees is labelled with the escalated videos: only the filtered-out ones are estimated
    passed = planned((now.right + now.missed_rejected) * scale, now.missed_filtered * scale, AUDIT_RATE)
    extra = AUDIT_RATE * (1000.0 - now.calls) / 10.0
    return (
        f"In production nobody labels what the base model lets go. Escalating {100 * AUDIT_RATE:g} % of it anyway "
        f"(vmp run --audit-rate {AUDIT_RATE:g}) adds {extra:.1f} % to the videos that reach the MLLM; after "
        f"{AUDITED_VIDEOS:,} videos the share of {positive} videos that pass the base filter, "
        f"{100 * passed.value:.0f} %, would be known to lie between {100 * passed.low:.0f} and "
        f"{100 * passed.high:.0f} %."
    )


def cautions(
    thresholds: Json, test: Per1000, over_base: Change, shifts: Sequence[Shift], stability: Json | None, synthetic: bool
) -> list[str]:
    """Reasons to be careful; empty when none applies."""
    found = []
    chosen = next(entry for entry in thresholds["policies"] if entry["selected"])
    asks_mllm = CascadePolicy.from_dict(thresholds["policy"]).asks_mllm
    if not asks_mllm:
        found.append("The base model alone is proposed: no video reaches the MLLM, whose gain does not pay here.")
    if test.positives < FEW_POSITIVES:
        found.append(
            f"Only {test.positives} of {test.n} test videos are positive: figures move by several points by chance."
        )
    if asks_mllm and not over_base.low > 0:
        found.append(
            f"The MLLM does not clearly earn its calls: against the base model alone F1 changes by "
            f"{_spread(over_base)}."
        )
    support = chosen.get("base_positives_val")
    if chosen["p_base"] is not None and support is not None and support < FEW_POSITIVES / 2:
        found.append(f"The base threshold rests on {support:.0f} positive validation videos above it.")
    unreachable = [f"{entry['p_base']:g}" for entry in thresholds["policies"] if not entry["reachable"]]
    if unreachable:
        found.append(
            f"P_base {', '.join(unreachable)} is unreachable: the base model never has that precision on validation."
        )
    fall = 100 * (chosen["val"]["f1"] - chosen["test"]["f1"])
    if fall > F1_FALL:
        found.append(f"F1 falls by {fall:.1f} points from validation, where thresholds were chosen, to test.")
    found += [
        f"{one.model} scores of {one.split} differ from validation (PSI {one.psi:.2f}, from {SHIFTED_PSI} shifted): "
        "thresholds may not fit."
        for one in shifts
        if one.reading == "shifted"
    ]
    if stability is not None and not stability["passed"]:
        found.append(
            f"Decisions are not stable: {100 * stability['flip_rate']:.2f} % of the videos near a threshold change "
            f"with how they are scored (limit {100 * stability['max_flip_rate']:.2f} %)."
        )
    if synthetic:
        found.append("The videos are rendered by the synthetic world: figures say nothing of real videos.")
    return found


def _spread(change: Change) -> str:
    return f"{signed(change.points)} points, 95 % interval {signed(change.low)} to {signed(change.high)}"


def signed(points: float) -> str:
    """Points with their sign, as print has it: −1.5."""
    return f"{points:+.1f}".replace("-", "\u2212")
