"""Worker processes: limited ones for files of strangers, plain ones for work of our own.

A file on an open platform may be made to crash, hang or fill the memory of whatever decodes it. Such work
runs in a process whose address space, CPU time and elapsed time are bounded; when it dies, one item is lost
and a new process takes over. The limits are the kernel's (setrlimit). On macOS, which bounds no address
space, memory is not limited; the rest is. This guards against accidents and bombs; it is no sandbox against
code that takes over the decoder, which would run with the user's rights.

Each worker has a pipe of its own and one item at a time, so it is always known which item killed it.
Pebble and concurrent.futures share one queue among all workers: there a worker that dies right after it took
an item may break the pool (measured with pebble 5.2.3: after 7 crashes).
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar

from coefvq.config import MediaLimits
from coefvq.data.limited_worker import FailureReason, Reply, Request, end_with_parent, reason_of_exit, serve
from coefvq.errors import DataError

T = TypeVar("T")
R = TypeVar("R")

# items taken ahead of the one whose result is awaited, per worker: one slow clip does not idle the others
_AHEAD = 16
_START_SECONDS = 120.0  # for a process to start and import; generous, as a shared disk may be slow
_GRACE_SECONDS = 10.0  # for a killed process to go; one stuck in the kernel is left to it


def limited_map(
    work: Callable[[T], R],
    items: Iterable[T],
    *,
    failed: Callable[[T, str], R],
    limits: MediaLimits,
    workers: int,
    engine: str = "local",
) -> Iterator[R]:
    """Results of ``work`` in the order of ``items``, each computed in a limited process.

    ``items`` may be endless: only a few are taken ahead. Where a worker dies or is ended, ``failed(item,
    reason)`` takes the result's place. An exception of ``work`` itself ends the map when its turn comes.

    Args:
        work: a module-level function or a ``partial`` of one; it and its results must pickle.
        items: what to work on.
        failed: makes a result of an item and a ``FailureReason``.
        limits: ``worker_mib``, ``cpu_seconds`` and ``wall_seconds`` are used here.
        workers: processes side by side.
        engine: ``local`` or ``ray``.

    Raises:
        DataError: the workers cannot even start within the limits, or the engine is not installed.
    """
    if engine == "ray":
        from coefvq.data.ray_engine import ray_map

        yield from ray_map(work, items, failed=failed, limits=limits, workers=workers)
        return
    with LimitedPool(limits, workers) as pool:
        yield from pool.map(work, items, failed)


@dataclass
class _Job(Generic[T]):
    """An item that was taken, until its result is handed over."""

    item: T
    outcome: tuple[Literal["value", "error", "lost"], Any] | None = None


@dataclass
class _Worker:
    """A process, our end of its pipe, and what it is at; ``ready`` once it has answered."""

    process: SpawnProcess
    pipe: Connection
    deadline: float
    ready: bool = False
    job: _Job[Any] | None = None

    def send(self, request: Any) -> bool:
        """Whether there was still somebody at the other end."""
        try:
            self.pipe.send_bytes(request)
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        self.pipe.close()
        self.process.kill()
        self.process.join(_GRACE_SECONDS)


@dataclass
class LimitedPool:
    """Limited workers that stay, for callers who come with a few items at a time.

    Processes start as items need them. Use it as a context manager, or call ``close``; it serves one
    ``map`` at a time.
    """

    limits: MediaLimits
    workers: int = 1
    _team: list[_Worker] = field(default_factory=list, init=False, repr=False)
    _busy: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def map(self, work: Callable[[T], R], items: Iterable[T], failed: Callable[[T, str], R]) -> Iterator[R]:
        """As ``limited_map``."""
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("this pool is at work for another caller; use one pool per thread")
        try:
            order = _request("work", work)
            for worker in self._team:
                worker.send(order)  # one that died meanwhile is noticed when it is to be given an item
            yield from self._run(order, iter(items), failed)
        finally:
            for worker in [worker for worker in self._team if worker.job is not None]:
                self._dismiss(worker)  # its item is of no interest any more
            self._busy.release()

    def close(self) -> None:
        """End the workers, whatever they are doing."""
        while self._team:
            self._dismiss(self._team[-1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _run(self, order: Any, items: Iterator[T], failed: Callable[[T, str], R]) -> Iterator[R]:
        taken: deque[_Job[T]] = deque()  # in order, until handed over
        waiting: deque[_Job[T]] = deque()  # those that no worker has yet
        while True:
            done = bool(taken) and taken[0].outcome is not None
            self._listen(patient=not done)
            for item in islice(items, min(_AHEAD * self.workers - len(taken), self.workers - len(waiting))):
                taken.append(_Job(item))
                waiting.append(taken[-1])
            while waiting and (worker := self._free(order)):
                if self._give(worker, waiting[0]):
                    waiting.popleft()
            if done:
                yield _result(taken.popleft(), failed)
            elif not taken:
                return

    def _free(self, order: Any) -> _Worker | None:
        """A worker without an item, a new one if there is room."""
        for worker in self._team:
            if worker.job is None:
                return worker
        return self._start(order) if len(self._team) < self.workers else None

    def _start(self, order: Any) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        arguments = (theirs, self.limits.worker_mib, self.limits.cpu_seconds)
        process = context.Process(target=serve, args=arguments, daemon=True)
        process.start()
        theirs.close()  # the process has its own: when that one closes, we see the end
        worker = _Worker(process, ours, time.monotonic() + _START_SECONDS)
        self._team.append(worker)
        worker.send(order)
        return worker

    def _give(self, worker: _Worker, job: _Job[Any]) -> bool:
        """Whether the worker took the item; one that died idle is let go."""
        if not worker.send(_request("item", job.item)):
            self._lose(worker, None)
            return False
        worker.job = job
        if worker.ready:
            worker.deadline = time.monotonic() + self.limits.wall_seconds
        return True

    def _listen(self, *, patient: bool) -> None:
        """Take the answers that came; if ``patient``, wait for the next answer, death or deadline."""
        at_work = [worker for worker in self._team if worker.job is not None]
        if not at_work:
            return
        rest = min(worker.deadline for worker in at_work) - time.monotonic()
        handles: list[Any] = [handle for worker in at_work for handle in (worker.pipe, worker.process.sentinel)]
        heard = wait(handles, max(0.0, rest) if patient else 0.0)
        for worker in at_work:
            if worker.pipe in heard or worker.process.sentinel in heard:
                self._hear(worker)
            elif worker.deadline <= time.monotonic():
                self._lose(worker, "timeout")

    def _hear(self, worker: _Worker) -> None:
        try:
            # what a worker said before it died counts
            reply: Reply | None = worker.pipe.recv() if worker.pipe.poll() else None
        except (EOFError, OSError):
            reply = None
        if reply is None:
            worker.process.join(_GRACE_SECONDS)
            self._lose(worker, reason_of_exit(worker.process.exitcode))
        elif reply[0] == "ready":
            worker.ready, worker.deadline = True, time.monotonic() + self.limits.wall_seconds
        elif worker.job is not None:
            worker.job.outcome, worker.job = (reply[0], reply[1]), None

    def _lose(self, worker: _Worker, reason: FailureReason | None) -> None:
        """End a worker that is dead or late; its item, if it has one, gets ``reason`` for a result."""
        self._dismiss(worker)
        if not worker.ready:
            raise DataError(
                f"a worker ended before its first clip ({reason}, exit code {worker.process.exitcode}); "
                f"raise worker_mib of ingest.limits (now {self.limits.worker_mib}), or see the standard error"
            )
        if worker.job is not None:
            worker.job.outcome = ("lost", reason)

    def _dismiss(self, worker: _Worker) -> None:
        worker.kill()
        self._team.remove(worker)


def _request(kind: Literal["work", "item"], payload: Any) -> Any:
    # the payload is wrapped so that a worker can tell which kind it cannot load
    request: Request = (kind, bytes(ForkingPickler.dumps(payload)))
    return ForkingPickler.dumps(request)


def _result(job: _Job[T], failed: Callable[[T, str], R]) -> R:
    if job.outcome is None:
        raise RuntimeError("a job was handed over before it was done")
    kind, payload = job.outcome
    if kind == "error":
        raise payload
    result: R = failed(job.item, payload) if kind == "lost" else payload
    return result


@contextmanager
def spawn_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool for work of our own: fresh processes, which give up their queue on any error and end with us.

    Forking a process that holds threads of FFmpeg or torch may deadlock, hence spawn.
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
