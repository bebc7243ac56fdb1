"""A first look at a table that nobody has described yet: which column may mean what, and which label values occur."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from coefvq.data.importers import values
from coefvq.data.importers.columns import KNOWN, PATH_COLUMNS, Expected
from coefvq.data.importers.renames import COMMON_NAMES, proposed, renamed, unused_line
from coefvq.data.importers.seen import Seen
from coefvq.data.importers.sources import Source, clips_below, find_source, scanned_row
from coefvq.data.importers.swift import flatten, is_swift
from coefvq.data.importers.tables import open_table_file
from coefvq.errors import DataError

_HEAD = 100  # rows whose columns are looked at; only JSONL has others in later rows
_MOST_VALUES = 1000  # of a label column; more are no labels
# a word that a proposed column must fit in every row, and how that is seen
_FITS: dict[str, Callable[[str, str, Any], object]] = {
    "views": values.whole,
    "published_at": values.moment,
    "stickers": values.texts,
    **dict.fromkeys(("video_id", "title", "creator_id"), values.text),
}


@dataclass
class Look:
    """What one pass over the rows showed.

    ``columns`` are the table's own names, ``renames`` the proposed mapping, ``refused`` says per word why its column
    was not taken. ``labels`` counts the values per label column; ``absolute`` are clips with an absolute path.
    """

    source: Source
    columns: tuple[str, ...]
    renames: dict[str, str]
    rows: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    labels: dict[str, Counter[str]] = field(default_factory=dict)
    absolute: list[str] = field(default_factory=list)

    def unused(self, labels: Iterable[str]) -> str:
        """One line about the columns that nothing reads; empty if all are read."""
        return unused_line(self.columns, {*KNOWN, *labels, *self.renames.values()})


def look_at(path: Path, label_columns: Iterable[str]) -> Look:
    """Read every row of a folder or table once, with the columns called as they most likely are meant.

    Raises:
        DataError: not readable as a table at all.
    """
    source = find_source(path)
    columns = tuple(dict.fromkeys(name for row in islice(_rows(source), _HEAD) for name in row[1]))
    if not columns:
        raise DataError(f"{source.origin}: no rows; add at least one video")
    look = Look(source, columns, proposed(columns))
    look.labels = {name: Counter() for name in label_columns if name in columns}
    ids = Seen()
    for place, row in _rows(source):
        look.rows += 1
        words = renamed(place, row, look.renames)
        for word in list(look.renames):
            if (problem := _problem(place, word, words.get(word), ids)) is not None:
                look.refused[word] = f"{look.renames.pop(word)}: {problem}"
        for name, counts in look.labels.items():
            value = _label(place, name, row.get(name))
            if value is not None and len(counts) < _MOST_VALUES:
                counts[value] += 1
        uri = next((words[name] for name in PATH_COLUMNS if name in words), None)
        if isinstance(uri, str) and uri.strip().startswith("/"):
            look.absolute.append(uri.strip())
    return look


def outside(look: Look, root: Path) -> list[str]:
    """Absolute paths that do not lie below ``root``."""
    base = root.resolve()
    return [path for path in look.absolute if not Path(os.path.realpath(path)).is_relative_to(base)]


def _rows(source: Source) -> Iterable[tuple[str, Mapping[str, Any]]]:
    expected = Expected(KNOWN | {name for names in COMMON_NAMES.values() for name in names})
    lenient = Expected(expected.names, expected.names)  # nothing is misspelt yet
    for part in source.parts:
        if part.kind == "scan":
            yield from ((str(clip), scanned_row(part.path, clip)) for clip in clips_below(part.path))
            continue
        for number, row in open_table_file(part.path, part.kind, lenient, lambda name: True).rows:
            place = f"{part.path} row {number}"
            yield place, flatten(place, row) if is_swift(row) else row


def _problem(place: str, word: str, value: Any, ids: Seen) -> str | None:
    """Why a cell cannot be what the column was taken for."""
    try:
        read = _FITS[word](place, word, value) if word in _FITS else value
    except DataError as error:
        return str(error)
    if word == "video_id":
        if read is None:
            return f"{place}: empty"
        if ids.first("id", str(read), place) is not None:
            return f"{place}: {values.shown(read)} comes again"
    return None


def _label(place: str, column: str, value: Any) -> str | None:
    return str(value) if isinstance(value, bool) else values.text(place, column, value)
