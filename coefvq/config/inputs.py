"""Which settings a piece of work may read: a frozen model whose fields say where their values stand.

    class Inputs of a stage:
        seed: Annotated[int, Tracked("seed")]
        media: Annotated[MediaSpec, Tracked("media.{issue}")]
        runtime: Annotated[Runtime, Untracked("runtime")]

``Inputs.of(params, issue)`` fills it. DVC's lists of settings are held to the tracked fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from coefvq.config.params import Params
from coefvq.config.values import Section

_ISSUE = "issue"


@dataclass(frozen=True)
class Tracked:
    """The setting at ``key``; ``{issue}`` stands for the issue. A stage that reads it runs again when it changes."""

    key: str


@dataclass(frozen=True)
class Untracked:
    """A setting that changes no result: a place, a speed, or what may be opened at all. DVC does not compare it."""

    key: str


class Inputs(Section):
    """Values of settings. A field without key is ``issue``, or a group of fields that is a model of this kind too."""

    @classmethod
    def of(cls, params: Params, issue: str | None = None) -> Self:
        """The values that ``params`` holds for ``issue``; None where nothing depends on the issue."""
        return cls(**{name: _value(field, name, params, issue) for name, field in cls.model_fields.items()})

    @classmethod
    def tracked(cls) -> tuple[str, ...]:
        """Keys that DVC compares, in the order of the fields."""
        return tuple(dict.fromkeys(key.key for key in _keys(cls) if isinstance(key, Tracked)))

    @classmethod
    def per_issue(cls) -> bool:
        """Whether the values are those of one issue."""
        return _ISSUE in cls.model_fields or any(group.per_issue() for group in _groups(cls))


def _key(field: FieldInfo) -> Tracked | Untracked | None:
    return next((item for item in field.metadata if isinstance(item, Tracked | Untracked)), None)


def _group(field: FieldInfo) -> type[Inputs] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Inputs) else None


def _groups(kind: type[Inputs]) -> Iterator[type[Inputs]]:
    return (group for field in kind.model_fields.values() if (group := _group(field)) is not None)


def _keys(kind: type[Inputs]) -> Iterator[Tracked | Untracked]:
    for field in kind.model_fields.values():
        if (key := _key(field)) is not None:
            yield key
        elif (group := _group(field)) is not None:
            yield from _keys(group)


def _value(field: FieldInfo, name: str, params: Params, issue: str | None) -> Any:
    if (key := _key(field)) is not None:
        value: Any = params
        for part in key.key.format(issue=issue).split("."):
            value = _member(value, part)
        return value
    group = _group(field)
    return issue if group is None and name == _ISSUE else group.of(params, issue)  # type: ignore[union-attr]


def _member(value: Any, name: str) -> Any:
    if not isinstance(value, BaseModel):
        return value[name]
    fields = type(value).model_fields
    return getattr(value, next(attribute for attribute, field in fields.items() if (field.alias or attribute) == name))
