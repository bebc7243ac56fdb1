"""What a feature store may answer, checked before a rule sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from coefvq.errors import DataError
from coefvq.vmp.rules import WORDS, is_a

#: what settings call the type of a value
Kind = Literal["flag", "number", "text"]
KINDS: Mapping[Kind, type] = {"flag": bool, "number": float, "text": str}
Value = bool | float | str


@dataclass(frozen=True)
class Unusable:
    """In place of a row: why nobody can use it. The other rows of the answer stand."""

    reason: str


#: key -> field -> value; a key that a store does not know is left out, and so is a field without a value
Rows = Mapping[str, Mapping[str, Value] | Unusable]
#: a longer text is no feature; it would be copied into every row
LONGEST_TEXT = 1024


class StoreError(DataError):
    """A feature store gave no usable answer; ``temporary``: the same question may be answered a moment later."""

    def __init__(self, message: str, temporary: bool = True) -> None:
        super().__init__(message)
        self.temporary = temporary


class FeatureStore(Protocol):
    """Where features come from; a few threads may ask at once."""

    def fetch(self, keys: Sequence[str], seconds: float) -> Mapping[str, Any]:
        """The rows of distinct ``keys`` as they are stored, unchecked; returns or raises within about ``seconds``.

        Raises:
            StoreError: the store gave no answer, or one that cannot be read.
        """

    def close(self) -> None:
        """Give back connections."""


def checked(answer: Mapping[str, Any], keys: Sequence[str], kinds: Mapping[str, Kind]) -> Rows:
    """The rows of ``keys`` with the fields of ``kinds``; other fields are left out, and None is no value.

    A row with a value of another type is ``Unusable``.

    Raises:
        StoreError: a row of a key that was not asked for.
    """
    strange = sorted(str(key) for key in answer if key not in set(keys))
    if strange:
        # a connection that gives the answer of an earlier question looks like this
        raise StoreError(f"answers about {strange[0]!r:.60}, which was not asked for", temporary=False)
    return {key: checked_row(key, row, kinds) for key, row in answer.items()}


def checked_row(key: str, row: Any, kinds: Mapping[str, Kind]) -> dict[str, Value] | Unusable:
    """One row of an answer, as ``checked`` says."""
    if not isinstance(row, Mapping):
        return Unusable(f"key {key!r:.60}: {row!r:.60} is no row of fields")
    values: dict[str, Value] = {}
    for field, kind in kinds.items():
        value = row.get(field)
        if value is None:
            continue
        if not is_a(KINDS[kind], value) or (isinstance(value, str) and len(value) > LONGEST_TEXT):
            limit = f" of at most {LONGEST_TEXT} characters" if kind == "text" else ""
            expected = f"expected {WORDS[KINDS[kind]]}{limit}"
            return Unusable(f"key {key!r:.60}: {field} = {value!r:.60}: {expected}")
        values[field] = value
    return values


class HeldError(DataError):
    """A required store does not answer, and the settings say to wait for it; nothing of the batch was stored."""

    def __init__(self, store: str, reason: object) -> None:
        super().__init__(
            f"features of {store}: {reason}; nothing of the batch was stored: start the store, or say "
            "missing: mark or dead_letter"
        )
