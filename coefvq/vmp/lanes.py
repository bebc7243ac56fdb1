"""One log, read in turns: a flood of one tenant holds up no event of another.

Each tenant that was ever configured has an offset of its own, under the consumer's name and its own; the rest of the
log, the default tenant's events and those of unknown tenants, keeps the consumer's. A tenant's events stay in their
order. Between tenants there is no order to keep: no video belongs to two. Whose batch is next follows from what waits,
as in the queue of the MLLM (:mod:`coefvq.vmp.shares`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from coefvq.vmp import shares
from coefvq.vmp.budget import Limits
from coefvq.vmp.index import IndexStore
from coefvq.vmp.keys import DEFAULT, SEPARATOR
from coefvq.vmp.log import WINDOW, EventLog
from coefvq.vmp.loop import Sink, Source
from coefvq.vmp.records import BatchReport, Event, Known, SinkRow
from coefvq.vmp.shares import AHEAD, Share, Shares

#: offsets of lanes without events are stored at the end of the log, or when they are so far behind: compaction needs it
_FAR = 10_000


class Lanes:
    """Source and Sink of one loop: batches of one tenant each, stored with that tenant's offset."""

    def __init__(self, log: EventLog, index: IndexStore) -> None:
        self._log, self._index = log, index
        with index.database.reading() as connection:
            self.tenants = tuple(sorted(set(shares.read(connection)) - {DEFAULT}))
        self._parts: Shares = {lane: Share(Limits(), 0.0, 0, 0) for lane in (DEFAULT, *self.tenants)}
        self._consumer, self._at = "", DEFAULT
        #: up to where the log was seen to hold nothing more of a lane
        self._clear: dict[str, int] = {}

    def committed(self, consumer: str) -> int:
        """Offset of the rest; where a tenant goes on is looked up when its turn comes."""
        self._consumer = consumer
        return self._index.committed(consumer)

    def poll(self, after: int, max_n: int) -> list[Event]:
        """Up to ``max_n`` events of the lane whose turn it is, oldest first."""
        end = self._log.last_offset()
        for lane, part in self._parts.items():
            part.waiting = self._look(lane, end)
        ready = [lane for lane, part in self._parts.items() if part.waiting]
        for lane in self._parts:
            if lane not in ready:
                self._pass(lane, end, _FAR if ready else 1)
        if not ready:
            return []
        self._at = shares.first(self._parts, ready)
        events = self._log.poll(self._start(self._at), max_n, self._at, self.tenants)
        shares.take(self._parts[self._at], len(events), len(events))
        return events

    def known(self, video_ids: Iterable[str]) -> dict[str, Known]:
        """As of the index."""
        return self._index.known(video_ids)

    def apply(self, rows: Sequence[SinkRow], consumer: str, offset: int) -> BatchReport:
        """Store rows with the offset of the lane that was polled last."""
        self._consumer = consumer
        return self._index.apply(rows, self._name(self._at), offset)

    def _look(self, lane: str, end: int) -> int:
        """How many events wait in a lane, up to one above ``AHEAD``; what has none is not looked at again."""
        start, waiting = self._start(lane), 0
        while start < end and not (waiting := self._log.waiting(start, AHEAD + 1, lane, self.tenants)):
            start = self._clear[lane] = min(end, start + WINDOW)
        return waiting

    def _start(self, lane: str) -> int:
        return max(self._index.committed(self._name(lane)), self._clear.get(lane, 0))

    def _pass(self, lane: str, end: int, far: int) -> None:
        """Store that a lane has nothing up to ``end``, if its offset is ``far`` behind."""
        if end - self._index.committed(self._name(lane)) >= far:
            self._index.apply([], self._name(lane), end)

    def _name(self, lane: str) -> str:
        return self._consumer if lane == DEFAULT else f"{self._consumer}{SEPARATOR}{lane}"


def ends(log: EventLog, index: IndexStore) -> tuple[Source, Sink]:
    """Source and Sink of a run: log and index, or both by turns where there are tenants."""
    lanes = Lanes(log, index)
    return (lanes, lanes) if lanes.tenants else (log, index)
