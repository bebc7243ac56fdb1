"""Conditions that a pair must meet to be better than nothing: than chance, than flagging all, than the file's facts."""

from __future__ import annotations

from coefvq.registry.bundle import Candidate
from coefvq.registry.gate_report import SLACK, GateCheck, interval_text, metric, undefined

CHANCE, GUESS, SHORTCUT = "base_auc", "f1_over_guess", "f1_over_shortcut"


def over_chance(candidate: Candidate, limit: float) -> GateCheck:
    """The base model's ROC-AUC on test; it decides alone about all that it lets go."""
    auc, n = metric(candidate, "base", "roc_auc"), metric(candidate, "base", "n")
    if auc is None:
        return undefined(CHANCE, limit, "the test split has no positives or no negatives")
    passed = auc > limit + SLACK or limit <= 0.0
    spread = interval_text(candidate.metrics["base"], "roc_auc_interval", 100.0)
    remedy = "" if passed else "; check the labels, label more, or choose another base model (base in recipe.yaml)"
    on = f"on {n:.0f} test videos" if n is not None else "on test"
    return GateCheck(
        name=CHANCE,
        passed=passed,
        value=auc,
        limit=limit,
        explanation=(
            f"base model's AUC {100 * auc:.1f} {on}{spread}; above {100 * limit:g} wanted, chance is 50{remedy}"
        ),
    )


def over_guess(candidate: Candidate, limit: float) -> GateCheck:
    """The policy's F1 minus 2π/(1+π), the F1 of flagging every video where a share π is positive."""
    mine, share = metric(candidate, "cascade", "f1"), metric(candidate, "cascade", "prevalence")
    if mine is None or share is None:
        return undefined(GUESS, limit, "an F1 has no value")
    guess = 2.0 * share / (1.0 + share)
    remedy = "check the labels, label more, or train longer"
    return _compared(GUESS, mine, guess, limit, f"flagging every video {guess:.3f}", remedy)


def over_shortcut(candidate: Candidate, limit: float) -> GateCheck:
    """The policy's F1 minus that of a classifier that sees size, bitrate, duration and shape of the file only."""
    shortcut = candidate.metrics.get("shortcut")
    mine = metric(candidate, "cascade", "f1")
    if mine is None:
        return undefined(SHORTCUT, limit, "the cascade's F1 has no value")
    if not isinstance(shortcut, dict):
        why = f"F1 {mine:.3f}; no metadata shortcut was measured, nothing to compare with"
        return GateCheck(name=SHORTCUT, passed=True, value=None, limit=limit, explanation=why)
    facts = metric(candidate, "shortcut", "f1")
    if facts is None:
        return undefined(SHORTCUT, limit, "an F1 has no value")
    remedy = "encode the clips of both classes alike, or take both from the same sources, and train again"
    return _compared(SHORTCUT, mine, facts, limit, f"the file's size, bitrate and shape alone {facts:.3f}", remedy)


def _compared(name: str, mine: float, other: float, limit: float, what: str, remedy: str) -> GateCheck:
    passed = mine - other > limit + SLACK
    return GateCheck(
        name=name,
        passed=passed,
        value=mine - other,
        limit=limit,
        explanation=(
            f"F1 {mine:.3f}, {what}: {100 * (mine - other):+.1f} points; more than {100 * limit:g} wanted"
            f"{'' if passed else f'; {remedy}'}"
        ),
    )
