"""The mini-batch loop: Source → Retriever → Filter → Sink (paper, section 2.3).

Nothing is committed before it took effect: a crash at any point repeats the batch in hand. One deployment judges a
whole batch; a newer one takes over between two batches.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Protocol

from coefvq.vmp.deployment import Deployment, Deployments, judge
from coefvq.vmp.epochs import FencedError
from coefvq.vmp.features.values import HeldError
from coefvq.vmp.records import BatchReport, Event, Known, SinkRow

CONSUMER = "vmp"
#: while events arrive, every so many batches one batch of the campaign is done
SPARE_EVERY = 20


class Source(Protocol):
    """Where events come from; ``poll`` returns at once."""

    def poll(self, after: int, max_n: int) -> list[Event]:
        """Up to ``max_n`` events above offset ``after``, oldest first."""


class Sink(Protocol):
    """Where rows and offsets go, together."""

    def committed(self, consumer: str) -> int:
        """Offset up to which ``consumer`` has taken effect."""

    def known(self, video_ids: Iterable[str]) -> dict[str, Known]:
        """What is stored of each video that was seen before."""

    def apply(self, rows: Sequence[SinkRow], consumer: str, offset: int) -> BatchReport:
        """Store rows and offset in one transaction."""


class Work(Protocol):
    """Verdicts that no new event asks for; both return how many videos were settled."""

    def urgent(self, deployment: Deployment, limit: int, report: BatchReport | None = None) -> int:
        """What must not wait: views that may change a verdict, the MLLM's tasks.

        ``report`` is of the batch that was stored just before; without one the index has to be asked.
        """

    def spare(self, deployment: Deployment, limit: int) -> int:
        """What is done between events: a campaign."""


class Stop(Protocol):
    """What ``threading.Event`` offers and the loop needs."""

    def is_set(self) -> bool:
        """Whether to end after the batch in hand."""

    def wait(self, timeout: float) -> bool:
        """Wait for the signal for at most ``timeout`` seconds; return ``is_set``."""


def now() -> datetime:
    """The time that rules on age see."""
    return datetime.now(UTC)


def run(
    source: Source,
    deployments: Deployments,
    sink: Sink,
    *,
    stop: Stop,
    on_batch: Callable[[BatchReport], None],
    batch_size: int,
    once: bool = False,
    poll_interval: float = 1.0,
    consumer: str = CONSUMER,
    work: Sequence[Work] = (),
    clock: Callable[[], datetime] = now,
    on_hold: Callable[[HeldError], None] = lambda error: None,
) -> None:
    """Process batches until ``stop`` is set or, with ``once``, until source and ``work`` are drained.

    While a feature store is waited for, ``on_hold`` hears why at each try.

    Raises:
        HeldError: as said, and ``once`` is on.
        CoefVQError: whatever a part raises; the batch in hand is not committed and will be polled again.
    """
    batches = 0
    while not stop.is_set():
        deployment = deployments.current()
        report: BatchReport | None = None
        try:
            events = source.poll(sink.committed(consumer), batch_size)
            if events:
                rows = judge(events, deployment, sink.known(event.video_id for event in events), clock())
                report = sink.apply(rows, consumer, events[-1].offset)
                on_batch(report)
                batches += 1
            settled = sum(one.urgent(deployment, batch_size, report) for one in work)
            if not events or batches % SPARE_EVERY == 0:
                settled += sum(one.spare(deployment, batch_size) for one in work)
        except FencedError as refusal:
            deployments.refused(refusal)
            continue
        except HeldError as error:
            if once:
                raise
            on_hold(error)
            stop.wait(poll_interval)
            continue
        if not events and not settled:
            if once:
                break
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
