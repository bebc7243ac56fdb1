"""One cell of a user's table as a value of the manifest; nothing is repaired, a misfit is a DataError.

``place`` in each message names file and row as an editor counts them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

from coefvq.errors import DataError

#: longest text of one cell, in characters; the csv module's own limit, held for every format
MAX_TEXT = 131_072
_WHOLE = re.compile(r"\d+(\.0+)?", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SHA256 = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_LARGEST = 2**63 - 1


def shown(value: Any) -> str:
    """A value as an error message quotes it: on one line and short."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def text(place: str, column: str, value: Any) -> str | None:
    """A scalar as text without blanks around it; None where the cell is empty.

    Raises:
        DataError: a list or an object, NaN, too long, or not writable as UTF-8 text.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return _checked(place, column, value.strip()) or None
    if isinstance(value, datetime | date):
        return value.isoformat() if value == value else None  # NaT differs from itself
    if isinstance(value, bool | int) or (isinstance(value, float) and not math.isnan(value)):
        return str(value)
    raise DataError(f"{place}: {column} = {shown(value)}: expected text or empty; correct the cell")


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


def whole(place: str, column: str, value: Any) -> int | None:
    """A count: whole, at least 0; None where empty.

    Raises:
        DataError: anything else.
    """
    written = text(place, column, value)
    if written is None:
        return None
    number = int(float(value)) if isinstance(value, float) and value.is_integer() else None
    if number is None and _WHOLE.fullmatch(written):
        number = int(written.partition(".")[0])
    if number is None or isinstance(value, bool) or not 0 <= number <= _LARGEST:
        raise DataError(f"{place}: {column} = {shown(value)}: expected a whole number from 0; correct or empty it")
    return number


def number(place: str, column: str, value: Any, default: float, *, positive: bool = False) -> float:
    """A finite number, above 0 where ``positive``; ``default`` where empty.

    Raises:
        DataError: anything else.
    """
    written = text(place, column, value)
    if written is None:
        return default
    fits = not isinstance(value, bool) and _NUMBER.fullmatch(written)
    result = float(written) if fits else math.nan
    if not math.isfinite(result) or (positive and result <= 0):
        wanted = "a finite number above 0" if positive else "a finite number"
        raise DataError(f"{place}: {column} = {shown(value)}: expected {wanted}; correct or empty it")
    return result


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
