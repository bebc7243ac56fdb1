"""Live pick-up: the worker follows the decision record and changes deployments between two batches.

The next pairs are loaded in a thread beside the running ones. Only when they are ready is their epoch issued and the
reference swapped, so no batch mixes pairs, and a pair that does not load leaves the old one at work. A rollback is
the other way round: its epoch and fence come first, since verdicts of a withdrawn pair are worse than none for a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from coefvq.errors import CoefVQError
from coefvq.vmp.deployment import Deployment
from coefvq.vmp.epochs import FencedError, Order
from coefvq.vmp.loop import Stop

#: loading is dear: after a failure the record is looked at so many times more rarely
_AFTER_A_FAILURE = 10


@dataclass(frozen=True)
class Parts:
    """How a follower meets the world.

    ``order`` reads the decision record. ``load`` makes the deployment of an order and an epoch; it runs in a thread
    and may raise. ``issue`` gets the order's epoch from the index. ``say`` tells a person one line.
    """

    order: Callable[[], Order]
    load: Callable[[Order], Callable[[int], Deployment]]
    issue: Callable[[Order], int]
    say: Callable[[str], None] = lambda line: None


@dataclass
class _Loading:
    order: Order
    future: Future[Callable[[int], Deployment]] = field(repr=False)


class Follower:
    """The deployments of a run that follows the decision record; use it as a context manager."""

    def __init__(
        self,
        parts: Parts,
        stop: Stop,
        interval: float,
        patient: bool = True,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Load what the record names now.

        Args:
            parts: record, loader, index and screen.
            stop: ends a wait for a deployment.
            interval: seconds between looks at the record.
            patient: keep trying where the pair was withdrawn and the one returned to does not load; else raise.
            monotonic: the clock of the looks.

        Raises:
            CoefVQError: there is no record, or its pairs do not load.
        """
        self._parts, self._stop, self._interval, self._monotonic = parts, stop, interval, monotonic
        self._patient = patient
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="coefvq-load")
        self._loading: _Loading | None = None
        self._said = ""
        order = parts.order()
        if order.withdrawn:
            parts.issue(order)  # the fence first: another worker may be running with a withdrawn pair
        made = parts.load(order)
        self._order, self._deployment = order, made(parts.issue(order))
        self._next_look = monotonic() + interval

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def current(self) -> Deployment:
        """The deployment of the next batch; returns at once unless the present one was withdrawn."""
        if self._monotonic() >= self._next_look:
            self._look()
        self._swap_if_ready()
        return self._deployment

    def refused(self, refusal: FencedError) -> None:
        """The running deployment was withdrawn: wait for the next, trying again while it does not load.

        Raises:
            FencedError: the record still names the withdrawn deployment, or the run is not patient and the next
                one does not load.
        """
        withdrawn = self._deployment.epoch
        while not self._stop.is_set():
            self._look()
            if self._loading is None and not self._said:
                raise refusal
            while self._loading is not None and not self._stop.is_set() and not self._loading.future.done():
                self._stop.wait(0.05)
            self._swap_if_ready()
            if self._deployment.epoch > withdrawn:
                return
            if not self._patient:
                raise refusal
            self._stop.wait(self._interval)

    def _look(self) -> None:
        """Read the record; begin to load what is new."""
        self._next_look = self._monotonic() + self._interval
        if self._loading is not None:
            return
        try:
            order = self._parts.order()
            if order.identity == self._order.identity:
                return
            if order.withdraws(self._order.bundle_text):
                self._parts.issue(order)
        except CoefVQError as error:
            self._tell(f"cannot follow the decision record ({error}); {self._order.bundle_text} goes on")
            return
        self._loading = _Loading(order, self._pool.submit(self._parts.load, order))

    def _swap_if_ready(self) -> None:
        if self._loading is None or not self._loading.future.done():
            return
        loading, self._loading = self._loading, None
        try:
            made = loading.future.result()
            epoch = self._parts.issue(loading.order)
        except CoefVQError as error:
            self._tell(f"{loading.order.bundle_text} cannot be taken into service ({error}); "
                       f"{self._order.bundle_text} goes on")  # fmt: skip
            self._next_look = self._monotonic() + _AFTER_A_FAILURE * self._interval
            return
        self._order, self._deployment, self._said = loading.order, made(epoch), ""
        self._parts.say(f"now deciding with {loading.order.bundle_text} (epoch {epoch})")

    def _tell(self, line: str) -> None:
        """Say it once, not at each look."""
        if line != self._said:
            self._said = line
            self._parts.say(line)
