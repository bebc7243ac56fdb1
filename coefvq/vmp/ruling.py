"""What a rules file decides about a scored video, and when that changes by itself. Pure."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any

from coefvq.errors import ConfigError
from coefvq.extensions import RULE_FIELDS, extension
from coefvq.records import ScoredVideo
from coefvq.vmp.records import Candidate, Decision, Event
from coefvq.vmp.rules import WORDS, Condition, Rule, Rules, is_a, own_kind

DELETED = Decision("removed", "deleted")

#: the platform's own word about a video that no rule speaks of; the shipped rule of that name says the same
UNSCORED = Decision("ignored", "unscored")

Facts = Mapping[str, bool | float | str | tuple[str, ...] | None]

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda fact, value: fact in value,
    "matches": lambda fact, value: re.search(value, fact) is not None,
    "contains": operator.contains,
}


def decide(candidate: Candidate, rules: Rules, now: datetime) -> Decision:
    """Return the first rule's outcome that holds, or the default; a deletion is always ``removed``.

    A video that an issue could not score is live only by a rule with ``error == true``; else it is ``ignored``.

    Raises:
        ConfigError: a rule names an issue that is not scored; it could never hold.
    """
    if candidate.event.kind == "delete":
        return DELETED
    facts = _facts_by_issue(candidate, now, rules)
    for rule in rules.of_issues:
        if candidate.scores and rule.issue not in facts:
            raise ConfigError(
                f"rule '{rule.name}': issue '{rule.issue}' is not scored; expected one of "
                f"{', '.join(facts)}: correct the rule or add --issue {rule.issue}"
            )
    unscored = any(one["error"] is True for one in facts.values())
    for rule in rules.rules:
        if unscored and rule.then == "live" and not rule.takes_unscored:
            continue
        seen = facts.values() if rule.issue is None or not candidate.scores else [facts[rule.issue]]
        if _holds_for_one(rule, seen):
            return rule.decision
    if unscored and rules.default == "live":
        return UNSCORED
    return rules.otherwise


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
_OF_SCORES: dict[str, Callable[[ScoredVideo], Any]] = {
    field: attrgetter(field) for field in ("positive", "base_score", "mllm_score", "decided_by")
}


@lru_cache(maxsize=64)
def _readers(fields: tuple[str, ...]) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
    """How the named facts of an event, and those of a score, are read."""
    tables: tuple[Mapping[str, Any], ...] = (_OF_EVENTS, _OF_SCORES)
    of_events, of_scores = ([(field, table[field]) for field in fields if field in table] for table in tables)
    return of_events, of_scores


def _facts_by_issue(candidate: Candidate, now: datetime, rules: Rules) -> dict[str, Facts]:
    """Per issue the facts that the rules name, and under ``error`` whether it was not scored."""
    event, (of_events, of_scores) = candidate.event, _readers(rules.fields)
    common = {field: read(event) for field, read in of_events}
    if "age_hours" in rules.fields:
        common["age_hours"] = _age_hours(event.published_at, now)
    if rules.own_fields:
        common |= _own_facts(event, rules.own_fields)
    for store, row in candidate.features.values.items():
        common |= {f"{store}.{name}": value for name, value in row.items()}
    if not candidate.scores:
        return {"": {**common, "error": True}}
    lacks = candidate.features.error is not None
    found: dict[str, Facts] = {}
    for score in candidate.scores:
        facts = {field: read(score) for field, read in of_scores}
        facts["error"] = lacks or score.error is not None
        found[score.issue] = {**common, **facts} if common else facts
    return found


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


def _holds_for_one(rule: Rule, seen: Iterable[Facts]) -> bool:
    """Whether all conditions of a rule hold for one of the issues."""
    for facts in seen:
        for condition in rule.when:
            if not _holds(condition, facts):
                break
        else:
            return True
    return False


def _holds(condition: Condition, facts: Facts) -> bool:
    fact = facts.get(condition.field)
    if condition.op == "missing":
        return (fact is None) is condition.value
    return fact is not None and _COMPARE[condition.op](fact, condition.value)
