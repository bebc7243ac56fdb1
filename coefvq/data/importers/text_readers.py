"""CSV and JSONL, row by row in bounded memory; every row knows its line.

Lines are read with a size limit, so a file without line ends is refused, not loaded.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coefvq.errors import DataError

#: largest record of a text table, in bytes
MAX_RECORD = 2**20
RawRow = tuple[int, dict[str, Any]]


class _Lines:
    """Decoded lines of a file; ``pending`` bytes were handed out since the last ``taken``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pending = 0
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        with self._path.open("rb") as stream:
            while line := stream.readline(MAX_RECORD + 1):
                self.number += 1
                self._pending += len(line)
                if self._pending > MAX_RECORD:
                    raise DataError(
                        f"{self._path} row {self.number}: longer than {MAX_RECORD} bytes; shorten it, or close "
                        "a quote that was left open"
                    )
                yield self._decoded(line)

    def taken(self) -> None:
        """A record is complete; the next may be as long again."""
        self._pending = 0

    def _decoded(self, line: bytes) -> str:
        if b"\0" in line:
            raise DataError(f"{self._path} row {self.number}: holds a NUL byte; save the table as UTF-8 text")
        try:
            return line.decode("utf-8-sig" if self.number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self._path} row {self.number}: byte {error.start + 1} of the line is not UTF-8; "
                "save the table as UTF-8"
            ) from error


def read_csv(path: Path) -> Iterator[RawRow]:
    """Records of a comma-separated table under its header, with the line each begins on.

    Raises:
        DataError: no header, a column twice, a row with more or fewer fields, or broken quotes.
    """
    lines = _Lines(path)
    records = csv.reader(lines, strict=True)
    header: list[str] | None = None
    first = 1
    try:
        for record in records:
            lines.taken()
            if header is None:
                header = _header(path, record)
            elif record:  # a blank line is no record
                if len(record) != len(header):
                    raise DataError(
                        f"{path} row {first}: {len(record)} fields: expected {len(header)} as in the header; "
                        "quote texts that hold a comma"
                    )
                yield first, dict(zip(header, record, strict=True))
            first = records.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path} row {first}: not readable as CSV ({error}); fix the row") from error
    except OSError as error:
        raise DataError(f"{path}: not readable ({error.strerror}); check the file") from error


def _header(path: Path, record: list[str]) -> list[str]:
    names = [name.strip() for name in record]
    seen: set[str] = set()
    for name in names:
        if not name or name in seen:
            what = f"column '{name}' twice" if name else "a column without a name"
            raise DataError(f"{path} row 1: {what} in the header; rename or remove it")
        seen.add(name)
    return names


def read_jsonl(path: Path) -> Iterator[RawRow]:
    """Objects of a JSON Lines table with their line numbers; blank lines are skipped.

    Raises:
        DataError: a line is not JSON, not an object, or names a key twice.
    """
    lines = _Lines(path)
    try:
        for line in lines:
            lines.taken()
            if line.strip():
                yield lines.number, _object(path, lines.number, line)
    except OSError as error:
        raise DataError(f"{path}: not readable ({error.strerror}); check the file") from error


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line, object_pairs_hook=_distinct, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise DataError(f"{path} row {number}: not JSON ({error.msg}); fix the line") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} row {number}: not usable as JSON ({error}); fix the line") from error
    if not isinstance(row, dict):
        raise DataError(f"{path} row {number}: expected an object, got {type(row).__name__}; fix the line")
    return row


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("a key occurs twice")
    return row


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")
