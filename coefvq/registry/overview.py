"""What every issue serves, what waits for a person, and what is wrong with either."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coefvq.errors import RegistryError
from coefvq.registry import history as log
from coefvq.registry import pairs
from coefvq.registry.history import Decision
from coefvq.registry.pair_files import require_models
from coefvq.registry.pairs import CHALLENGER, CHAMPION, RegisteredPair


@dataclass(frozen=True)
class IssueStatus:
    """What an issue serves and what waits.

    ``moved_by_hand``: the alias does not point to the pair the last decision made champion. ``missing``: what the
    store has lost of the champion or the challenger, in one line.
    """

    issue: str
    champion: RegisteredPair | None
    challenger: RegisteredPair | None
    last: Decision | None
    pending: bool
    moved_by_hand: bool
    missing: str | None


def status() -> list[IssueStatus]:
    """Champion, challenger and last decision of every issue that has a registered pair."""
    past = log.decisions()
    return [_status(issue, [item for item in past if item.issue == issue]) for issue in pairs.issues()]


def _status(issue: str, past: Sequence[Decision]) -> IssueStatus:
    now = pairs.aliases(issue)
    stack = log.champion_stack(past)
    pending = any(item.state == "pending" for item in past)
    champion, challenger = (pairs.find(issue, now[name]) if name in now else None for name in (CHAMPION, CHALLENGER))
    on = None if champion is None else (champion.version, champion.content_hash)
    return IssueStatus(
        issue=issue,
        champion=champion,
        challenger=challenger,
        last=past[-1] if past else None,
        pending=pending,
        moved_by_hand=not pending and on != (stack[-1] if stack else None),
        missing=next(filter(None, map(_missing, filter(None, (champion, challenger)))), None),
    )


def _missing(pair: RegisteredPair) -> str | None:
    try:
        require_models(pair)
    except RegistryError as error:
        return str(error)
    return None
