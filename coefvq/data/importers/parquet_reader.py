"""Parquet, batch by batch in bounded memory.

Before a row group is read, the footer says how large its columns are, and the dictionaries of its texts
how long a text is that a few bytes of index may repeat. Only columns that are used are read at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coefvq.data.importers.values import MAX_TEXT, ShortFloat
from coefvq.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from coefvq.data.importers.text_readers import RawRow

_BATCH = 256  # rows
_LARGE_BATCH = 4096  # rows, where texts are short
_BATCH_BYTES = 2**25  # of texts that dictionaries may repeat
_PIECE_BYTES = 2**20  # of a column of the file
_MAX_COLUMN_BYTES = 256 * 2**20  # of one column in one row group, uncompressed
_MAX_COLUMN_VALUES = 2**24
_MAX_LIST_BYTES = 2**31  # items of lists times the longest text: what a single row might become


@dataclass(frozen=True, slots=True)
class Batch:
    """Neighbouring rows: ``before`` of the table come first, ``names`` are all its columns, read or not."""

    before: int
    names: tuple[str, ...]
    cells: pa.RecordBatch


def read_parquet(path: Path, wanted: Callable[[str], bool]) -> Iterator[RawRow]:
    """Rows of a Parquet table with their numbers from 1; only columns that are ``wanted`` have values.

    Raises:
        DataError: not Parquet, a column twice, or a column that would not fit into memory.
    """
    for batch in read_batches(path, wanted):
        yield from batch_rows(path, batch)


def batch_rows(path: Path, batch: Batch) -> Iterator[RawRow]:
    """Rows of a batch with their numbers.

    Raises:
        DataError: a text is not UTF-8, or a date out of range.
    """
    nothing = dict.fromkeys(batch.names)
    for start in range(0, batch.cells.num_rows, _BATCH):
        part = batch.cells.slice(start, _BATCH)
        for number, row in enumerate(_rows(path, batch.before + start, part), start=batch.before + start + 1):
            yield number, {**nothing, **row}


def read_batches(path: Path, wanted: Callable[[str], bool]) -> Iterator[Batch]:
    """Batches of a Parquet table, of about the same memory; they have the columns that are ``wanted``.

    Raises:
        DataError: not Parquet, a column twice, or a column that would not fit into memory.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        # a piece at a time, or a row group's columns would be in memory before its first row
        with pq.ParquetFile(path, buffer_size=_PIECE_BYTES, pre_buffer=False) as file:
            names = _columns(path, file)
            used = [name for name in names if wanted(name)]
            for group in range(file.num_row_groups):
                _check_sizes(path, file, group)
                widest = _check_dictionaries(path, file, group, used)
                rows = min(max(_BATCH_BYTES // max(widest, 1), _BATCH), _LARGE_BATCH)
                for cells in file.iter_batches(rows, row_groups=[group], columns=used):
                    yield Batch(number, tuple(names), cells)
                    number += cells.num_rows
    except (pa.ArrowException, OSError) as error:
        first = str(error).splitlines()[0]
        raise DataError(f"{path}: not a readable Parquet table ({first}); write it anew") from error


def _columns(path: Path, file: pq.ParquetFile) -> list[str]:
    names = list(file.schema_arrow.names)
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{path}: column '{name}' twice; rename or remove it")
    return names


def _check_sizes(path: Path, file: pq.ParquetFile, group: int) -> None:
    facts = file.metadata.row_group(group)
    for column in map(facts.column, range(facts.num_columns)):
        if column.total_uncompressed_size > _MAX_COLUMN_BYTES or column.num_values > _MAX_COLUMN_VALUES:
            raise DataError(
                f"{path}: row group {group}, column {column.path_in_schema}: {column.total_uncompressed_size} "
                f"bytes, {column.num_values} values: expected at most {_MAX_COLUMN_BYTES} and "
                f"{_MAX_COLUMN_VALUES}; write it with a smaller row_group_size"
            )


def _check_dictionaries(path: Path, file: pq.ParquetFile, group: int, used: list[str]) -> int:
    """Bytes of the longest text of each column's dictionary, in all.

    Texts outside dictionaries are in the file as often as they occur, so their size is known already.
    """
    import pyarrow.parquet as pq

    leaves = [file.schema.column(index) for index in range(len(file.schema))]
    encoded = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    widest = 0
    for name in (name for name in used if any(f"{path}.".startswith(f"{name}.") for path in encoded)):
        with pq.ParquetFile(path, read_dictionary=encoded) as texts:
            batches = texts.iter_batches(_BATCH, row_groups=[group], columns=[name])
            # the whole dictionary comes with the first row that is not empty
            longest = next((size for batch in batches if (size := _longest(batch.column(0)))), 0)
        if longest > 4 * MAX_TEXT:  # bytes; the exact limit in characters is held later
            raise DataError(
                f"{path}: row group {group}: {name} holds a text of {longest} bytes: expected at most {MAX_TEXT} "
                "characters; shorten it"
            )
        items = _items(file, group, name)
        if longest * items > _MAX_LIST_BYTES:
            raise DataError(
                f"{path}: row group {group}: {name} has {items} items of up to {longest} bytes; "
                "write it with a smaller row_group_size"
            )
        widest += longest
    return widest


def _items(file: pq.ParquetFile, group: int, name: str) -> int:
    """Values of a column that lie in lists or structs; 0 for a plain one, whose rows are counted anyway."""
    facts = file.metadata.row_group(group)
    columns = [facts.column(index) for index in range(facts.num_columns)]
    return max((c.num_values for c in columns if c.path_in_schema.startswith(f"{name}.")), default=0)


def _rows(path: Path, before: int, batch: pa.RecordBatch) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except (ValueError, OverflowError) as error:
        place = f"{path} row {before + 1 + _first_bad(batch)}"
        raise DataError(f"{place}: holds text that is not UTF-8 or a date out of range ({error}); fix it") from error
    for name, exact in _short_floats(batch.schema).items():
        for row in rows:
            row[name] = None if row[name] is None else ShortFloat(row[name], exact)
    return rows


def _short_floats(schema: pa.Schema) -> dict[str, int]:
    """Columns of floats below float64, and the largest whole number that such a float holds exactly."""
    import pyarrow as pa

    exact = {pa.float16(): 2**11, pa.float32(): 2**24}
    return {field.name: exact[field.type] for field in schema if field.type in exact}


def _longest(column: pa.Array) -> int:
    """Longest text of a column's dictionaries in bytes, whatever they are nested in."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_dictionary(kind):
        return _longest(column.dictionary)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _longest(column.flatten())
    if pa.types.is_struct(kind):
        return max((_longest(child) for child in column.flatten()), default=0)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        return pc.max(pc.binary_length(column)).as_py() or 0
    return 0


def _first_bad(batch: pa.RecordBatch) -> int:
    for index in range(batch.num_rows):
        try:
            batch.slice(index, 1).to_pylist()
        except (ValueError, OverflowError):
            return index
    return 0
