"""A table of a database as a stream: each video as it is now, read by the time of its last change.

A transaction that was opened early may commit late: its rows then stand before rows that were read already. So the
mark, from which the next run goes on, never passes the database's own time less ``settle``: what lies before it was
read when nobody could write there any more. What lies behind it is read at once, and again a few times until it has
settled. A row whose version the index has seen is passed over before any model sees it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Self

from coefvq.vmp.configuration import TableSource
from coefvq.vmp.loop import Stop
from coefvq.vmp.records import Event, Known
from coefvq.vmp.sources.batches import Batch, Poison, Span, place
from coefvq.vmp.sources.messages import Reading
from coefvq.vmp.sources.table_pages import Cells, Page, Row, Table, UnavailableError, mark_place, mark_text
from coefvq.vmp.sources.table_rows import event_of, news

#: rows of a page in which nothing new is expected
_PAGE = 500
#: how often a row is looked for again until it has settled
_SWEEPS = 10


class TableStream:
    """The stream of a table, with one partition; use it as a context manager."""

    def __init__(
        self,
        source: TableSource,
        reading: Reading,
        start: Callable[[], tuple[int, str]],
        known: Callable[[Iterable[str]], Mapping[str, Known]],
        is_kept: Callable[[Poison], bool],
        *,
        stop: Stop,
        once: bool = False,
        say: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare the statements; the database is asked when the context is entered.

        Args:
            source: the table and how it is read.
            reading: makes events of messages.
            start: position and mark that the index has.
            known: what the index knows of videos.
            is_kept: whether a row that makes no event is a dead letter already.
            stop: ends a long search for news.
            once: a database that does not answer ends the run.
            say: tells a person one line.
            clock: seconds, for the time between two sweeps.

        Raises:
            ConfigError: the URL or its driver does not fit.
        """
        self._source, self._reading = source, reading
        self._start, self._known, self._is_kept = start, known, is_kept
        self._stop, self._once, self._say, self._clock = stop, once, say, clock
        self._table = Table(source)
        self._in_hand: Batch | None = None
        #: what the index holds, unless another worker wrote meanwhile
        self._stored: tuple[int, str] | None = None
        #: where the next page begins; all before ``_mark`` is settled, up to ``_cursor`` if ``_is_settled``
        self._cursor: Cells = ()
        self._mark: Cells = ()
        self._is_settled = True
        self._swept_at = self._next_sweep = 0.0
        self._is_at_end = False
        self._said = ""
        self._is_version_told = False

    @property
    def name(self) -> str:
        """The table, or the query by its digest: a query that was changed is read from its start."""
        return self._table.name

    def __enter__(self) -> Self:
        try:
            self._table.page((), 1)
        except BaseException:
            self._table.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._table.close()

    def take(self, limit: int) -> Batch | None:
        """Up to ``limit`` changes that the index has not seen; the same ones until they are settled.

        Raises:
            DataError: the database refuses, or, with ``once``, does not answer.
        """
        if self._in_hand is None:
            stored = self._start()
            if stored != self._stored or self._clock() >= self._next_sweep:
                self._begin_sweep(stored)
            try:
                self._in_hand = self._next_batch(stored, limit)
                self._said = ""
            except UnavailableError as error:
                if self._once:
                    raise
                self._tell(f"{error}; trying again")
        return self._in_hand

    def settle(self) -> None:
        """The batch in hand has taken effect, or another worker was faster: then the index holds something else."""
        assert self._in_hand is not None  # noqa: S101
        span = self._in_hand.spans[0]
        self._stored, self._in_hand = (span.end, span.mark or ""), None

    def _begin_sweep(self, stored: tuple[int, str]) -> None:
        self._stored = stored
        self._cursor = self._mark = mark_place(stored[1])
        self._is_settled, self._is_at_end = True, False
        self._swept_at = self._clock()
        # also where the end is never reached, because the table changes as fast as it is read
        self._next_sweep = self._swept_at + self._source.settle

    def _end_sweep(self) -> None:
        """From now on only what comes behind the last row is read, for as long as the sweep took at least."""
        if not self._is_at_end:
            self._is_at_end, now = True, self._clock()
            pause = max(self._source.settle / _SWEEPS, now - self._swept_at)
            self._next_sweep = now + min(pause, self._source.settle)

    def _next_batch(self, stored: tuple[int, str], limit: int) -> Batch | None:
        """The next news, or a mark that has moved over what is known; None where there is neither."""
        size = limit
        while not self._stop.is_set():
            page = self._table.page(self._cursor, size)
            found, passed = self._news_of(page.rows, limit)
            self._move(Page(passed, page.read_at))
            is_end = len(page.rows) < size and len(passed) == len(page.rows)
            if is_end:
                self._end_sweep()
            moved = mark_text(self._mark, self._table.what) if self._mark else ""
            if found or (is_end and moved != stored[1]):
                return _batch(found, stored[0], moved)
            if is_end:
                return None
            size = max(limit, _PAGE)
        return None

    def _news_of(self, rows: Sequence[Row], limit: int) -> tuple[list[Event | Poison], Sequence[Row]]:
        """Up to ``limit`` pieces of news, and the rows that were looked at for them."""
        made = [event_of(row, self._reading, self.name) for row in rows]
        known = self._known([one.video_id for one in made if isinstance(one, Event)])
        found: list[Event | Poison] = []
        for number, one in enumerate(made):
            told = self._told(one, known.get(one.video_id) if isinstance(one, Event) else None)
            if told is not None:
                found.append(told)
                if len(found) == limit:
                    return found, rows[: number + 1]
        return found, rows

    def _told(self, one: Event | Poison, known: Known | None) -> Event | Poison | None:
        if isinstance(one, Poison):
            return None if self._is_kept(one) else one
        self._check_version(one, known)
        return news(one, known)

    def _move(self, page: Page) -> None:
        """Go on behind a page; the mark follows as far as nobody may write any more."""
        settled_until = page.read_at - self._source.settle
        for row in page.rows:
            self._is_settled = self._is_settled and row.changed_at <= settled_until
            if self._is_settled:
                self._mark = row.place
            self._cursor = row.place

    def _check_version(self, event: Event, known: Known | None) -> None:
        if known is not None and event.source_version < known.seen_version and not self._is_version_told:
            self._is_version_told = True
            self._say(
                f"{self._table.what}: {event.video_id!r:.80} has version {event.source_version}, the index has seen "
                f"{known.seen_version}: it is passed over; {self._source.version} has to grow with each change"
            )

    def _tell(self, line: str) -> None:
        """Say it once, until the database answers again."""
        if line != self._said:
            self._said = line
            self._say(line)


def _batch(found: Sequence[Event | Poison], first: int, mark: str) -> Batch:
    """News with their numbers, which go on from the index's position; a mark that moves alone takes a number too."""
    events = [replace(one, offset=place(0, first + number)) for number, one in enumerate(found)
              if isinstance(one, Event)]  # fmt: skip
    poison = [replace(one, offset=first + number) for number, one in enumerate(found) if isinstance(one, Poison)]
    return Batch(tuple(events), tuple(poison), {0: Span(first, first + max(1, len(found)), mark)})
