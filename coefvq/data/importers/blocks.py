"""Neighbouring rows of a table column by column: the values of ``read_rows`` without a dictionary for each row.

Blocks come of Parquet without label columns, where every cell of a batch fits as it is; all else comes as rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coefvq.data.importers import column_cells as cells
from coefvq.data.importers.columns import PATH_COLUMNS
from coefvq.data.importers.labels import Labels
from coefvq.data.importers.parquet_reader import Batch, batch_rows, read_batches
from coefvq.data.importers.renames import renamed
from coefvq.data.importers.rows import POSTERIOR, TEXTS, Row, clip_uri, read_rows, table_row, wanted_columns
from coefvq.data.importers.sources import Part, Source
from coefvq.errors import DataError
from coefvq.records import CAPTION, SPLITS

if TYPE_CHECKING:
    import pyarrow as pa


#: cells by column
Cells = dict[str, list[Any]]
_RUN = 256  # rows


@dataclass(frozen=True, slots=True)
class Block:
    """Rows ``first``, ``first`` + 1, … of the table ``path``; ``words`` are manifest columns as in ``Row.words``.

    ``columns`` names the user's columns, ``others`` holds those that were asked for beside the known ones. ``zoned``
    has a flag per row: the row's time names an offset (None: the row has no time).
    """

    path: Path
    first: int
    words: Cells
    columns: tuple[str, ...]
    others: Cells
    zoned: list[bool | None]

    def __len__(self) -> int:
        return len(self.zoned)

    def place(self, index: int) -> str:
        """File and row, as messages name them."""
        return f"{self.path} row {self.first + index}"

    def rows(self) -> Iterator[Row]:
        """The rows one by one; of the user's columns only ``others`` have values."""
        nothing = dict.fromkeys(self.columns)
        for index, zoned in enumerate(self.zoned):
            words, raw = ({name: cell[index] for name, cell in part.items()} for part in (self.words, self.others))
            yield Row(self.place(index), words, {**nothing, **raw}, zoned)


def read_blocks(
    source: Source,
    labels: Labels | None,
    *,
    say: bool = False,
    others: Collection[str] | None = None,
    words: Collection[str] | None = None,
) -> Iterator[Block | Row]:
    """As ``read_rows``, in blocks where it can be; of a block only the columns ``words`` are looked at, if given.

    Raises:
        DataError: as ``read_rows``.
    """
    if labels or any(part.kind != "parquet" for part in source.parts):
        yield from read_rows(source, labels, say=say, others=others)
        return
    import pyarrow as pa

    base = source.media.resolve()
    expected, wanted = wanted_columns(labels, source.renames, others)
    for part in source.parts:
        for batch in read_batches(part.path, wanted):
            expected.check(str(part.path), batch.names)
            try:
                block = _block(batch, source, part, base, others or (), words)
            except (DataError, ValueError, OverflowError, pa.ArrowException):
                # which row does not fit, and why, is said by the reader of rows
                yield from (table_row(source, part, {}, base, *row, False) for row in batch_rows(part.path, batch))
            else:
                yield block


def columns_of(read: Iterable[Block | Row]) -> Iterator[tuple[Cells, Cells]]:
    """Manifest columns of blocks and of runs of single rows, and the user's columns that were asked for."""
    run: list[Row] = []
    for item in read:
        if isinstance(item, Block) or len(run) == _RUN:
            yield from _columns(run)
            run = []
        if isinstance(item, Block):
            yield item.words, item.others
        else:
            run.append(item)
    yield from _columns(run)


def _columns(run: Sequence[Row]) -> Iterator[tuple[Cells, Cells]]:
    if run:
        words, raw = ([row.words for row in run], [row.raw for row in run])
        yield _columnwise(words), _columnwise(raw)


def _columnwise(rows: Sequence[Mapping[str, Any]]) -> Cells:
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}


def _block(
    batch: Batch, source: Source, part: Part, base: Path, others: Collection[str], wanted: Collection[str] | None
) -> Block:
    """A batch in manifest words, all or the ``wanted``.

    Raises:
        DataError: a cell does not fit, or rows have to be looked at one by one.
    """
    _check_types(batch.cells)
    nulls = _nulls(batch.cells.num_rows)
    own = dict(zip(batch.cells.schema.names, batch.cells.columns, strict=True))
    columns = renamed(str(part.path), {name: own.get(name, nulls) for name in batch.names}, source.renames)
    published = cells.moment("published_at", columns.get("published_at", nulls))
    readers: dict[str, Callable[[pa.Array], list[Any]]] = {
        "video_id": partial(cells.text, "video_id"),
        "uri": lambda _: _uris(columns, part, base),
        "sha256": partial(cells.sha256, "sha256"),
        "title": lambda column: [title or "" for title in cells.text("title", column)],
        "stickers": partial(cells.texts, "stickers"),
        "published_at": lambda _: [None if moment is None else moment[0] for moment in published],
        **{name: partial(cells.text, name) for name in TEXTS},
        "views": partial(cells.whole, "views"),
        "weight": partial(cells.number, "weight", default=1.0, positive=True),
        "split": lambda column: _splits(column, part),
    }
    if CAPTION in columns:
        readers[CAPTION] = lambda column: [caption or "" for caption in cells.text(CAPTION, column)]
    for name in (name for name in columns if name.startswith(POSTERIOR)):
        readers[name] = partial(cells.number, name, default=math.nan)
    chosen = readers if wanted is None else {name: read for name, read in readers.items() if name in wanted}
    words = {name: read(columns.get(name, nulls)) for name, read in chosen.items()}
    zoned = [None if moment is None else moment[1] for moment in published]
    asked = {name: columns[name].to_pylist() for name in others if name in columns}
    return Block(part.path, batch.before + 1, words, tuple(columns), asked, zoned)


def _check_types(batch: pa.RecordBatch) -> None:
    """Refuse columns whose cells count differently in each row: floats of few bits, and chats."""
    import pyarrow as pa

    if any(pa.types.is_float16(kind) or pa.types.is_float32(kind) for kind in batch.schema.types):
        raise DataError("floats of few bits")
    if "messages" in batch.schema.names and batch.column("messages").null_count < batch.num_rows:
        raise DataError("chats")


def _nulls(rows: int) -> pa.Array:
    import pyarrow as pa

    return pa.nulls(rows)


def _uris(columns: Mapping[str, pa.Array], part: Part, base: Path) -> list[str]:
    name = next((name for name in PATH_COLUMNS if name in columns), None)
    if name is None:
        raise DataError(f"{part.path}: no column of paths")
    return [
        clip_uri(str(part.path), {name: uri}, part.folder, base)
        if uri is None or part.folder or uri.startswith("/") or "://" in uri
        else uri
        for uri in cells.text(name, columns[name])
    ]


def _splits(column: pa.Array, part: Part) -> list[str | None]:
    found = cells.choice("split", column, SPLITS)
    if part.split is None:
        return found
    if not set(found) <= {None, part.split}:
        raise DataError(f"{part.path}: another split than '{part.split}'")
    return [part.split] * len(found)
