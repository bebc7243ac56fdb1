"""CSV and JSONL, row by row in bounded memory; every row knows its line.

Lines are read with a size limit, so a file without line ends is refused, not loaded. A CSV's fields may be separated
by a comma, a semicolon or a tab: the header line decides.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Any

from coefvq.data.importers.columns import Expected
from coefvq.data.importers.values import InexactFloat
from coefvq.errors import DataError

#: largest record of a text table, in characters
MAX_RECORD = 2**20
RawRow = tuple[int, dict[str, Any]]
SEPARATORS = {",": ",", ";": ";", "\t": "a tab"}

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_REMEDY = "save the table as UTF-8 (Excel: CSV UTF-8)"
# Excel writes such a line before the header
_DECLARED = re.compile(r"\ufeff?\"?sep=([,;\t])\"?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class RawTable:
    """Rows with their numbers; ``separator`` is None where the format has none."""

    rows: Iterator[RawRow]
    separator: str | None = None

    @property
    def decimal_comma(self) -> bool:
        """Whether numbers may be written as ``0,75``: spreadsheets that separate by ; or tab write them so."""
        return self.separator in (";", "\t")


class _Lines:
    """Decoded lines of a file, ends kept; ``pending`` characters were handed out since the last ``taken``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pending = 0
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        with self._path.open("rb") as stream:
            if stream.read(2) in _UTF16:
                raise DataError(f"{self._path}: is UTF-16, not UTF-8; {_REMEDY}")
        # lines end at LF, CRLF or a lone CR; bytes that are not UTF-8 come as surrogates, so that a row can be named
        with self._path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            while line := text.readline(MAX_RECORD + 1):
                self.number += 1
                self._pending += len(line)
                if self._pending > MAX_RECORD:
                    raise DataError(
                        f"{self._path} row {self.number}: longer than {MAX_RECORD} bytes; shorten it, or close "
                        "a quote that was left open"
                    )
                self._check(line)
                yield line

    def taken(self) -> None:
        """A record is complete; the next may be as long again."""
        self._pending = 0

    def _check(self, line: str) -> None:
        if "\0" in line:
            raise DataError(f"{self._path} row {self.number}: holds a NUL byte; {_REMEDY}")
        if line.isascii():
            return
        try:
            line.encode("utf-8")
        except UnicodeEncodeError as error:
            position = len(line[: error.start].encode("utf-8")) + 1
            raise DataError(
                f"{self._path} row {self.number}: byte {position} of the line is not UTF-8; {_REMEDY}"
            ) from error


def read_csv(path: Path, expected: Expected) -> RawTable:
    """Records of a table under its header, with the line each begins on.

    Raises:
        DataError: no header, a column twice, a row with more or fewer fields, or broken quotes; also where more than
            one separator fits the header.
    """
    lines = _Lines(path)
    try:
        numbered = iter(lines)
        head = next(numbered, "")
        declared = _DECLARED.fullmatch(head)
        if declared:
            head = next(numbered, "")
        separator = declared[1] if declared else _separator(path, head, expected)
    except OSError as error:
        raise DataError(f"{path}: not readable ({error.strerror}); check the file") from error
    return RawTable(_records(path, lines, chain([head], numbered), separator), separator)


def _separator(path: Path, head: str, expected: Expected) -> str:
    """The separator under which the header names the most expected columns."""
    fields = {separator: next(csv.reader([head], delimiter=separator), []) for separator in SEPARATORS}
    fitting = {separator: names for separator, names in fields.items() if len(names) > 1}
    if not fitting:
        return ","
    counts = {separator: expected.count(names) for separator, names in fitting.items()}
    best = [separator for separator, count in counts.items() if count == max(counts.values())]
    if len(best) > 1:
        names = " as well as by ".join(SEPARATORS[separator] for separator in best)
        raise DataError(
            f"{path} row 1: fields may be separated by {names}; put the separator in a first line such as sep=; or "
            "rename the columns that hold one of them"
        )
    return best[0]


def _records(path: Path, lines: _Lines, text: Iterator[str], separator: str) -> Iterator[RawRow]:
    before = lines.number - 1  # lines ahead of the header; `lines` has handed out the header itself
    records = csv.reader(text, delimiter=separator, strict=True)
    header: list[str] | None = None
    first = before + 1
    try:
        for record in records:
            lines.taken()
            if header is None:
                header = _header(path, first, record)
            elif record:  # a blank line is no record
                if len(record) != len(header):
                    raise DataError(
                        f"{path} row {first}: {len(record)} fields: expected {len(header)} as in the header; "
                        f"quote texts that hold {'a comma' if separator == ',' else SEPARATORS[separator]}"
                    )
                yield first, dict(zip(header, record, strict=True))
            first = before + records.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path} row {first}: not readable as CSV ({error}); fix the row") from error
    except OSError as error:
        raise DataError(f"{path}: not readable ({error.strerror}); check the file") from error


def _header(path: Path, line: int, record: list[str]) -> list[str]:
    names = [name.strip() for name in record]
    seen: set[str] = set()
    for name in names:
        if not name or name in seen:
            what = f"column '{name}' twice" if name else "a column without a name"
            raise DataError(f"{path} row {line}: {what} in the header; rename or remove it")
        seen.add(name)
    return names


def read_jsonl(path: Path) -> RawTable:
    """Objects of a JSON Lines table with their line numbers; blank lines are skipped.

    Raises:
        DataError: a line is not JSON, not an object, or names a key twice.
    """
    return RawTable(_objects(path))


def _objects(path: Path) -> Iterator[RawRow]:
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
        row = json.loads(line, object_pairs_hook=_distinct, parse_constant=_no_constant, parse_float=_number)
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


def _number(written: str) -> float:
    """A JSON number with a point or an exponent; one that cannot be text again is marked."""
    value = float(written)
    rounded = value.is_integer() and Decimal(written) != int(value)
    return InexactFloat(value) if rounded or "e" in written.lower() else value
