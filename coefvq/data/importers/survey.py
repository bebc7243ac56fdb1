"""What can only be said over all rows: ids are distinct, offsets are of one kind, label values occur."""

from __future__ import annotations

from coefvq.data.importers.ids import IdRule
from coefvq.data.importers.labels import LabelCheck, Labels
from coefvq.data.importers.rows import Row
from coefvq.data.importers.seen import Seen
from coefvq.data.importers.sources import Source
from coefvq.errors import DataError

_MAX_COLUMNS = 1000


class Survey:
    """One look at all rows before any clip is touched; grows on disk, not in memory."""

    def __init__(self, source: Source, labels: Labels, id_of: IdRule) -> None:
        self._origin, self._labels, self._id_of = source.origin, labels, id_of
        self._check = LabelCheck(source.origin, labels)
        self._seen = Seen()
        self._columns: dict[str, None] = {}  # in the order met
        self._first: dict[str, str] = {}  # what was met first where, e.g. "with id" -> place
        self.count = 0

    def add(self, row: Row) -> None:
        """Take one row into account.

        Raises:
            DataError: it contradicts an earlier one.
        """
        self.count += 1
        self._columns.update(dict.fromkeys(row.raw))
        if len(self._columns) > _MAX_COLUMNS:
            raise DataError(f"{row.place}: more than {_MAX_COLUMNS} different columns so far; use the same in each row")
        self._check_id(row)
        self._check_offset(row)
        for issue, source in self._labels.items():
            self._check.add(issue, row.raw.get(source.column))

    @property
    def columns(self) -> tuple[str, ...]:
        """The user's columns in the order met."""
        return tuple(self._columns)

    def finish(self) -> None:
        """Say what is wrong with the whole.

        Raises:
            DataError: no rows, or a label column or positive value that never occurs.
        """
        if not self.count:
            raise DataError(f"{self._origin}: no rows; add at least one video")
        for issue in self._labels:
            self._check.finish(issue, self.columns)

    def _check_id(self, row: Row) -> None:
        given, uri = row.words["video_id"], row.words["uri"]
        self._no_mixture(row.place, given is not None, "a video_id", "none", "give every row one, or no row")
        video_id = self._id_of(uri) if given is None else given
        first = self._seen.first("row", video_id, row.place)
        if first is not None:
            where = first.removeprefix(row.place.rpartition(" row ")[0] + " ")
            raise DataError(
                f"{row.place}: duplicate video_id '{video_id[:80]}' (first in {where}); "
                "give each video its own id or delete one row"
            )

    def _check_offset(self, row: Row) -> None:
        if row.zoned is not None:
            remedy = "write all published_at with an offset, or all without (then read as UTC)"
            self._no_mixture(row.place, row.zoned, "an offset in published_at", "no offset", remedy)

    def _no_mixture(self, place: str, present: bool, yes: str, no: str, remedy: str) -> None:
        self._first.setdefault(yes if present else f"not {yes}", place)
        other = self._first.get(f"not {yes}" if present else yes)
        if other is not None:
            this = yes if present else no
            that = no if present else yes
            raise DataError(f"{place}: {this}, but {that} in {other}; {remedy}")
