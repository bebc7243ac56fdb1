"""Parts that other packages bring: found by entry point, loaded once, and blamed by name when they fail.

[project.entry-points."coefvq.losses"]
my_loss = "my_package.losses:my_loss"
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from coefvq.errors import CoefVQError, ConfigError

FRAME_TOWERS = "coefvq.frame_towers"
TEXT_TOWERS = "coefvq.text_towers"
SOUND_TOWERS = "coefvq.sound_towers"
LOSSES = "coefvq.losses"
METRICS = "coefvq.metrics"
RULE_FIELDS = "coefvq.rule_fields"
DECODERS = "coefvq.decoders"


def registered(group: str) -> list[str]:
    """Names that installed packages register in a group; nothing of them is imported."""
    return sorted({point.name for point in entry_points(group=group)})


@cache
def extension(group: str, name: str) -> Callable[..., Any]:
    """What a package registered, guarded: an exception of it is an error that names package and remedy.

    Raises:
        ConfigError: no package, or more than one, registers the name, or it does not import.
    """
    points = list(entry_points(group=group, name=name))
    known = ", ".join(registered(group)) or "none"
    if not points:
        raise ConfigError(f"{name!r}: no installed package registers it in {group} (registered: {known})")
    if len({point.value for point in points}) > 1:
        owners = ", ".join(f"{_owner(point)} ({point.value})" for point in points)
        raise ConfigError(f"{name!r}: registered twice in {group}, by {owners}; uninstall one, or rename it")
    return _guarded(group, points[0], _loaded(points[0]))


@contextmanager
def blamed(group: str, name: str) -> Iterator[None]:
    """Within the block runs what a package registered: an exception there names package and remedy.

    Raises:
        ConfigError: it raised.
    """
    try:
        yield
    except CoefVQError:
        raise
    except Exception as error:
        point = next(iter(entry_points(group=group, name=name)))
        raise ConfigError(_blame(point, "failed", error)) from error


@cache
def _loaded(point: EntryPoint) -> Any:
    try:
        return point.load()
    except Exception as error:
        raise ConfigError(_blame(point, "does not import", error)) from error


def _guarded(group: str, point: EntryPoint, made: Any) -> Callable[..., Any]:
    if not callable(made):
        raise ConfigError(f"{point.name!r} of {group}: {point.value} in {_owner(point)} is not callable; correct it")

    def call(*arguments: Any, **options: Any) -> Any:
        with blamed(group, point.name):
            return made(*arguments, **options)

    # a rule field names its type
    call.kind = getattr(made, "kind", None)  # type: ignore[attr-defined]
    return call


def _blame(point: EntryPoint, what: str, error: Exception) -> str:
    said = str(error).splitlines()[0] if str(error) else "no reason given"
    return (
        f"{point.name!r} of {point.group} {what}: {type(error).__name__}: {said}; correct {point.value} in "
        f"{_owner(point)}, or take the name out of the settings"
    )


def _owner(point: EntryPoint) -> str:
    return "an unnamed package" if point.dist is None else f"package {point.dist.name} {point.dist.version}"
