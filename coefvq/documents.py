"""JSON and YAML texts -> values, strictly: one reading for every document of a user or a stage.

Refused, with the file and the place: a key that comes twice (the last would win unseen), NaN and Infinity in JSON,
nesting deeper than ``MAX_DEPTH``, YAML tags, and YAML aliases that hold themselves or stand for more than
``MAX_NODES`` values.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import yaml

from coefvq.errors import CoefVQError, DataError

MAX_DEPTH = 64
MAX_NODES = 200_000


def parse_json(text: str, source: str, remedy: str, error: type[CoefVQError] = DataError) -> Any:
    """The value of a JSON text; ``source`` and ``remedy`` stand in errors.

    Raises:
        error: it is not JSON, a key comes twice, a number is not finite, or it is nested too deeply.
    """
    try:
        value = _JSON.decode(text)
        # each level has a bracket: most texts have too few to be too deep
        if text.count("[") + text.count("{") > MAX_DEPTH:
            _check_depth(value)
    except RecursionError as problem:
        raise error(f"{source}: nested deeper than {MAX_DEPTH} levels; {remedy}") from problem
    except ValueError as problem:
        raise error(f"{source}: not JSON ({problem}); {remedy}") from problem
    return value


def parse_yaml(text: str, source: str, remedy: str, error: type[CoefVQError] = DataError) -> Any:
    """The value of a YAML text of plain types; ``source`` and ``remedy`` stand in errors.

    Raises:
        error: it is not YAML, has a tag, a repeated key or one that is no text, or grows or nests without bound.
    """
    try:
        # _Loader is a SafeLoader: it makes plain values only
        value = yaml.load(text, _Loader)  # noqa: S506
        _check_depth(value)
    except RecursionError as problem:
        raise error(f"{source}: nested deeper than {MAX_DEPTH} levels; {remedy}") from problem
    except _RefusedError as problem:
        raise error(f"{source}{_line(problem.mark)}: {problem}; {remedy}") from problem
    except (yaml.YAMLError, ValueError) as problem:
        # ValueError: a date that does not exist, a number of thousands of digits
        where = _line(getattr(problem, "problem_mark", None))
        raise error(f"{source}{where}: not readable as YAML; {remedy}") from problem
    return value


class _RefusedError(ValueError):
    """YAML that could be read and is not taken."""

    def __init__(self, message: str, mark: Any = None) -> None:
        super().__init__(message)
        self.mark = mark


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader; keys are texts and come once."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.tag != "tag:yaml.org,2002:str":
                written = getattr(key, "value", "?")
                shown = written if isinstance(written, str) else "a list or mapping"
                raise _RefusedError(f"key {shown}: expected a text; put it in quotes", key.start_mark)
            if key.value in seen:
                raise _RefusedError(f"key '{key.value}' comes twice; keep one", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


# 2e-5 without a dot is a number of YAML 1.2, as DVC and ruamel.yaml read and write it, and a text of YAML 1.1
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _line(mark: Any) -> str:
    return f" line {mark.line + 1}" if mark else ""


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key '{next(key for key in keys if keys.count(key) > 1)}' comes twice")
    return found


def _not_finite(word: str) -> float:
    raise ValueError(f"{word} is no JSON number")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]} is too large for a number")
    return value


def _integer(digits: str) -> int:
    if len(digits) > 1000:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


_JSON = json.JSONDecoder(
    object_pairs_hook=_distinct, parse_constant=_not_finite, parse_float=_finite, parse_int=_integer
)


def _check_depth(value: Any) -> None:
    """Refuse what nests too deeply or, through YAML aliases, grows too large or contains itself."""
    sizes: dict[int, int] = {}

    def size(item: Any, depth: int) -> int:
        if not isinstance(item, dict | list):
            return 1
        if depth == MAX_DEPTH:
            # also where a list holds itself
            raise RecursionError
        if id(item) not in sizes:
            inner = item.values() if isinstance(item, dict) else item
            sizes[id(item)] = 1 + sum(size(one, depth + 1) for one in inner)
        return sizes[id(item)]

    size(value, 0)
    # without aliases each list and mapping is counted where it is written, and the size of the file bounds them
    if sizes.get(id(value), 1) > MAX_NODES and _has_aliases(value):
        raise _RefusedError(f"its aliases stand for more than {MAX_NODES:,} values; write them out or use fewer")


def _has_aliases(value: Any) -> bool:
    seen: set[int] = set()
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, dict | list):
            if id(item) in seen:
                return True
            seen.add(id(item))
            todo.extend(item.values() if isinstance(item, dict) else item)
    return False
