"""What a rules file decides about a scored video, and when that changes by itself. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

from coefvq.errors import ConfigError
from coefvq.extensions import RULE_FIELDS, extension
from coefvq.records import ScoredVideo
from coefvq.vmp.conditions import Facts
from coefvq.vmp.records import Candidate, Decision, Event
from coefvq.vmp.rules import WORDS, Rules, is_a, own_kind

DELETED = Decision("removed", "deleted")

#: the platform's own word about a video that no rule speaks of; the shipped rule of that name says the same
UNSCORED = Decision("ignored", "unscored")

_NO_FACTS: Facts = {}
#: a video without scores: one issue that could not be scored
_NOT_SCORED: list[tuple[ScoredVideo | None, bool]] = [(None, True)]


def decide(candidate: Candidate, rules: Rules, now: datetime) -> Decision:
    """Return the first rule's outcome that holds, or the default; a deletion is always ``removed``.

    A video that an issue could not score is live only by a rule with ``error == true``; else it is ``ignored``.

    Raises:
        ConfigError: a rule names an issue that is not scored; it could never hold.
    """
    if candidate.event.kind == "delete":
        return DELETED
    compiled, scores, lacks = rules.compiled, candidate.scores, candidate.features.error is not None
    if compiled.issues and scores:
        _check_issues(rules, scores)
    facts = _facts(candidate, now, rules) if compiled.takes_facts else _NO_FACTS
    seen, unscored = [], not scores
    for score in scores:
        error = lacks or score.error is not None
        seen.append((score, error))
        unscored = unscored or error
    for issue, tests, decision, takes_unscored, needs_error in compiled.rules:
        if not takes_unscored if unscored else needs_error:
            continue
        for one, error in seen or _NOT_SCORED:
            if one is not None and issue is not None and issue != one.issue:
                continue
            for test in tests:
                if not test(facts, one, error):
                    break
            else:
                return decision
    return UNSCORED if unscored and compiled.otherwise.outcome == "live" else compiled.otherwise


def _check_issues(rules: Rules, scores: Sequence[ScoredVideo]) -> None:
    """Refuse a rule about an issue that is not scored."""
    issues = [score.issue for score in scores]
    for rule in rules.rules:
        if rule.issue is not None and rule.issue not in issues:
            raise ConfigError(
                f"rule '{rule.name}': issue '{rule.issue}' is not scored; expected one of "
                f"{', '.join(issues)}: correct the rule or add --issue {rule.issue}"
            )


def changes_at(rules: Rules, event: Event, now: datetime) -> float | None:
    """Unix time after ``now`` at which a condition on ``age_hours`` holds or fails first; None if none will."""
    if event.published_at is None or event.kind == "delete":
        return None
    published = datetime.fromisoformat(event.published_at).timestamp()
    ages = {
        float(age)
        for rule in rules.rules
        for condition in rule.when
        if condition.field == "age_hours" and condition.op != "missing"
        for age in (condition.value if isinstance(condition.value, tuple) else (condition.value,))
    }
    # a second later, so that ">" and "<=" have changed too
    moments = [published + 3600.0 * age + 1.0 for age in ages]
    return min((moment for moment in moments if moment > now.timestamp()), default=None)


_OF_EVENTS: dict[str, Callable[[Event], Any]] = {
    "views": attrgetter("views"),
    "title": attrgetter("title"),
    "tags": attrgetter("stickers"),
    "title_length": lambda event: len(event.title),
    "creator_id": attrgetter("creator_id"),
    "duration_s": attrgetter("duration_s"),
}


def _facts(candidate: Candidate, now: datetime, rules: Rules) -> Facts:
    """The facts that the rules name and all issues share."""
    event = candidate.event
    facts = {field: _OF_EVENTS[field](event) for field in rules.shared_fields if field in _OF_EVENTS}
    if "age_hours" in rules.shared_fields:
        facts["age_hours"] = _age_hours(event.published_at, now)
    if rules.own_fields:
        facts |= _own_facts(event, rules.own_fields)
    for store, row in candidate.features.values.items():
        facts |= {f"{store}.{name}": value for name, value in row.items()}
    return facts


def _own_facts(event: Event, fields: Iterable[str]) -> dict[str, bool | float | str | None]:
    """Facts of packages about an event, of those fields that rules name; None is a missing fact."""
    facts = {}
    for field in fields:
        value = extension(RULE_FIELDS, field)(event)
        if value is not None and not is_a(own_kind(field), value):
            raise ConfigError(
                f"rule field {field!r}: returned {value!r:.60}; expected {WORDS[own_kind(field)]} or None"
            )
        facts[field] = value
    return facts


def _age_hours(published_at: str | None, now: datetime) -> float | None:
    if published_at is None:
        return None
    return (now - datetime.fromisoformat(published_at)).total_seconds() / 3600
