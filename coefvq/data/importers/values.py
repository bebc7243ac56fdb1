"""One cell of a user's table as a value of the manifest; nothing is repaired, a misfit is a DataError.

``place`` in each message names file and row as an editor counts them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from coefvq.errors import DataError

#: up to here float64 holds every whole number
EXACT = 2**53
#: longest text of one cell, in characters; the csv module's own limit, held for every format
MAX_TEXT = 131_072
_WHOLE = re.compile(r"\d+(\.0+)?", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_LARGEST = 2**63 - 1


def shown(value: Any) -> str:
    """A value as an error message quotes it: on one line and short."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


class InexactFloat(float):
    """A number whose digits are not those it was written with, e.g. ``1e5``: a number still, but no id."""


class ShortFloat(float):
    """A number of a column with fewer bits than float64; ``exact`` is the largest whole number it keeps."""

    exact: int

    def __new__(cls, value: float, exact: int) -> ShortFloat:
        made = super().__new__(cls, value)
        made.exact = exact
        return made


def text(place: str, column: str, value: Any) -> str | None:
    """A scalar as text without blanks around it; None where the cell is empty.

    pandas makes an integer column with a gap a float one, so whole floats lose their ``.0``. Above 2^53 such a column
    no longer holds what was in it, and the cell is refused.

    Raises:
        DataError: a list or an object, true or false, bytes, NaN, a float that is no longer the number it was, too
            long, or not writable as UTF-8 text.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return _checked(place, column, value.strip()) or None
    if isinstance(value, datetime | date):
        return value.isoformat() if value == value else None  # NaT differs from itself
    if isinstance(value, float) and math.isfinite(value):
        return _float_text(place, column, value)
    if isinstance(value, Decimal) and value.is_finite():
        return format(value.to_integral_value() if value == value.to_integral_value() else value, "f")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    remedy = "write it as text" if isinstance(value, bool | bytes) else "correct the cell"
    raise DataError(f"{place}: {column} = {shown(value)}: expected text or empty; {remedy}")


def _float_text(place: str, column: str, value: float) -> str:
    exact = value.exact if isinstance(value, ShortFloat) else EXACT
    if isinstance(value, InexactFloat) or (value.is_integer() and abs(value) > exact):
        raise DataError(
            f"{place}: {column} = {value!r}: a floating-point number that may no longer be the one it was; export the "
            f"column {column} as string or Int64, not as float"
        )
    return str(int(value)) if value.is_integer() else repr(float(value))


def _checked(place: str, column: str, value: str) -> str:
    if len(value) > MAX_TEXT:
        raise DataError(f"{place}: {column} has {len(value)} characters: expected at most {MAX_TEXT}; shorten it")
    if "\0" in value:
        raise DataError(f"{place}: {column} holds a NUL character; remove it")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(f"{place}: {column} holds half a character (a lone surrogate); write it anew") from error
    return value


def _digits(place: str, column: str, value: Any) -> str | None:
    """The cell of a number column as text; None where it is empty."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, Decimal) and value.is_finite():
        return format(value, "f")
    if isinstance(value, int) or (isinstance(value, float) and not math.isnan(value)):
        return repr(float(value) if isinstance(value, float) else value)
    return text(place, column, value)


def whole(place: str, column: str, value: Any) -> int | None:
    """A count: whole, at least 0; None where empty.

    Raises:
        DataError: anything else.
    """
    written = _digits(place, column, value)
    if written is None:
        return None
    number = int(value) if isinstance(value, float) and value.is_integer() else None
    if number is None and _WHOLE.fullmatch(written):
        number = int(written.partition(".")[0])
    if number is None or not 0 <= number <= _LARGEST:
        raise DataError(f"{place}: {column} = {shown(value)}: expected a whole number from 0; correct or empty it")
    return number


def number(
    place: str, column: str, value: Any, default: float, *, positive: bool = False, decimal_comma: bool = False
) -> float:
    """A finite number, above 0 where ``positive``; ``default`` where empty.

    With ``decimal_comma``, ``0,75`` is 0.75. ``1,234`` is refused: it may be a thousand and more.

    Raises:
        DataError: anything else.
    """
    written = _digits(place, column, value)
    if written is None:
        return default
    if decimal_comma and _DECIMAL_COMMA.fullmatch(written) and not _THOUSANDS.fullmatch(written):
        written = written.replace(",", ".")
    is_number = isinstance(value, float) or _NUMBER.fullmatch(written)
    result = float(written) if is_number else math.nan
    if not math.isfinite(result) or (positive and result <= 0):
        wanted = "a finite number above 0" if positive else "a finite number"
        wanted += " with a decimal point" if "," in written else ""
        raise DataError(f"{place}: {column} = {shown(value)}: expected {wanted}; correct or empty it")
    return result


def truth(place: str, column: str, value: Any, *, decimal_comma: bool = False) -> float:
    """A label in [0, 1], 1 being positive, true or false; NaN where empty.

    Raises:
        DataError: anything else.
    """
    named = {"true": 1.0, "false": 0.0}.get(str(value).strip().casefold())
    if named is not None:
        return named
    return number(place, column, value, math.nan, decimal_comma=decimal_comma)


def moment(place: str, column: str, value: Any) -> tuple[str, bool] | None:
    """A point in time as ISO 8601 in UTC, and whether the cell named an offset (without one it is UTC).

    Raises:
        DataError: not ISO 8601.
    """
    written = text(place, column, value)
    if written is None:
        return None
    try:
        parsed = datetime.fromisoformat(written)
        zoned = parsed.tzinfo is not None
        return (parsed if zoned else parsed.replace(tzinfo=UTC)).astimezone(UTC).isoformat(), zoned
    except (ValueError, OverflowError) as error:
        raise DataError(
            f"{place}: {column} = {shown(value)}: expected ISO 8601 such as 2026-01-31T08:00:00+00:00; "
            "correct or empty it"
        ) from error


def texts(place: str, column: str, value: Any) -> list[str]:
    """On-screen texts: a list, a JSON list, or one plain text.

    Raises:
        DataError: an item is no text, or a text that begins with [ is no JSON list.
    """
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_item(place, column, item) for item in value]
    written = text(place, column, value)
    if written is None:
        return []
    if not written.startswith("["):
        return [written]
    try:
        items = json.loads(written)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: {column} = {shown(written)}: expected a JSON list of texts; correct it") from error
    return [_item(place, column, item) for item in items]


def _item(place: str, column: str, value: Any) -> str:
    written = text(place, column, value)
    if written is None:
        raise DataError(f"{place}: {column} holds an empty item: expected texts; remove the item")
    return written


def sha256(place: str, column: str, value: Any) -> str | None:
    """The hash a file must have, in lower case; None where empty.

    Raises:
        DataError: not 64 hexadecimal digits.
    """
    written = text(place, column, value)
    if written is not None and not _SHA256.fullmatch(written):
        raise DataError(f"{place}: {column} = {shown(value)}: expected 64 hexadecimal digits; correct or empty it")
    return None if written is None else written.lower()


def choice(place: str, column: str, value: Any, allowed: Sequence[str]) -> str | None:
    """One of ``allowed``; None where empty.

    Raises:
        DataError: anything else.
    """
    written = text(place, column, value)
    if written is not None and written not in allowed:
        names = ", ".join(allowed)
        raise DataError(f"{place}: {column} = {shown(value)}: expected one of {names} or empty; correct it")
    return written
