"""Tables of `coefvq status` and `history` as a terminal shows them: nothing is cut off in 80 columns."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console
from rich.table import Table

from coefvq.cli.registry import history_table, status_table
from coefvq.registry.history import Decision
from coefvq.registry.overview import IssueStatus
from coefvq.registry.pairs import RegisteredPair

HASH = "61c945d70c3e" + "0" * 52
PERSON, REASON = "maria.schneider@example.com", "recall up 4 points on fights in crowds, no new false alarms"
APPROVED = Decision.model_validate(
    {
        "sequence": 12,
        "at": "2026-11-29T08:01:30.000+00:00",
        "by": PERSON,
        "reason": REASON,
        "action": "approve",
        "issue": "unoriginal_content",
        "from_version": "1",
        "to_version": "2",
        "content_hash": HASH,
        "override": True,
        "state": "pending",
    }
)


def printed(table: Table, width: int) -> list[str]:
    console = Console(width=width, file=StringIO(), record=True)
    console.print(table)
    return console.export_text().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_status_shows_bundles_whole(width: int) -> None:
    pairs = [RegisteredPair("unoriginal_content", version, HASH, None) for version in ("2", "3")]
    lines = printed(status_table([IssueStatus("unoriginal_content", *pairs, APPROVED, True, False, None)]), width)
    assert "…" not in "".join(lines)
    assert any("unoriginal_content" in line and "2-61c945d70c3e  3-61c945d70c3e" in line for line in lines)
    last = lines[1].index("last decision")
    assert PERSON in "".join(line[last:].strip() for line in lines)


@pytest.mark.parametrize("width", [80, 120])
def test_history_shows_time_person_and_reason_whole(width: int) -> None:
    lines = printed(history_table([APPROVED]), width)
    assert "…" not in "".join(lines)
    assert max(map(len, lines)) <= width
    last = lines[1].index("by: reason")
    said = "".join(line[last:].ljust(width - last) for line in lines[3:])
    assert f"{PERSON}: {REASON}".replace(" ", "") == said.replace(" ", "")
    assert "2026-11-29 08:01" in lines[3]
    assert "(override," in "".join(lines)
    assert "pending)" in "".join(lines)
