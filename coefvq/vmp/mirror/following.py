"""The mirror's loop: build the copy where there is none, then follow the change feed.

Where the copy stands is kept in it, with its rows, and nowhere else. So a mirror may be killed at any point, and a
server that forgot its last seconds is brought up to date from where it now is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import Protocol

from coefvq.vmp.database import Database
from coefvq.vmp.loop import Stop
from coefvq.vmp.mirror import rows
from coefvq.vmp.mirror.redis_copy import Place, SilentError
from coefvq.vmp.mirror.rows import Head, Row

#: values are about a kilobyte each
PAGE = 500


class Copy(Protocol):
    """Where rows and place go, together; every method may raise SilentError."""

    def check(self) -> str:
        """Raise what is wrong with the place of the copy."""

    def place(self) -> Place | None:
        """What the copy holds."""

    def apply(self, expected: Place | None, rows: list[Row], place: Place) -> int | None:
        """Write rows and move to ``place``; None where another mirror moved meanwhile."""

    def sweep(self, place: Place) -> int | None:
        """Remove rows of earlier generations."""

    def tombstones(self, upto: int, skip: int, limit: int) -> list[tuple[str, int]]:
        """Deleted videos and the numbers of their changes."""

    def drop(self, place: Place, rows: list[tuple[str, int]]) -> int | None:
        """Remove rows that still have these numbers."""


@dataclass(frozen=True)
class Step:
    """What one step did; ``idle``: there was nothing to do. ``why``: the reason to build the copy anew.

    ``cursor`` is the change up to which the copy is whole, ``lag`` how many it is behind, None while it is built. A
    video that changed again counts again, so the videos that are behind are at most so many.
    """

    written: int = 0
    removed: int = 0
    idle: bool = False
    why: str | None = None
    cursor: int = 0
    lag: int | None = None


def follow(
    database: Database,
    copy: Copy,
    *,
    stop: Stop,
    once: bool,
    anew: bool,
    interval: float,
    say: Callable[[str], None],
    on_step: Callable[[Step], None],
    page: int = PAGE,
) -> None:
    """Bring the copy up to date until ``stop`` is set or, with ``once``, until nothing is left to do.

    ``anew`` builds the copy whatever it holds. A copy that does not answer is waited for; ``say`` hears it.

    Raises:
        ConfigError: the copy's server is not set as it has to be.
        SilentError: it does not answer, and ``once`` is on.
        DataError: index or copy cannot be read.
    """
    ready = silent = False
    while not stop.is_set():
        try:
            if not ready:  # also after each outage: it may be another server, or set otherwise
                copy.check()
                ready = True
            done = take_step(database, copy, page, "asked for" if anew else None)
        except SilentError as error:
            if once:
                raise
            if not silent:
                say(f"{error}: waiting for it")
            ready, silent = False, True
            stop.wait(interval)
            continue
        if silent:
            say("the mirror's server answers again")
        silent = False
        if done.why is not None:
            anew = False
            say(f"the mirror is built anew: {done.why}")
        on_step(done)
        if done.idle:
            if once:
                return
            stop.wait(interval)


def take_step(database: Database, copy: Copy, page: int = PAGE, why: str | None = None) -> Step:
    """One change of the copy: begin anew, a page of rows, a sweep, or nothing; ``why`` asks to begin anew.

    Raises:
        SilentError: the copy does not answer; what it holds is whole all the same.
    """
    place, head = copy.place(), rows.head(database)
    if not head.newest:  # an index without a verdict, as a new one before its first batch
        return Step(idle=True, lag=0)
    why = why or reason_anew(database, place, head)
    if why is not None or place is None:
        new = _beginning(place, head)
        return Step(why=why) if copy.apply(place, [], new) is not None else Step()
    if place.phase == "feed" and head.purged > place.purged:
        return _forget(database, copy, place, head, page)
    if place.phase == "sweep":
        gone = copy.sweep(place)
        if gone is None or copy.apply(place, [], _moved(place, phase="feed")) is None:
            return Step()
        return Step(removed=gone, cursor=place.since, lag=head.newest - place.since)
    return _page(database, copy, place, head, page)


def reason_anew(database: Database, place: Place | None, head: Head) -> str | None:
    """Why the feed does not go on from where the copy stands; None where it does."""
    if place is None:
        return "the server holds none"
    if place.index != head.identity:
        return "it is of another index"
    if place.since > head.newest or (place.mark and not rows.knows(database, place.mark, place.anchor)):
        return "the index is an older copy"
    if 0 < place.since < head.purged:
        return "deletions that it had not seen were compacted away"
    return None


def _beginning(place: Place | None, head: Head) -> Place:
    # changes above the feed's end of now come again after the rows were read by key
    mark = head.newest if head.key and head.newest > head.purged else 0
    return Place(generation=token_hex(8), turn=0 if place is None else place.turn + 1, index=head.identity,
                 phase="scan", since=head.newest, after="", mark=mark, anchor=head.key if mark else "",
                 purged=head.purged)  # fmt: skip


def _moved(place: Place, **changes: object) -> Place:
    return replace(place, turn=place.turn + 1, **changes)  # type: ignore[arg-type]


def _page(database: Database, copy: Copy, place: Place, head: Head, page: int) -> Step:
    scanning = place.phase == "scan"
    found = rows.after(database, place.after, page) if scanning else rows.since(database, place.since, page)
    if not found and not scanning:
        return Step(idle=True, cursor=place.since, lag=0)
    if not found:
        moved = _moved(place, phase="sweep", after="")
    elif scanning:
        moved = _moved(place, after=found[-1].key)
    else:
        moved = _moved(place, since=found[-1].number, mark=found[-1].number, anchor=found[-1].key)
    written = copy.apply(place, found, moved)
    if written is None:
        return Step()
    lag = None if scanning else max(0, head.newest - moved.since)
    return Step(written=written, cursor=0 if scanning else moved.since, lag=lag)


def _forget(database: Database, copy: Copy, place: Place, head: Head, page: int) -> Step:
    """Remove tombstones that the index compacted away."""
    gone = kept = 0
    while found := copy.tombstones(head.purged, kept, page):
        there = rows.held(database, (key for key, _ in found))
        removed = copy.drop(place, [one for one in found if one[0] not in there])
        if removed is None:
            return Step(removed=gone)
        gone, kept = gone + removed, kept + len(found) - removed
    copy.apply(place, [], _moved(place, purged=head.purged))
    return Step(removed=gone, cursor=place.since, lag=head.newest - place.since)
