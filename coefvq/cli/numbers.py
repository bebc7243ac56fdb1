"""Numbers from the command line."""

from __future__ import annotations

import math
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


#: an option whose value is a finite number
number = partial(typer.Option, callback=finite)
