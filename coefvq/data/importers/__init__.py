"""Bring a user's clips and table into manifest words: VideoFolder, CSV, JSONL (also ms-swift's), Parquet.

``open_table`` looks at every row once, in bounded memory, and says what is wrong before any clip is
touched; ``CheckedTable.rows`` then streams them. ``import_table`` is the short way for small tables.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from coefvq.config import LabelSource
from coefvq.data.importers.blocks import Block, Cells, columns_of, read_blocks
from coefvq.data.importers.columns import is_family, read_names
from coefvq.data.importers.ids import IdRule, id_from_path
from coefvq.data.importers.labels import LabelCheck, to_label
from coefvq.data.importers.left_out import LeftOut, not_taken
from coefvq.data.importers.renames import absent, unused_line
from coefvq.data.importers.rows import read_rows
from coefvq.data.importers.seen import Fingerprints
from coefvq.data.importers.sources import Part, Source, find_source, stamp
from coefvq.data.importers.survey import Survey
from coefvq.errors import DataError
from coefvq.records import CAPTION, label_column, posterior_column
from coefvq.terminal import say

__all__ = ["CheckedTable", "ImportedTable", "Naming", "apply_labels", "find_source", "import_table", "open_table"]

_SHOWN_COLUMNS = 40


@dataclass(frozen=True)
class Naming:
    """What a user's table calls things: ``columns`` is ``ingest.columns``, absolute paths lie below ``media``.

    ``media`` None is the table's folder. A column of the mapping that the table lacks is refused, or, where the
    table may well have fewer (``lenient``: one to score), said on stderr.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    media: Path | None = None
    lenient: bool = False

    def check(self, source: Source, columns: Sequence[str]) -> None:
        """Look for the columns of the mapping among those of a table.

        Raises:
            DataError: one is not there.
        """
        for word, column in () if source.is_scan else absent(columns, self.columns).items():
            if not self.lenient:
                raise DataError(
                    f"{source.origin}: no column '{column}' (ingest.columns.{word}); add it, name another, or take "
                    f"{word} out of ingest.columns; columns there: {', '.join(columns[:_SHOWN_COLUMNS])}"
                )
            say(f"{source.origin}: no column '{column}' (ingest.columns.{word}), so {word} is empty")


_PLAIN = Naming()


@dataclass(frozen=True)
class CheckedTable:
    """A table whose ``count`` rows all fit; ``columns`` are the user's, in the order met."""

    source: Source
    labels: Mapping[str, LabelSource] | None
    count: int
    columns: tuple[str, ...]
    id_of: IdRule
    stamps: tuple[tuple[int, int], ...]
    others: frozenset[str] | None = None

    def unused_line(self) -> str:
        """One line that names the columns nothing reads; empty where all are read, or the clips have no table."""
        own = {source.column for source in (self.labels or {}).values()}
        used = [name for name in self.columns if name in own or name in read_names() or is_family(name)]
        return "" if self.source.is_scan else unused_line(self.columns, used)

    @property
    def posteriors(self) -> tuple[str, ...]:
        """Columns of known P(positive)."""
        return tuple(name for name in self.columns if name.startswith(posterior_column("")))

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows in manifest words; ``sha256`` is the hash the user expects, or None.

        Raises:
            DataError: the table is another one by now.
        """
        return (words for _, words in self.raw_rows())

    def raw_rows(self) -> Iterator[tuple[Mapping[str, Any], dict[str, Any]]]:
        """Each row as the user gave it, and in manifest words.

        Raises:
            DataError: the table is another one by now.
        """
        self._check_unchanged()
        nothing: dict[str, Any] = dict.fromkeys(self.posteriors, float("nan"))
        if CAPTION in self.columns:
            nothing[CAPTION] = ""
        for row in read_rows(self.source, self.labels, others=self.others):
            given = row.words["video_id"]
            video_id = self.id_of(row.words["uri"]) if given is None else given
            yield row.raw, {**nothing, **row.words, "video_id": video_id}
        self._check_unchanged()

    def columns_by_block(self, words: Collection[str]) -> Iterator[tuple[Cells, Cells]]:
        """The manifest columns ``words`` and ``video_id``, some hundred or thousand rows at a time, and the user's own.

        Raises:
            DataError: the table is another one by now.
        """
        self._check_unchanged()
        for cells, others in columns_of(read_blocks(self.source, self.labels, others=self.others, words=words)):
            given = zip(cells["video_id"], cells["uri"], strict=True)
            yield {**cells, "video_id": [self.id_of(uri) if one is None else one for one, uri in given]}, others
        self._check_unchanged()

    def _check_unchanged(self) -> None:
        if tuple(stamp(part) for part in self.source.parts) != self.stamps:
            raise DataError(f"{self.source.origin}: changed while it was read; run again when it is complete")


def open_table(
    source: Path,
    format: str = "auto",
    labels: Mapping[str, LabelSource] | None = None,
    id_of: IdRule = id_from_path,
    naming: Naming = _PLAIN,
    others: Collection[str] | None = None,
) -> CheckedTable:
    """Check every row of a folder or table of clips; ``labels`` adds ``label_<issue>`` (0, 1 or None).

    Parquet columns that neither ``labels`` nor the manifest name are not read, except without ``labels``; of those,
    ``others`` are read alone where it is given. ``id_of`` gives rows without a ``video_id`` theirs, ``naming`` says
    what the columns are called. What separates a table's fields is said on stderr if it is no comma.

    Raises:
        DataError: something does not fit; the message names file, row, column and remedy.
    """
    found = replace(find_source(source, format), renames=naming.columns, other_media=naming.media)
    stamps = tuple(stamp(part) for part in found.parts)
    survey = _surveyed(found, labels, id_of, others)
    naming.check(found, survey.columns)
    kept = None if others is None else frozenset(others)
    return CheckedTable(found, labels, survey.count, survey.columns, id_of, stamps, kept)


def _surveyed(source: Source, labels: Mapping[str, LabelSource] | None, id_of: IdRule,
              others: Collection[str] | None) -> Survey:  # fmt: skip
    """The survey of a table that fits.

    Ids are compared one by one only where two may be equal, or where another row does not fit: of two mistakes the
    first in the table is said.
    """
    fingerprints = Fingerprints()
    with suppress(DataError):
        survey = _survey(source, labels, Survey(source, labels or {}, id_of, fingerprints), others, say=True)
        if not fingerprints.may_repeat():
            return survey
    return _survey(source, labels, Survey(source, labels or {}, id_of), others, say=False)


def _survey(source: Source, labels: Mapping[str, LabelSource] | None, survey: Survey, others: Collection[str] | None,
            say: bool) -> Survey:  # fmt: skip
    for read in read_blocks(source, labels, say=say, others=others):
        if isinstance(read, Block):
            survey.add_block(read)
        else:
            survey.add(read)
    survey.finish()
    return survey


@dataclass(frozen=True)
class ImportedTable:
    """All rows, the user's columns and manifest words; ``frame.uri`` is relative to ``root``.

    ``parts`` is what was read, ``left_out`` what a scanned folder holds beside clips.
    """

    frame: pd.DataFrame
    root: Path
    source: Path
    parts: tuple[Part, ...] = ()
    left_out: LeftOut = field(default_factory=LeftOut)


def import_table(
    source: Path, format: str = "auto", id_of: IdRule = id_from_path, naming: Naming = _PLAIN
) -> ImportedTable:
    """Read a folder or table of clips into memory; the user's own columns stay beside the manifest words.

    ``id_of`` gives rows without a ``video_id`` theirs, ``naming`` says what the columns are called.

    Raises:
        DataError: something does not fit; the message names file, row, column and remedy.
    """
    table = open_table(source, format, id_of=id_of, naming=naming)
    nothing = dict.fromkeys(table.columns)
    rows = [{**nothing, **raw, **words} for raw, words in table.raw_rows()]
    numbers = {"views": "Int64", "weight": "float64", **dict.fromkeys(table.posteriors, "float64")}
    found, frame = table.source, pd.DataFrame(rows, dtype=object).astype(numbers)
    return ImportedTable(frame, found.root, found.origin, found.parts, not_taken(found))


def apply_labels(table: ImportedTable, labels: Mapping[str, LabelSource]) -> pd.DataFrame:
    """Add ``label_<issue>`` (nullable 0/1) from the column each issue names to a table in memory.

    Raises:
        DataError: the column is absent, or a value is not 0/1 where no positive values are named.
    """
    frame = table.frame.copy()
    check = LabelCheck(table.source, labels)
    for issue, source in labels.items():
        column = [None if is_gap(value) else value for value in table.frame.get(source.column, [])]
        for value in column:
            check.add(issue, value)
        check.finish(issue, [str(name) for name in table.frame.columns])
        # rows as a person counts them in an editor: a CSV's header is line 1
        first = 2 if table.source.suffix.lower() == ".csv" else 1
        places = (f"{table.source} row {number}" for number in range(first, first + len(frame)))
        values = [to_label(place, source, issue, value) for place, value in zip(places, column, strict=True)]
        frame[label_column(issue)] = pd.array(values, dtype="Int8")
    return frame


def is_gap(value: Any) -> bool:
    """Whether pandas means an empty cell."""
    return value is None or bool(pd.api.types.is_scalar(value) and pd.isna(value))
