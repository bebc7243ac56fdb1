"""Settings for all issues and what differs for one of them, as plain mappings of YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``settings`` with ``changes`` in their place; mappings are merged key by key, all other values replaced."""
    result = dict(settings)
    for name, value in changes.items():
        below = result.get(name)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        result[name] = merged(below, value) if both else value  # type: ignore[arg-type]
    return result


def difference(settings: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The smallest changes that make ``merged(settings, changes)`` equal to ``wanted``, which has every key too."""
    changes: dict[str, Any] = {}
    for name, value in wanted.items():
        below = settings.get(name)
        if isinstance(below, Mapping) and isinstance(value, Mapping) and below.keys() <= value.keys():
            if inner := difference(below, value):
                changes[name] = inner
        elif name not in settings or below != value:
            changes[name] = value
    return changes
