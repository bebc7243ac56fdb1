"""What a rules file decides about a scored video, and when that changes by itself. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from coefvq.errors import ConfigError
from coefvq.extensions import RULE_FIELDS, extension
from coefvq.records import ScoredVideo
from coefvq.vmp.records import Candidate, Decision, Event
from coefvq.vmp.rules import WORDS, Condition, Rules, is_a, own_kind

DELETED = Decision("removed", "deleted")

#: the platform's own word about a video that no rule speaks of; the shipped rule of that name says the same
UNSCORED = Decision("ignored", "unscored")

Facts = Mapping[str, bool | float | str | tuple[str, ...] | None]

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda fact, value: fact == value,
    "!=": lambda fact, value: fact != value,
    "<": lambda fact, value: fact < value,
    "<=": lambda fact, value: fact <= value,
    ">": lambda fact, value: fact > value,
    ">=": lambda fact, value: fact >= value,
    "in": lambda fact, value: fact in value,
    "matches": lambda fact, value: re.search(value, fact) is not None,
    "contains": lambda fact, value: value in fact,
}


def decide(candidate: Candidate, rules: Rules, now: datetime) -> Decision:
    """Return the first rule's outcome that holds, or the default; a deletion is always ``removed``.

    A video that an issue could not score is live only by a rule with ``error == true``; else it is ``ignored``.

    Raises:
        ConfigError: a rule names an issue that is not scored; it could never hold.
    """
    if candidate.event.kind == "delete":
        return DELETED
    facts = _facts_by_issue(candidate, now, rules.own_fields)
    for rule in rules.rules:
        if rule.issue is not None and candidate.scores and rule.issue not in facts:
            raise ConfigError(
                f"rule '{rule.name}': issue '{rule.issue}' is not scored; expected one of "
                f"{', '.join(facts)}: correct the rule or add --issue {rule.issue}"
            )
    unscored = any(one.get("error") is True for one in facts.values())
    for rule in rules.rules:
        if unscored and rule.then == "live" and not rule.takes_unscored:
            continue
        seen = facts.values() if rule.issue is None or not candidate.scores else [facts[rule.issue]]
        if any(all(_holds(condition, one) for condition in rule.when) for one in seen):
            return Decision(rule.then, rule.name)
    if unscored and rules.default == "live":
        return UNSCORED
    return Decision(rules.default, "default")


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


def _facts_by_issue(candidate: Candidate, now: datetime, own_fields: Iterable[str]) -> dict[str, Facts]:
    event = candidate.event
    common: dict[str, float | str | tuple[str, ...] | None] = {
        "views": event.views,
        "title": event.title,
        "tags": event.stickers,
        "title_length": len(event.title),
        "age_hours": _age_hours(event.published_at, now),
        "creator_id": event.creator_id,
        "duration_s": event.duration_s,
        **_own_facts(event, own_fields),
        **{f"{store}.{name}": value for store, row in candidate.features.values.items() for name, value in row.items()},
    }
    if not candidate.scores:
        return {"": {**common, "error": True}}
    lacks = candidate.features.error is not None
    return {
        score.issue: {**common, **_score_facts(score), "error": lacks or score.error is not None}
        for score in candidate.scores
    }


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


def _score_facts(score: ScoredVideo) -> dict[str, bool | float | str | None]:
    return {
        "positive": score.positive,
        "base_score": score.base_score,
        "mllm_score": score.mllm_score,
        "decided_by": score.decided_by,
    }


def _age_hours(published_at: str | None, now: datetime) -> float | None:
    if published_at is None:
        return None
    return (now - datetime.fromisoformat(published_at)).total_seconds() / 3600


def _holds(condition: Condition, facts: Facts) -> bool:
    fact = facts.get(condition.field)
    if condition.op == "missing":
        return (fact is None) is condition.value
    return fact is not None and _COMPARE[condition.op](fact, condition.value)
