"""What can only be said over all rows: ids are distinct, offsets are of one kind, label values occur."""

from __future__ import annotations

from coefvq.data.importers.blocks import Block
from coefvq.data.importers.ids import IdRule
from coefvq.data.importers.labels import LabelCheck, Labels
from coefvq.data.importers.rows import Row
from coefvq.data.importers.seen import Fingerprints, Seen
from coefvq.data.importers.sources import Source
from coefvq.errors import DataError

_MAX_COLUMNS = 1000
_ROW = "row"


class Survey:
    """One look at all rows before any clip is touched; grows on disk, not in memory.

    With ``fingerprints`` ids are not compared but noted there, eight bytes for each.
    """

    def __init__(self, source: Source, labels: Labels, id_of: IdRule, fingerprints: Fingerprints | None = None) -> None:
        self._fingerprints = fingerprints
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
        self._check_offset(row.place, row.zoned)
        for issue, source in self._labels.items():
            self._check.add(issue, row.raw.get(source.column))

    def add_block(self, block: Block) -> None:
        """Take neighbouring rows into account; labels are in none of them.

        Raises:
            DataError: one contradicts an earlier one.
        """
        if not self._is_of_one_kind(block):
            for row in block.rows():
                self.add(row)
            return
        self.add(next(block.rows()))
        timed = next((index for index, zoned in enumerate(block.zoned) if zoned is not None), 0)
        self._check_offset(block.place(timed), block.zoned[timed])
        given = block.words["video_id"]
        ids = given if given[0] is not None else [self._id_of(uri) for uri in block.words["uri"]]
        rest = range(1, len(block))
        self.count += len(rest)
        if self._fingerprints is not None:
            self._fingerprints.add_all(ids[1:])
            return
        places = [block.place(index) for index in rest]
        if self._seen.add_all(_ROW, ids[1:], places) < len(rest):
            for index, place in zip(rest, places, strict=True):
                self._check_first(place, ids[index], self._seen.get(_ROW, ids[index]))

    def _is_of_one_kind(self, block: Block) -> bool:
        """Whether all rows have an id or none, and all times an offset or none, so that one stands for all."""
        given = {video_id is not None for video_id in block.words["video_id"]}
        return len(given) == 1 and len({*block.zoned} - {None}) <= 1

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
        if self._fingerprints is not None:
            self._fingerprints.add_all([video_id])
            return
        self._check_first(row.place, video_id, self._seen.first(_ROW, video_id, row.place))

    def _check_first(self, place: str, video_id: str, first: str | None) -> None:
        """Refuse an id that was met in another row first."""
        if first not in (None, place):
            where = first.removeprefix(place.rpartition(" row ")[0] + " ")
            raise DataError(
                f"{place}: duplicate video_id '{video_id[:80]}' (first in {where}); "
                "give each video its own id or delete one row"
            )

    def _check_offset(self, place: str, zoned: bool | None) -> None:
        if zoned is not None:
            remedy = "write all published_at with an offset, or all without (then read as UTC)"
            self._no_mixture(place, zoned, "an offset in published_at", "no offset", remedy)

    def _no_mixture(self, place: str, present: bool, yes: str, no: str, remedy: str) -> None:
        self._first.setdefault(yes if present else f"not {yes}", place)
        other = self._first.get(f"not {yes}" if present else yes)
        if other is not None:
            this = yes if present else no
            that = no if present else yes
            raise DataError(f"{place}: {this}, but {that} in {other}; {remedy}")
