"""The one table of a raw folder, in a form that new rows can be added to without changing what old rows mean.

Canonical rows: `video_id` and `uri` in every row (ids taken from file names would change when a name comes again),
manifest words typed, the user's own columns as text, `sha256` of the clip where a snapshot added it. Layout `files`
keeps them as metadata.csv beside the clips, `reference` as metadata.parquet without clips. Both are read and written
in chunks, so that size does not matter.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coefvq.config import LabelSource
from coefvq.data.importers import CheckedTable, Naming, open_table
from coefvq.data.importers.columns import CHAT_COLUMNS, PATH_COLUMNS
from coefvq.data.importers.ids import IdRule, id_from_path
from coefvq.data.importers.rows import read_rows
from coefvq.data.importers.values import EXACT
from coefvq.data.manifest import parquet_errors
from coefvq.files import atomic_path
from coefvq.records import posterior_column

Layout = Literal["files", "reference"]
Labels = Mapping[str, LabelSource]
Counts = dict[str, dict[str, int]]
Row = dict[str, Any]

TABLE_NAMES: dict[Layout, str] = {"files": "metadata.csv", "reference": "metadata.parquet"}
#: tables that a folder may hold at its top
READABLE = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.parquet")

_MARK = {b"coefvq": b"canonical-1"}
_REMEDY = "restore it (git checkout, dvc checkout)"
_CHUNK = 16_384
_WORDS = ("title", "stickers", "published_at", "creator_id", "source_id", "views", "weight", "split", "sha256")
_NO_OWN = frozenset({"video_id", *PATH_COLUMNS, *CHAT_COLUMNS, *_WORDS})
# tables that older versions wrote hold whole floats as "42.0"
_WHOLE_FLOAT = re.compile(r"-?\d+\.0", re.ASCII)


def canonical_rows(table: CheckedTable, labels: Labels) -> Iterator[Row]:
    """Rows of an imported table; a key is absent where it would say nothing. Label columns are always there.

    Raises:
        DataError: a label is neither empty nor one of the values params.yaml allows.
    """
    for words, row in zip(table.rows(), read_rows(table.source, labels), strict=True):
        own = {name: _text(value) for name, value in row.raw.items() if name not in _NO_OWN and name not in words}
        for source in labels.values():
            value = row.raw.get(source.column)
            if isinstance(value, bool) and source.positive is None:
                own[source.column] = str(int(value))
        # a column that params.yaml names stays, though it be empty: ingest looks for it
        named = [*(source.column for source in labels.values()), *table.source.renames]
        kept = {name for name in named if name in row.raw}
        yield {name: v for name, v in {**words, **own}.items() if name in kept or not _says_nothing(name, v)}


def read_chunks(
    raw: Path, labels: Labels, id_of: IdRule = id_from_path, naming: Naming | None = None
) -> Iterator[pa.Table]:
    """Canonical rows of a raw folder, chunk by chunk; nothing if the folder is empty.

    ``id_of`` gives rows without a ``video_id`` theirs, which is explicit from then on; ``naming`` says what columns
    are called.

    Raises:
        DataError: the folder's own table is not readable.
    """
    if not raw.is_dir() or all(path.name.startswith(".") for path in raw.iterdir()):
        return
    parquet = raw / TABLE_NAMES["reference"]
    if _is_canonical(parquet):
        with parquet_errors(parquet, _REMEDY), pq.ParquetFile(parquet) as file:
            yield from (pa.Table.from_batches([batch]) for batch in file.iter_batches(_CHUNK))
    else:
        yield from to_chunks(canonical_rows(open_table(raw, id_of=id_of, naming=naming or Naming()), labels))


def to_chunks(rows: Iterable[Row]) -> Iterator[pa.Table]:
    """Rows as Arrow tables of bounded length; each has the columns that occur in it."""
    remaining = iter(rows)
    while chunk := list(islice(remaining, _CHUNK)):
        names = dict.fromkeys(name for row in chunk for name in row)
        schema = pa.schema([column(name) for name in names])
        yield pa.Table.from_pylist(chunk, schema)


def column(name: str) -> pa.Field:
    """Type of a canonical column."""
    if name == "stickers":
        return pa.field(name, pa.list_(pa.string()))
    if name == "views":
        return pa.field(name, pa.int64())
    return pa.field(name, pa.float64() if name == "weight" or name.startswith(posterior_column("")) else pa.string())


def write_table(raw: Path, layout: Layout, chunks: Iterable[pa.Table], columns: Iterable[str]) -> Path:
    """Write the folder's table atomically and take away its tables in other formats; returns the path.

    ``columns`` are all columns; a chunk that lacks one has it empty. CSV calls ``uri`` `file_name`, as the
    VideoFolder layout does.
    """
    target = raw / TABLE_NAMES[layout]
    order = {"uri": 0, "video_id": 1, "sha256": 3}
    schema = pa.schema([column(name) for name in sorted(columns, key=lambda name: order.get(name, 2))], metadata=_MARK)
    with atomic_path(target) as temporary:
        write = _write_csv if layout == "files" else _write_parquet
        write(temporary, schema, (_fitted(chunk, schema) for chunk in chunks))
    for name in READABLE:
        if name != target.name:
            (raw / name).unlink(missing_ok=True)
    return target


def count_labels(chunk: pa.Table, labels: Labels) -> Counts:
    """Labelled and positive rows per issue of canonical rows."""
    counts = {}
    for issue, source in labels.items():
        absent = pa.nulls(len(chunk), pa.string())
        values = chunk[source.column] if source.column in chunk.column_names else absent
        positive = pa.array(source.positive or ("1", "1.0"), pa.string())
        counts[issue] = {
            "labelled": len(chunk) - values.null_count,
            "positive": pc.sum(pc.is_in(values, value_set=positive)).as_py() or 0,
        }
    return counts


def add_counts(first: Counts, second: Counts) -> Counts:
    """Sum per issue; both hold the same issues."""
    return {issue: {key: value + first[issue][key] for key, value in part.items()} for issue, part in second.items()}


def same_facts(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Columns in which two canonical rows differ; the place of the clip and its hash are not looked at."""
    names = {*old, *new} - {"uri", "sha256"}
    return sorted(name for name in names if _fact(name, old.get(name)) != _fact(name, new.get(name)))


def _fact(name: str, value: Any) -> Any:
    if _says_nothing(name, value):
        return None
    is_whole = isinstance(value, str) and _WHOLE_FLOAT.fullmatch(value)
    return value.removesuffix(".0") if is_whole else value


def _says_nothing(name: str, value: Any) -> bool:
    if value is None or value in ("", []):
        return True
    return (name == "weight" and value == 1.0) or (isinstance(value, float) and math.isnan(value))


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return (value or "").strip() or None
    if isinstance(value, float) and value.is_integer() and abs(value) <= EXACT:
        return str(int(value))  # as a whole number, so that a gap elsewhere in the column changes no other row
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)


def _is_canonical(parquet: Path) -> bool:
    if not parquet.is_file():
        return False
    with parquet_errors(parquet, _REMEDY):
        metadata = pq.read_schema(parquet).metadata or {}
    return all(metadata.get(key) == value for key, value in _MARK.items())


def _fitted(chunk: pa.Table, schema: pa.Schema) -> pa.Table:
    have = set(chunk.column_names)
    columns = [chunk[f.name] if f.name in have else pa.nulls(len(chunk), f.type) for f in schema]
    return pa.table(columns, schema=schema)


def _write_parquet(path: Path, schema: pa.Schema, chunks: Iterable[pa.Table]) -> None:
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for chunk in chunks:
            writer.write_table(chunk)


def _write_csv(path: Path, schema: pa.Schema, chunks: Iterable[pa.Table]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        plain = csv.writer(stream, lineterminator="\n")
        quoted = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
        plain.writerow("file_name" if name == "uri" else name for name in schema.names)
        for chunk in chunks:
            for row in chunk.to_pylist():
                cells = [_cell(row[name]) for name in schema.names]
                # the csv module leaves a lone CR unquoted, and readers take it for the end of the line
                (quoted if any("\r" in str(cell) for cell in cells) else plain).writerow(cells)


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
