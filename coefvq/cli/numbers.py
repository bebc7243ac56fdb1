"""Numbers from the command line, and what they mean."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TypeVar

import typer

T = TypeVar("T", float, float | None, list[float] | None)


def finite(value: T) -> T:
    """Callback of a number's option: "nan" and "inf" are numbers to Python, and every comparison with nan is false.

    Raises:
        typer.BadParameter: it is not finite.
    """
    for number in value if isinstance(value, list) else [value]:
        if number is not None and not math.isfinite(number):
            raise typer.BadParameter(f"{number}: expected a finite number")
    return value


def prune_limits(limit: int, max_gib: float | None, unused_days: float | None) -> tuple[int | None, float | None]:
    """Bytes to keep at most, and the unix time since which a file has to be used; None: not asked.

    ``limit`` are the bytes of the settings, which count where neither option is given.
    """
    keep = limit if max_gib is None and unused_days is None else None
    keep = keep if max_gib is None else round(max_gib * 2**30)
    return keep, None if unused_days is None else time.time() - unused_days * 86_400


#: an option whose value is a finite number
number = partial(typer.Option, callback=finite)
