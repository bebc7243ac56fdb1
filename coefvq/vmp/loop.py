"""The mini-batch loop: Source → Retriever → Filter → Sink (paper, section 2.3).

Nothing is committed before it took effect: a crash at any point repeats the batch in hand.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Protocol

from coefvq.vmp.records import BatchReport, Candidate, Decision, Event, SinkRow
from coefvq.vmp.rows import to_row

CONSUMER = "vmp"


class Source(Protocol):
    """Where events come from; ``poll`` returns at once."""

    def poll(self, after: int, max_n: int) -> list[Event]:
        """Up to ``max_n`` events above offset ``after``, oldest first."""


class Sink(Protocol):
    """Where rows and offsets go, together."""

    def committed(self, consumer: str) -> int:
        """Offset up to which ``consumer`` has taken effect."""

    def apply(self, rows: Sequence[SinkRow], consumer: str, offset: int) -> BatchReport:
        """Store rows and offset in one transaction."""


class Stop(Protocol):
    """What ``threading.Event`` offers and the loop needs."""

    def is_set(self) -> bool:
        """Whether to end after the batch in hand."""

    def wait(self, timeout: float) -> bool:
        """Wait for the signal for at most ``timeout`` seconds; return ``is_set``."""


def run(
    source: Source,
    retrieve: Callable[[Sequence[Event]], Sequence[Candidate]],
    decide: Callable[[Candidate], Decision],
    sink: Sink,
    *,
    stop: Stop,
    on_batch: Callable[[BatchReport], None],
    batch_size: int,
    once: bool = False,
    poll_interval: float = 1.0,
    consumer: str = CONSUMER,
) -> None:
    """Process batches until ``stop`` is set or, with ``once``, until the source is drained.

    Raises:
        CoefVQError: whatever a part raises; the batch in hand is not committed and will be polled again.
    """
    while not stop.is_set():
        events = source.poll(sink.committed(consumer), batch_size)
        if events:
            candidates = retrieve(events)
            rows = [to_row(candidate, decide(candidate)) for candidate in candidates]
            on_batch(sink.apply(rows, consumer, events[-1].offset))
        elif once:
            break
        else:
            stop.wait(poll_interval)


class SignalStop:
    """A stop flag that a signal handler may set.

    threading.Event is not made for that: its lock is not reentrant, and the handler runs in the very
    thread that may hold it. ``SimpleQueue.put`` is reentrant.
    """

    def __init__(self) -> None:
        self._set = False
        self._wake: SimpleQueue[None] = SimpleQueue()

    def set(self) -> None:
        """Ask the loop to end after the batch in hand."""
        self._set = True
        self._wake.put(None)

    def is_set(self) -> bool:
        """Whether ``set`` was called."""
        return self._set

    def wait(self, timeout: float) -> bool:
        """Wait for ``set`` for at most ``timeout`` seconds; return ``is_set``."""
        if not self._set:
            try:
                self._wake.get(timeout=timeout)
            except Empty:
                return self._set
        return self._set


@contextmanager
def stop_on_signals() -> Iterator[SignalStop]:
    """Yield a flag that SIGINT and SIGTERM set; a second signal acts as it would have without this."""
    stop = SignalStop()
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def handle(_number: int, _frame: FrameType | None) -> None:
        restore()
        stop.set()

    for number in previous:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        restore()
