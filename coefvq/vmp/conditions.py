"""One condition of a rule as a function: compiled once per rules file, called once per video and issue."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

from coefvq.records import ScoredVideo

#: facts by field that all issues of a video share; a field that is missing or None is a missing fact
Facts = Mapping[str, Any]
#: the facts, one issue's score (None: the video has none), whether it was not scored → whether the condition holds
Test = Callable[[Facts, ScoredVideo | None, bool], bool]
_Read = Callable[[Facts, ScoredVideo | None, bool], Any]

#: fields that each issue's score has, as attributes of that name
OF_SCORES = ("positive", "base_score", "mllm_score", "decided_by")
ERROR = "error"

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


def condition_test(field: str, op: str, value: Any) -> Test:
    """The function of ``field op value``: on a missing fact every operator but ``missing`` is false."""
    read = _reader(field)
    if op == "missing":
        return lambda facts, score, error: (read(facts, score, error) is None) is value
    compare = _COMPARE[op]
    if field == ERROR:  # it is always there
        return lambda facts, score, error: compare(error, value)
    if field in OF_SCORES:  # in one function: rules of most files look at scores alone
        attribute = attrgetter(field)

        def scored(facts: Facts, score: ScoredVideo | None, error: bool) -> bool:
            fact = None if score is None else attribute(score)
            return fact is not None and compare(fact, value)

        return scored

    def holds(facts: Facts, score: ScoredVideo | None, error: bool) -> bool:
        fact = read(facts, score, error)
        return fact is not None and compare(fact, value)

    return holds


def _reader(field: str) -> _Read:
    if field == ERROR:
        return lambda facts, score, error: error
    if field in OF_SCORES:
        attribute = attrgetter(field)
        return lambda facts, score, error: None if score is None else attribute(score)
    return lambda facts, score, error: facts.get(field)
