"""Nested parameters and metrics as the flat names a tracking store takes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

# MLflow refuses every other character in a name; "R@P80" becomes "R_P80"
_ILLEGAL = re.compile(r"[^\w.\- /:]", re.ASCII)


def flat_params(params: Mapping[str, Any]) -> dict[str, str]:
    """``{"lora": {"rank": 8}}`` -> ``{"lora.rank": "8"}``; lists and the like become JSON text."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in _leaves(params, ".")}


def flat_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """``{"val": {"f1": 0.5}}`` -> ``{"val/f1": 0.5}``; what is not a number (undefined, a curve) is left out."""
    return {name: float(value) for name, value in _leaves(metrics, "/") if isinstance(value, int | float)}


def _leaves(tree: Mapping[str, Any], separator: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        name = prefix + _ILLEGAL.sub("_", str(key))
        if isinstance(value, Mapping):
            yield from _leaves(value, separator, name + separator)
        else:
            yield name, value
