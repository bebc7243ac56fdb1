"""A user's row in manifest words, checked by itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from coefvq.data.importers import swift, values
from coefvq.data.importers.columns import PATH_COLUMNS, Expected, table_columns
from coefvq.data.importers.labels import Labels, to_label
from coefvq.data.importers.renames import proposed, renamed
from coefvq.data.importers.sources import Part, Source, clips_below, scanned_row
from coefvq.data.importers.tables import open_table_file, say_separator
from coefvq.data.importers.text_readers import RawTable
from coefvq.data.remote import is_url
from coefvq.errors import DataError
from coefvq.records import CAPTION, SPLITS, label_column, posterior_column

#: optional names of a row's groups
TEXTS = ("creator_id", "source_id")
#: how columns of known posteriors begin
POSTERIOR = posterior_column("")


@dataclass(frozen=True, slots=True)
class Row:
    """One video: ``words`` are manifest columns (``video_id`` None where not given), ``raw`` the user's own."""

    place: str
    words: dict[str, Any]
    raw: Mapping[str, Any]
    zoned: bool | None


def read_rows(
    source: Source, labels: Labels | None, *, say: bool = False, others: Collection[str] | None = None
) -> Iterator[Row]:
    """All rows in order, each checked by itself.

    Without ``labels`` no column of the user's is left out, unless ``others`` says which are read beside the known ones.

    With ``say``, separators other than a comma are named on stderr.

    Raises:
        DataError: a row or file does not fit; the message names file, row, column and remedy.
    """
    base = source.media.resolve()
    for part in source.parts:
        if part.kind == "scan":
            for clip in clips_below(part.path):
                yield _row(str(clip), scanned_row(part.path, clip), part, labels or {}, base)
            continue
        table = _table(part, labels, source.renames, others)
        if say:
            say_separator(part.path, table)
        for number, raw in table.rows:
            yield table_row(source, part, labels or {}, base, number, raw, table.decimal_comma)


def table_row(
    source: Source, part: Part, labels: Labels, base: Path, number: int, raw: Mapping[str, Any], decimal_comma: bool
) -> Row:
    """Row ``number`` of a table, checked by itself; ``base`` is the source's media folder without links.

    Raises:
        DataError: it does not fit.
    """
    place = f"{part.path} row {number}"
    flat = swift.flatten(place, raw) if swift.is_swift(raw) else raw
    return _row(place, renamed(place, flat, source.renames), part, labels, base, decimal_comma)


def _table(part: Part, labels: Labels | None, renames: Mapping[str, str], others: Collection[str] | None) -> RawTable:
    expected, wanted = wanted_columns(labels, renames, others)
    return open_table_file(part.path, part.kind, expected, wanted)  # type: ignore[arg-type]  # a folder was read above


def wanted_columns(
    labels: Labels | None, renames: Mapping[str, str], others: Collection[str] | None
) -> tuple[Expected, Callable[[str], bool]]:
    """What is looked for in a table, and which of its columns are read."""
    expected = table_columns((source.column for source in (labels or {}).values()), renames)
    every, used = labels is None and others is None, expected.names.union(others or ())
    return expected, lambda name: every or name in used or name.startswith(POSTERIOR)


def _row(
    place: str, raw: Mapping[str, Any], part: Part, labels: Labels, base: Path, decimal_comma: bool = False
) -> Row:
    get = raw.get
    published = values.moment(place, "published_at", get("published_at"))
    words: dict[str, Any] = {
        "video_id": values.text(place, "video_id", get("video_id")),
        "uri": clip_uri(place, raw, part.folder, base),
        "sha256": values.sha256(place, "sha256", get("sha256")),
        "title": values.text(place, "title", get("title")) or "",
        "stickers": values.texts(place, "stickers", get("stickers")),
        "published_at": None if published is None else published[0],
        **{name: values.text(place, name, get(name)) for name in TEXTS},
        "views": values.whole(place, "views", get("views")),
        "weight": values.number(place, "weight", get("weight"), 1.0, positive=True, decimal_comma=decimal_comma),
        "split": _split(place, get("split"), part),
    }
    for issue, source in labels.items():
        words[label_column(issue)] = to_label(place, source, issue, get(source.column))
    if CAPTION in raw:
        words[CAPTION] = values.text(place, CAPTION, raw[CAPTION]) or ""
    for name in raw:
        if name.startswith(POSTERIOR):
            words[name] = values.number(place, name, get(name), float("nan"), decimal_comma=decimal_comma)
    return Row(place, words, raw, None if published is None else published[1])


def clip_uri(place: str, raw: Mapping[str, Any], folder: str, base: Path) -> str:
    """The path or URL that a row gives, relative to the root where it lies below it.

    Raises:
        DataError: there is none.
    """
    column = next((name for name in PATH_COLUMNS if name in raw), None)
    if column is None:
        near = proposed(raw).get("uri", "COLUMN")
        raise DataError(
            f"{place}: no column file_name; add one with each clip's path relative to the folder, or name yours: "
            f"ingest.columns.uri: {near}"
        )
    uri = values.text(place, column, raw[column])
    if uri is None:
        raise DataError(f"{place}: empty file name ({column}); give the clip's path or delete the row")
    if is_url(uri):
        _check_address(place, column, uri)
    if uri.startswith("/"):
        return _below(uri, base)
    return uri if not folder or is_url(uri) else f"{folder}/{uri}"


def _below(path: str, base: Path) -> str:
    """An absolute path relative to the root that it lies below; another stays as it is, and probing rejects it."""
    # links of the folders resolve, the clip's own name stays: its id is made of it
    folder, name = os.path.split(path)
    try:
        place = Path(os.path.realpath(folder), name)
    except (OSError, ValueError):  # a circle of links, a zero byte
        return path
    return place.relative_to(base).as_posix() if name and place.is_relative_to(base) else path


def _check_address(place: str, column: str, url: str) -> None:
    try:
        urlsplit(url)
    except ValueError as error:
        raise DataError(f"{place}: {column} is no address ({error}); correct it or delete the row") from error


def _split(place: str, value: Any, part: Part) -> str | None:
    split = values.choice(place, "split", value, SPLITS)
    if split is not None and part.split not in (None, split):
        raise DataError(f"{place}: split = '{split}' in a folder of split '{part.split}'; correct one of them")
    return split or part.split
