"""The one reader of users' tables: whatever a command reads, its cells come from here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from coefvq.data.importers.columns import Expected
from coefvq.data.importers.parquet_reader import read_parquet
from coefvq.data.importers.renames import Renames, renamed
from coefvq.data.importers.text_readers import SEPARATORS, RawRow, RawTable, read_csv, read_jsonl
from coefvq.errors import DataError
from coefvq.terminal import say

TableKind = Literal["csv", "jsonl", "parquet"]
#: suffix of a file -> how it is read
TABLE_SUFFIXES: dict[str, TableKind] = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".parquet": "parquet"}


def read_cells(path: Path, expected: Expected, renames: Renames | None = None) -> RawTable:
    """Rows of a table of any kind, known by its suffix; of Parquet only columns that are ``expected`` have values.

    ``renames`` gives columns of the table a name that is expected. Says on stderr when fields are not separated by a
    comma.

    Raises:
        DataError: no such file, another suffix, or a row does not fit; the message names file, row and remedy.
    """
    kind = TABLE_SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise DataError(f"{path}: expected a {', '.join(TABLE_SUFFIXES)} file; convert the table")
    if not path.is_file():
        raise DataError(f"{path}: no such file; check the path")
    named = {word: column for word, column in (renames or {}).items() if word in expected.names}
    wanted = Expected(expected.names | set(named.values()), frozenset(named))
    table = open_table_file(path, kind, wanted, wanted.names.__contains__)
    say_separator(path, table)
    rows = ((number, dict(renamed(f"{path} row {number}", row, named))) for number, row in table.rows)
    return RawTable(rows, table.separator) if named else table


def open_table_file(path: Path, kind: TableKind, expected: Expected, wanted: Callable[[str], bool]) -> RawTable:
    """Rows of one table with their numbers; of Parquet only columns that are ``wanted`` have values.

    Raises:
        DataError: a row or the file does not fit, or a column is most likely an expected one misspelt.
    """
    if kind == "parquet":
        table = RawTable(read_parquet(path, wanted))
    else:
        table = read_csv(path, expected) if kind == "csv" else read_jsonl(path)
    return RawTable(_checked(path, kind, expected, table.rows), table.separator)


def say_separator(path: Path, table: RawTable) -> None:
    """Say on stderr what separates the fields, where it is not a comma: a guess that a person can judge."""
    if table.separator not in (None, ","):
        separator = SEPARATORS[str(table.separator)]
        say(f"{path.name}: fields are separated by {separator}")


def _checked(path: Path, kind: TableKind, expected: Expected, rows: Iterator[RawRow]) -> Iterator[RawRow]:
    last: dict[str, Any] = {}
    for number, row in rows:
        if row.keys() != last.keys():  # only JSONL has other columns in other rows
            expected.check(f"{path} row {number}" if kind == "jsonl" else str(path), list(row))
        last = row
        yield number, row
