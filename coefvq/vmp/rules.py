"""Filter: a short list of rules turns a candidate into ``live``, ``removed`` or ``ignored``.

A rule looks at one issue at a time: it holds if all of its conditions hold for the same issue. The first
rule that holds wins. The file format is described in docs/vmp.md.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Mapping
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from coefvq.config import IssueName
from coefvq.documents import parse_yaml
from coefvq.errors import ConfigError
from coefvq.extensions import RULE_FIELDS, extension, registered
from coefvq.files import read_text
from coefvq.vmp.conditions import ERROR, OF_SCORES, Test, condition_test
from coefvq.vmp.records import Decision, Outcome, Undecided

#: what a condition may look at, with the type of its value
FIELDS: dict[str, type] = {
    "positive": bool,
    "error": bool,
    "base_score": float,
    "mllm_score": float,
    "decided_by": str,
    "views": float,
    "title": str,
    "tags": tuple,
    "title_length": float,
    "age_hours": float,
    "creator_id": str,
    "duration_s": float,
}
_RESERVED = {"default", "deleted"}
#: a feature is STORE.FIELD; which there are, and of which type, the settings of the stores say
FEATURE_NAME = "[a-z][a-z0-9_]{0,31}"
_FEATURE = re.compile(rf"{FEATURE_NAME}\.{FEATURE_NAME}")

Operator = Literal["==", "!=", "<", "<=", ">", ">=", "in", "matches", "contains", "missing"]


#: files may say "remained", as the paper does
_Then = Annotated[Outcome, BeforeValidator(lambda word: "live" if word == "remained" else word)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Condition(_Section):
    """``field op value``. On a missing fact every operator but ``missing`` is false, ``!=`` included."""

    field: str
    op: Operator
    value: Any

    @cached_property
    def test(self) -> Test:
        """Whether it holds, as a function of a video's facts."""
        return condition_test(self.field, self.op, self.value)

    @field_validator("field")
    @classmethod
    def _known_field(cls, field: str) -> str:
        if field not in FIELDS and not is_feature(field) and field not in registered(RULE_FIELDS):
            raise ValueError(f"{field!r}: unknown field{_near(field, [*FIELDS, *registered(RULE_FIELDS)])}")
        return field

    @field_validator("value")
    @classmethod
    def _immutable(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _value_fits(self) -> Self:
        kind = condition_kind(self)
        if self.op == "missing":
            if not isinstance(self.value, bool):
                raise ValueError("value: op 'missing' takes true (is missing) or false (is present)")
        elif self.op == "matches":
            _check_pattern(self.field, kind, self.value)
        elif kind is tuple or self.op == "contains":
            if kind is not tuple or self.op != "contains" or not isinstance(self.value, str):
                raise ValueError(f"op '{self.op}': tags takes op 'contains' with a text, other fields do not")
        elif self.op == "in":
            if not isinstance(self.value, tuple) or not all(is_a(kind, item) for item in self.value):
                raise ValueError(f"value: op 'in' on {self.field} takes a list of {_PLURALS[kind]}")
        elif not is_a(kind, self.value):
            raise ValueError(f"value = {json.dumps(self.value)}: {self.field} takes {WORDS[kind]}")
        elif kind is not float and self.op not in ("==", "!="):
            also = " or matches" if self.field == "title" else ""
            raise ValueError(f"op '{self.op}': {self.field} is not a number; use == or != or in{also}")
        return self


class Rule(_Section):
    """All conditions of ``when`` must hold for one issue; ``issue`` narrows it to that issue."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    issue: IssueName | None = None
    when: Annotated[tuple[Condition, ...], Field(min_length=1)]
    then: _Then

    @property
    def needs_error(self) -> bool:
        """Whether it holds for videos alone that could not be scored."""
        return any(one.field == ERROR and one.op == "==" and one.value is True for one in self.when)

    @property
    def takes_unscored(self) -> bool:
        """Whether it may hold for videos that could not be scored: ``live`` has to name them in so many words."""
        return self.needs_error or self.then != "live"

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, name: str) -> str:
        if name in _RESERVED:
            raise ValueError(f"{name!r} is used by the platform itself; choose another name")
        return name


class CompiledRule(NamedTuple):
    """A rule as the Filter reads it: attributes of a model take long to look up."""

    issue: str | None
    tests: tuple[Test, ...]
    decision: Decision
    takes_unscored: bool
    needs_error: bool


class CompiledRules(NamedTuple):
    """Rules in order and what is decided where none holds.

    ``issues``: a rule looks at one issue only; ``takes_facts``: one looks at what all issues of a video share.
    """

    rules: tuple[CompiledRule, ...]
    otherwise: Decision
    issues: bool
    takes_facts: bool


class Rules(_Section):
    """A rules file: rules in order, the outcome where none holds, and what a video is until the MLLM answered."""

    rules: tuple[Rule, ...]
    default: _Then
    pending: Undecided = "hold"

    @cached_property
    def compiled(self) -> CompiledRules:
        """What decides about videos."""
        rules = tuple(
            CompiledRule(rule.issue, tuple(condition.test for condition in rule.when), Decision(rule.then, rule.name),
                         rule.takes_unscored, rule.needs_error)
            for rule in self.rules
        )  # fmt: skip
        otherwise = Decision(self.default, "default")
        return CompiledRules(rules, otherwise, any(rule.issue for rule in rules), bool(self.shared_fields))

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Fields that a rule looks at."""
        return tuple(dict.fromkeys(condition.field for rule in self.rules for condition in rule.when))

    @cached_property
    def shared_fields(self) -> tuple[str, ...]:
        """Those that all issues of a video share."""
        return tuple(field for field in self.fields if field not in OF_SCORES and field != ERROR)

    @cached_property
    def own_fields(self) -> tuple[str, ...]:
        """Those of packages."""
        return tuple(field for field in self.fields if field not in FIELDS and not is_feature(field))

    @model_validator(mode="after")
    def _distinct_names(self) -> Self:
        names = [rule.name for rule in self.rules]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"rules: the name {twice[0]!r} is used twice; a decision must name one rule")
        return self


def load_rules(path: Path | None = None) -> Rules:
    """Read a rules file, or the one that ships with the package.

    Raises:
        ConfigError: the file is missing or does not fit; names file, rule, key and remedy.
    """
    if path is None:
        shipped = resources.files("coefvq.vmp").joinpath("default_rules.yaml")
        return parse_rules(shipped.read_text(encoding="utf-8"), "default_rules.yaml")
    what = "--rules takes a YAML file (docs/vmp.md)"
    text = read_text(path, missing=what, remedy=what, error=ConfigError, limit=2**20)
    return parse_rules(text, str(path))


def parse_rules(text: str, source: str) -> Rules:
    """Check the YAML text of a rules file; ``source`` is named in errors.

    Raises:
        ConfigError: it is not YAML or does not fit the schema.
    """
    raw = parse_yaml(text, source, 'put operators in quotes, as in op: ">="', ConfigError)
    if not isinstance(raw, dict):
        raise ConfigError(f"{source}: expected the keys rules and default; docs/vmp.md has an example")
    try:
        # JSON mode: strict types, yet YAML lists may fill tuples
        return Rules.model_validate_json(json.dumps(raw, default=str))
    except ValidationError as error:
        # a misspelt key is reported as unknown and as missing; the first tells more
        items = sorted(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
        raise ConfigError(f"{source}: {_explain(items[0], raw)}") from error


def own_kind(field: str) -> type:
    """Type of the value of a package's field: its attribute ``kind``."""
    kind: type | None = getattr(extension(RULE_FIELDS, field), "kind", None)
    if kind not in (bool, float, str):
        raise ValueError(f"{field!r}: its attribute kind is {kind!r}; expected bool, float or str")
    return kind


def is_feature(field: str) -> bool:
    """Whether a condition's field is one of a feature store (``creators.reputation``)."""
    return _FEATURE.fullmatch(field) is not None


def condition_kind(condition: Condition) -> type:
    """Type of a condition's value: that of its field, or of what a feature is compared with."""
    if not is_feature(condition.field):
        return FIELDS.get(condition.field) or own_kind(condition.field)
    value = condition.value[0] if isinstance(condition.value, tuple) and condition.value else condition.value
    return next((kind for kind in (bool, str) if isinstance(value, kind)), float)


#: kinds of values, for messages
WORDS = {bool: "true or false", float: "a number", str: "a text"}
_PLURALS = {bool: "true and false", float: "numbers", str: "texts"}


def is_a(kind: type, value: Any) -> bool:
    """Whether a value from YAML or a package is of this kind; whole numbers are numbers too."""
    if kind is float:
        # bool is an int in Python, and NaN would make a rule that silently never holds
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, kind)


def _check_pattern(field: str, kind: type, value: Any) -> None:
    if kind is not str or not isinstance(value, str):
        raise ValueError(f"op 'matches': {field} is not a text; use it on title")
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"value = {json.dumps(value)}: no regular expression ({error}); correct it") from error


def _explain(item: Any, raw: Mapping[str, Any]) -> str:
    where = _place(item["loc"], raw)
    key = str(item["loc"][-1]) if item["loc"] else "rules"
    if item["type"] == "extra_forbidden":
        return f"{where}: unknown key{_near(key, _keys_beside(item['loc']))}"
    if item["type"] == "missing":
        return f"{where}: missing key; add it (docs/vmp.md has an example)"
    if item["type"] == "value_error":
        return f"{where}: {item['ctx']['error']}"
    expected = str(item["msg"]).replace("Input should be", "expected").replace("'", "")
    value = json.dumps(item["input"], default=str)
    return f"{where} = {value if len(value) <= 60 else value[:57] + '...'}: {expected}; correct it"


def _place(loc: tuple[Any, ...], raw: Mapping[str, Any]) -> str:
    """('rules', 1, 'when', 0, 'op') → rule 2 ('late'), condition 1, op."""
    if len(loc) < 2 or loc[0] != "rules":
        return ".".join(str(part) for part in loc) or "rules file"
    rule = raw["rules"][loc[1]]
    name = f" ('{rule['name']}')" if isinstance(rule, dict) and "name" in rule else ""
    inner = [f"condition {part + 1}" if isinstance(part, int) else str(part) for part in loc[2:]]
    parts = [part for part in inner if not (part == "when" and len(inner) > 1)]
    return ", ".join([f"rule {loc[1] + 1}{name}", *parts])


def _keys_beside(loc: tuple[Any, ...]) -> list[str]:
    model: type[BaseModel] = Condition if "when" in loc else Rule if "rules" in loc else Rules
    return list(model.model_fields)


def _near(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else f"; known here: {', '.join(known)}"
