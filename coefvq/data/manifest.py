"""The manifest: one Parquet row per video, with fixed columns and types (contract in docs/data.md)."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from coefvq.data.locations import Root, locate, regular_as_written, root_at
from coefvq.data.media.clips import default_cache
from coefvq.data.remote import copy_path, is_url
from coefvq.errors import DataError, MediaError
from coefvq.files import ROOM, atomic_path, check_regular, storage_errors
from coefvq.records import CAPTION, LATER_COLUMNS, MANIFEST_COLUMNS, VideoInput, label_column, posterior_column

if TYPE_CHECKING:
    import pyarrow as pa

#: ends of the columns that hold P(positive): what is known of all factors, and of some of them
_VIEWS = ("", "_vision", "_vision_text")
_DTYPES: dict[str, str] = {
    "video_id": "str",
    "uri": "str",
    "sha256": "str",
    "title": "str",
    "published_at": "str",
    "creator_id": "str",
    "source_id": "str",
    "reason": "str",
    "split": "str",
    "phash": "str",
    "views": "Int64",
    "size_bytes": "Int64",
    "width": "Int64",
    "height": "Int64",
    "weight": "float64",
    "duration_s": "float64",
    "fps": "float64",
    "decode_ok": "bool",
    "has_audio": "bool",
}
_ROWS_AT_ONCE = 2**17  # read before those not asked for are dropped
_PIECE_BYTES = 2**20  # of a column of the file
_INPUT_COLUMNS = ("video_id", "uri", "title", "stickers", "views", "sha256")
_LATER_DTYPES = {"audio_ok": "boolean", "hdr": "str"}


def normalise(frame: pd.DataFrame, issues: Sequence[str]) -> pd.DataFrame:
    """Fixed column order and types; label and posterior columns of ``issues`` follow, and ``caption``.

    Raises:
        DataError: a column is missing.
    """
    missing = [name for name in MANIFEST_COLUMNS if name not in frame.columns]
    if missing:
        raise DataError(f"manifest: column(s) {', '.join(missing)} missing; write it with `coefvq ingest`")
    labels = [label_column(issue) for issue in issues]
    possible = [posterior_column(issue) + view for issue in issues for view in _VIEWS]
    posteriors = [name for name in dict.fromkeys(possible) if name in frame.columns]
    captions = [CAPTION] if CAPTION in frame.columns else []
    later = [name for name in LATER_COLUMNS if name in frame.columns]
    result = frame.loc[:, [*MANIFEST_COLUMNS, *later, *labels, *posteriors, *captions]].copy()
    types = {
        **_DTYPES,
        **{name: _LATER_DTYPES[name] for name in later},
        **dict.fromkeys(captions, "str"),
        **dict.fromkeys(labels, "Int8"),
        **dict.fromkeys(posteriors, "float64"),
    }
    return result.astype(types).reset_index(drop=True)


@contextmanager
def manifest_writer(path: Path, notes: Mapping[str, str] | None = None) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Write normalised rows one row group at a time; the file appears, whole, when all are written.

    ``notes`` are kept in the file, beside its columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with atomic_path(path) as temporary:
        writer: pq.ParquetWriter | None = None

        def write(frame: pd.DataFrame) -> None:
            nonlocal writer
            schema = _schema(frame, notes or {}) if writer is None else writer.schema
            writer = writer or pq.ParquetWriter(temporary, schema)
            writer.write_table(pa.Table.from_pandas(frame, schema=schema, preserve_index=False))

        try:
            yield write
        finally:
            if writer is not None:
                writer.close()


def _schema(frame: pd.DataFrame, notes: Mapping[str, str]) -> pa.Schema:
    import pyarrow as pa

    # from the types, not from the values: a first row group without any sticker must not fix their type
    schema = pa.Schema.from_pandas(frame.head(0), preserve_index=False)
    schema = schema.with_metadata({**(schema.metadata or {}), **notes})
    return schema.set(schema.get_field_index("stickers"), pa.field("stickers", pa.list_(pa.string())))


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write Parquet atomically.

    Raises:
        StorageError: the disk is full, or the folder may not be written.
    """
    with storage_errors(path, ROOM), atomic_path(path) as temporary:
        frame.to_parquet(temporary, index=False)


def read_table(
    path: Path, columns: Sequence[str] = (), skip: Collection[str] = (), video_ids: Collection[str] | None = None
) -> pd.DataFrame:
    """Read Parquet that a stage wrote, without the columns to ``skip``; ``columns`` must be there.

    With ``video_ids`` only rows of these are kept; the others never become Python objects.

    Raises:
        DataError: the file is missing, is not Parquet, lacks a column or has no row.
    """
    import pyarrow.parquet as pq

    remedy = "delete it and run its stage again"
    check_regular(path, missing="run the stage that writes it (dvc repro)", remedy=remedy)
    with parquet_errors(path, remedy):
        schema = pq.read_schema(path)
    for name in columns:
        if name not in schema.names:
            raise DataError(f"{path}: no column '{name}'; {remedy}")
    names = [name for name in schema.names if name not in skip]
    with parquet_errors(path, remedy):
        table = pd.read_parquet(path, columns=names) if video_ids is None else _read_rows(path, names, video_ids)
    if not len(table) and video_ids is None:
        raise DataError(f"{path}: no row; {remedy}")
    if "video_id" in table and not pd.api.types.is_string_dtype(table["video_id"]):
        raise DataError(f"{path}: video_id holds no texts; {remedy}")
    return table


def _read_rows(path: Path, columns: Sequence[str], video_ids: Collection[str]) -> pd.DataFrame:
    """Rows of these videos, a part of the file at a time; all ids are looked up at once, since a lookup hashes them."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, buffer_size=_PIECE_BYTES, pre_buffer=False) as file:
        own = file.read(columns=["video_id"])["video_id"]
        kept = pc.is_in(own, value_set=pa.array(video_ids, type=own.type)).combine_chunks()
        del own
        start, parts = 0, []
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(columns)):
            parts.append(batch.filter(kept.slice(start, len(batch))))
            start += len(batch)
        chosen = [file.schema_arrow.field(name) for name in columns]
        rows: pd.DataFrame = pa.Table.from_batches(parts, pa.schema(chosen, file.schema_arrow.metadata)).to_pandas()
        return rows


def column_names(path: Path) -> frozenset[str]:
    """Columns of a Parquet table that a stage wrote; none where there is no such table, which its reader will say."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return frozenset(pq.read_schema(path).names)
    except (OSError, pa.ArrowException):
        return frozenset()


def empty_columns(path: Path, names: Collection[str], rows: int) -> dict[str, pd.Series[Any]]:
    """``rows`` empty cells of each column that a Parquet table has, in its type; none of its values is read."""
    import pyarrow.parquet as pq

    typed = pq.read_schema(path).empty_table().to_pandas()
    return {name: typed[name].reindex(range(rows)) for name in names if name in typed}


@contextmanager
def parquet_errors(path: Path, remedy: str) -> Iterator[None]:
    """Turn what Arrow raises for a damaged file into one line.

    Raises:
        DataError: in the place of such an error.
    """
    try:
        yield
    # Arrow's own errors derive from these; the last one means that Arrow cannot read a feature of the file
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"{path}: not a Parquet table ({first}); {remedy}") from error


def to_inputs(rows: pd.DataFrame, media_root: Path, protocols: Iterable[str]) -> list[VideoInput]:
    """Manifest rows as model inputs; paths are resolved and stay below ``media_root``, URLs stay URLs.

    A row that leads elsewhere, or to a scheme that is not one of ``protocols``, becomes an input that cannot be read.
    """
    cache, root = default_cache(), root_at(media_root, protocols)
    # column by column: a dictionary of all columns per row would be most of the memory
    cells = zip(*(rows[name].tolist() for name in _INPUT_COLUMNS), strict=True)
    folders: set[str] = set()
    return [_to_input(row, root, cache, folders) for row in cells]


def _to_input(row: tuple[Any, ...], root: Root, cache: Path, folders: set[str]) -> VideoInput:
    video_id, place, title, stickers, views, sha256 = row
    uri = str(place)
    path, refusal = _path(uri, root, cache, folders)
    return VideoInput(
        video_id=str(video_id),
        file=path,
        title=_text(title),
        stickers=tuple(_texts(stickers)),
        views=None if pd.isna(views) else int(views),
        sha256=_text(sha256) or None if refusal is None else None,
        url=uri if is_url(uri) and refusal is None else None,
        refusal=refusal,
    )


def _path(uri: str, root: Root, cache: Path, folders: set[str]) -> tuple[Path, str | None]:
    """Where the bytes are or will be, and why they must not be read; ``folders`` were looked at already."""
    if regular_as_written(uri, root, folders) is not None:
        return root.base / uri, None
    try:
        found = locate(uri, root)
    except MediaError as error:
        if error.reason == "outside_root":
            return Path(os.devnull), str(error)
        # what is missing may still lie decoded in the cache, and otherwise gets its reason from there
        return root.base / uri, None
    return copy_path(uri, cache) if found.path is None else found.path, None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: Iterable[str] | None) -> list[str]:
    return [str(item) for item in value] if value is not None else []
