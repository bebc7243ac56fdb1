"""A user's label column as 0, 1 or nothing per issue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coefvq.config import LabelSource
from coefvq.data.importers import values
from coefvq.errors import DataError

Labels = Mapping[str, LabelSource]
_SHOWN, _SHOWN_COLUMNS = 8, 40


def to_label(place: str, source: LabelSource, issue: str, value: Any) -> int | None:
    """One cell as 0 or 1; None where empty.

    Raises:
        DataError: not 0 or 1 where no positive values are named.
    """
    if source.positive is None and isinstance(value, bool):
        return int(value)  # ms-swift writes two classes as true and false
    written = _written(place, source.column, value)
    if written is None:
        return None
    if source.positive is not None:
        return int(written in source.positive)
    if written not in {"0", "1", "0.0", "1.0"}:
        raise DataError(
            f"{place}: {source.column} = {values.shown(written)}: expected 0, 1 or empty; correct the row "
            f"or name the positive values in ingest.labels.{issue}.positive"
        )
    return int(float(written))


def _written(place: str, column: str, value: Any) -> str | None:
    # a positive value may be named True: CSV and JSON write the same two classes so
    return str(value) if isinstance(value, bool) else values.text(place, column, value)


class LabelCheck:
    """Which positive values occur; a few others are kept to be shown."""

    def __init__(self, origin: Path, labels: Labels) -> None:
        self._origin, self._labels = origin, labels
        self._met: dict[str, set[str]] = {issue: set() for issue in labels}

    def add(self, issue: str, value: Any) -> None:
        """Take one cell of the issue's column into account."""
        met, positive = self._met[issue], self._labels[issue].positive
        if positive is None or (len(met) >= _SHOWN and met.issuperset(positive)):
            return
        written = _written(str(self._origin), self._labels[issue].column, value)
        if written is not None and (len(met) < _SHOWN or written in positive):
            met.add(written)

    def finish(self, issue: str, columns: Sequence[str]) -> None:
        """Say what is wrong with the column as a whole.

        Raises:
            DataError: it does not exist, or a positive value never occurs (most likely misspelt).
        """
        column, positive = self._labels[issue].column, self._labels[issue].positive
        if column not in columns:
            raise DataError(
                f"{self._origin}: no column '{column}' for issue {issue}; set "
                f"ingest.labels.{issue}.column to one of: {', '.join(columns[:_SHOWN_COLUMNS])}"
            )
        # a misspelt value would turn every positive into a negative without a word
        for wanted in positive or ():
            if wanted not in self._met[issue]:
                met = ", ".join(text[:40] for text in sorted(self._met[issue])[:_SHOWN])
                raise DataError(
                    f"{self._origin}: column '{column}' never holds '{wanted}' "
                    f"(ingest.labels.{issue}.positive); values there: {met}"
                )
