"""Approve, reject, roll back: the only ways a pair starts or stops being served.

Each action holds the store's lock, records its decision as pending, moves the aliases, and marks the
decision done. A crash in between leaves a pending decision; the next action of the issue carries it out
first, since every alias move can be repeated. A decision that was recorded is a decision.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from coefvq.config import Gate
from coefvq.errors import RegistryError
from coefvq.registry import gates, kept_pairs, pairs, tracking
from coefvq.registry import history as log
from coefvq.registry.bundle import Candidate
from coefvq.registry.gates import GateReport
from coefvq.registry.history import Action, Decision
from coefvq.registry.pair_files import require_models
from coefvq.registry.pairs import CHALLENGER, CHAMPION, RegisteredPair
from coefvq.registry.store import exclusive


@dataclass(frozen=True)
class Registration:
    """Outcome of ``register``; ``pair`` is None where the gate refused the candidate."""

    report: GateReport
    pair: RegisteredPair | None


def register(candidate: Candidate, params: Gate, *, keep_refused: bool = False) -> Registration:
    """Check the gate against the present champion, then register the candidate as challenger.

    Args:
        keep_refused: register a candidate that failed, too; approving it takes an override.

    Raises:
        RegistryError: a metric or a model is missing, or the store does not answer.
    """
    champion = pairs.aliases(candidate.issue).get(CHAMPION)
    before = None if champion is None else pairs.candidate_of(candidate.issue, champion)
    report = gates.check(candidate, before, params)
    keep = report.passed or keep_refused
    return Registration(report, pairs.register_candidate(candidate, report) if keep else None)


def approve(
    issue: str,
    by: str,
    reason: str,
    version: str | None = None,
    *,
    override: bool = False,
    flow_run_id: str | None = None,
) -> Decision:
    """Make the challenger (or ``version``) the champion.

    Args:
        override: approve although the gate refused it, or although it was decided on before.
        flow_run_id: a repeated call from the same flow run returns the decision that was made.

    Raises:
        RegistryError: name or reason is blank, nothing waits, it was decided on, the gate refused it, a
            model of the pair is gone, or the store does not answer.
    """
    name, why = log.checked_person(by, reason)
    with _deciding():
        repaired = _settled(issue)
        if again := _same(issue, repaired, "approve", version, flow_run_id):
            return again
        pair = _waiting(issue, version, override)
        _require_gate(pair, override)
        require_models(pair)
        decision = log.begin(
            issue,
            "approve",
            name,
            why,
            content_hash=pair.content_hash,
            from_version=pairs.aliases(issue).get(CHAMPION),
            to_version=pair.version,
            override=override,
            flow_run_id=flow_run_id,
        )
        return _done(_carry_out(decision))


def reject(issue: str, by: str, reason: str, version: str | None = None, *, flow_run_id: str | None = None) -> Decision:
    """Turn the challenger (or ``version``) down; the champion stays.

    Raises:
        RegistryError: name or reason is blank, nothing waits, it was decided on, or the store does not answer.
    """
    name, why = log.checked_person(by, reason)
    with _deciding():
        repaired = _settled(issue)
        if again := _same(issue, repaired, "reject", version, flow_run_id):
            return again
        pair = _waiting(issue, version, override=False)
        decision = log.begin(
            issue,
            "reject",
            name,
            why,
            content_hash=pair.content_hash,
            from_version=pair.version,
            to_version=None,
            flow_run_id=flow_run_id,
        )
        return _done(_carry_out(decision))


def rollback(issue: str, by: str, reason: str, *, flow_run_id: str | None = None) -> Decision:
    """Return to the champion before the present one; again, to the one before that.

    A version that was deleted meanwhile is passed over. Where the alias was moved by hand, the pair
    that the last decision made champion is returned to.

    Raises:
        RegistryError: name or reason is blank, there is nothing to return to, or the store does not answer.
    """
    name, why = log.checked_person(by, reason)
    with _deciding():
        repaired = _settled(issue)
        if again := _same(issue, repaired, "rollback", None, flow_run_id):
            return again
        champion = pairs.aliases(issue).get(CHAMPION)
        pair = _previous(issue, champion, log.decisions(issue))
        decision = log.begin(
            issue,
            "rollback",
            name,
            why,
            content_hash=pair.content_hash,
            from_version=champion,
            to_version=pair.version,
            flow_run_id=flow_run_id,
        )
        return _done(_carry_out(decision))


@contextmanager
def _deciding() -> Iterator[None]:
    """Hold the store's lock; then, without it, keep who is champion for processes that score."""
    with exclusive(tracking.store()):
        yield
    kept_pairs.keep_champions()


def history(issue: str | None = None) -> list[Decision]:
    """All decisions, oldest first; of one issue where given."""
    return log.decisions(issue)


def _settled(issue: str) -> Decision | None:
    """Carry out what a crash left pending; return the one repaired last.

    Every action begins with this, so what is pending is among the newest decisions.
    """
    repaired = [_carry_out(item) for item in log.newest(issue) if item.state == "pending"]
    return repaired[-1] if repaired else None


def _carry_out(decision: Decision) -> Decision:
    """Move the aliases as decided, then close the record; may be repeated at any point."""
    issue, version = decision.issue, decision.version
    if decision.action != "reject":
        found = pairs.find(issue, version)
        if found is None or found.content_hash != decision.content_hash:
            return log.close(decision, "failed")
        pairs.set_alias(issue, CHAMPION, version)
    if decision.action != "rollback":
        pairs.drop_challenger(issue, version)
    return log.close(decision, "done")


def _done(decision: Decision) -> Decision:
    if decision.state != "done":
        raise RegistryError(
            f"{decision.issue} version {decision.version} vanished while it was decided on; "
            "the decision is recorded as failed: `coefvq status` shows what there is"
        )
    return decision


def _same(
    issue: str, repaired: Decision | None, action: Action, version: str | None, flow_run_id: str | None
) -> Decision | None:
    """The decision this call repeats: that of the same flow run, or the very one just repaired."""
    for item in [] if flow_run_id is None else reversed(log.of_flow(issue, flow_run_id)):
        if (item.action, item.state) == (action, "done"):
            return item
    if repaired is None or repaired.state != "done" or repaired.action != action:
        return None
    # without a version, a challenger registered since the crash is what the caller means
    newer_waits = action != "rollback" and CHALLENGER in pairs.aliases(repaired.issue)
    return repaired if version == repaired.version or (version is None and not newer_waits) else None


def _waiting(issue: str, version: str | None, override: bool) -> RegisteredPair:
    chosen = version or pairs.aliases(issue).get(CHALLENGER)
    if chosen is None:
        last = next((item for item in reversed(log.newest(issue)) if item.action != "rollback"), None)
        told = f"; {_told(last)}" if last else f"; register one first: coefvq register --issue {issue}"
        raise RegistryError(f"no challenger waits for {issue}{told}")
    pair = pairs.find(issue, chosen)
    if pair is None:
        raise RegistryError(f"{issue} version {chosen} does not exist; `coefvq status` shows what waits")
    verdict = log.last_verdict(log.of_pair(issue, pair.content_hash), pair.version, pair.content_hash)
    if verdict is not None and not override:
        raise RegistryError(f"{issue}: {_told(verdict)}; register a new candidate, or override with a reason")
    return pair


def _told(decision: Decision) -> str:
    done = {"approve": "approved", "reject": "rejected", "rollback": "rolled back to"}[decision.action]
    return f"version {decision.version} was {done} by {decision.by} at {decision.at}"


def _require_gate(pair: RegisteredPair, override: bool) -> None:
    if override:
        return
    if pair.gate is None:
        raise RegistryError(
            f"{pair.issue} version {pair.version}: its gate report is not there or not readable; hold it against the "
            f"gate again: coefvq register --issue {pair.issue}, or approve with --override and say why"
        )
    if not pair.gate.passed:
        raise RegistryError(
            f"{pair.issue} version {pair.version}: the gate refused it ({pair.gate.failures}); "
            "reject it, or approve with --override and say why"
        )


def _previous(issue: str, champion: str | None, past: Sequence[Decision]) -> RegisteredPair:
    stack = log.champion_stack(past)
    below = stack[:-1] if stack and stack[-1][0] == champion else stack
    for version, content_hash in reversed(below):
        pair = pairs.find(issue, version)
        if pair is not None and pair.content_hash == content_hash and version != champion:
            require_models(pair)
            return pair
    shown = f"version {champion} has no approved pair before it" if champion else "nothing was approved yet"
    raise RegistryError(f"{issue}: nothing to roll back to: {shown}; approve a challenger instead")
