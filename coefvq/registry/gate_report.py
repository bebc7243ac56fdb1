"""What the gate answers with, and how its checks read a candidate's figures."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from coefvq.errors import RegistryError
from coefvq.registry.bundle import Candidate

# what is equal on paper (0.80 - 0.75 against a limit of 0.05) must not fail on the last bit
SLACK = 1e-9


class GateCheck(BaseModel):
    """One condition; ``value`` is None where it is undefined or there is nothing to compare with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    passed: bool
    value: float | None
    limit: float
    explanation: str


class GateReport(BaseModel):
    """All conditions; ``passed`` when every one is met."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    passed: bool
    checks: tuple[GateCheck, ...]

    @property
    def failed(self) -> frozenset[str]:
        """Names of the failed checks."""
        return frozenset(check.name for check in self.checks if not check.passed)

    @property
    def failures(self) -> str:
        """The failed checks in one line."""
        return "; ".join(f"{check.name}: {check.explanation}" for check in self.checks if not check.passed)


def undefined(name: str, limit: float, why: str) -> GateCheck:
    """A check without a value fails."""
    return GateCheck(name=name, passed=False, value=None, limit=limit, explanation=f"undefined: {why}")


def metric(candidate: Candidate, group: str, key: str) -> float | None:
    """One figure; None where it is undefined.

    Raises:
        RegistryError: it is not in the candidate, or is no number.
    """
    try:
        value = candidate.metric(group, key)
    except KeyError as error:
        raise RegistryError(
            f"candidate of {candidate.issue}: metrics.{group}.{key} is missing; the gate needs it: "
            "run the evaluate and candidate stages again"
        ) from error
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RegistryError(f"candidate of {candidate.issue}: metrics.{group}.{key} = {value!r}: expected a number")
    return float(value)


def interval_text(group: object, key: str, factor: float) -> str:
    """``, 95 % interval 1.0 to 2.0`` of ``group[key]`` times ``factor``; empty for a candidate made without it."""
    interval = group.get(key) if isinstance(group, dict) else None
    if not isinstance(interval, dict):
        return ""
    low, high = interval.get("low"), interval.get("high")
    if not isinstance(low, float) or not isinstance(high, float):
        return ""
    return f", 95 % interval {factor * low:.1f} to {factor * high:.1f}"
