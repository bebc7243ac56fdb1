"""What became of the paper's claims: each is about two rows and is judged by an interval, never by a point.

"holds" needs an interval that lies wholly on the claim's side, "does not hold" one that lies wholly on the other
side; in between nobody can tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from coefvq.evaluation.intervals import Interval
from coefvq.experiments.grid import ClaimSpec, TableSpec
from coefvq.experiments.measure import Measured
from coefvq.experiments.scores import Row

Verdict = Literal["holds", "does not hold", "can't tell"]


def verdict(found: Interval, bound: float) -> Verdict:
    """Of the claim that a quantity exceeds ``bound``."""
    if found.low is None or found.high is None:
        return "can't tell"
    if found.low > bound:
        return "holds"
    return "does not hold" if found.high < bound else "can't tell"


def judged(table: TableSpec, issue: str, measured: Measured, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One JSON-ready entry per claim about this issue; a claim about a missing row has no interval and a reason.

    ``kind`` says what ``value``, ``low`` and ``high`` are: a difference or a gain in shares, or a ratio.
    ``paper`` is the same quantity from the paper's figures, None where it has none.
    """
    printed = {row.name: row.paper or {} for row in rows}
    return [_entry(claim, measured, printed) for claim in table.claims if claim.issues is None or issue in claim.issues]


def _entry(claim: ClaimSpec, measured: Measured, printed: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    kind = "ratio" if claim.kept is not None else "gain" if claim.than is not None else "difference"
    bound = claim.kept or 0.0
    entry = {
        "claim": claim.text,
        "of_the_paper": claim.paper,
        "figure": claim.figure,
        "kind": kind,
        "bound": bound,
        "paper": _of_the_paper(claim, printed),
    }
    needed = (claim.better, claim.worse, *(claim.than or ()))
    missing = [name for name in needed if name not in measured.values]
    if missing or claim.figure not in measured.figures:
        reason = f"row {missing[0]} is missing" if missing else f"{claim.figure} is not measured"
        return {**entry, **Interval(None, None, None).to_dict(), "verdict": "can't tell", "reason": reason}
    found = _quantity(claim, measured)
    return {**entry, **found.to_dict(), "verdict": verdict(found, bound), "reason": None}


def _quantity(claim: ClaimSpec, measured: Measured) -> Interval:
    if claim.kept is not None:
        return measured.ratio(claim.better, claim.worse, claim.figure)
    if claim.than is not None:
        return measured.gain((claim.better, claim.worse), claim.than, claim.figure)
    return measured.difference(claim.better, claim.worse, claim.figure)


def _of_the_paper(claim: ClaimSpec, printed: Mapping[str, Mapping[str, float]]) -> float | None:
    def known(name: str) -> float | None:
        value = printed.get(name, {}).get(claim.figure)
        return None if value is None else value / 100.0

    values = [known(name) for name in (claim.better, claim.worse, *(claim.than or ()))]
    if any(value is None for value in values):
        return None
    better, worse, *than = [float(value) for value in values if value is not None]
    if claim.kept is not None:
        return better / worse
    return better - worse - (than[0] - than[1] if than else 0.0)
