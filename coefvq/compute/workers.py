"""Limited worker processes, for files of strangers.

A file on an open platform may be made to crash, hang or fill the memory of whatever decodes it. Such work
runs in a process whose address space, CPU time and elapsed time are bounded; when it dies, one item is lost
and a new process takes over. The limits are the kernel's (setrlimit). On macOS, which bounds no address
space, memory is not limited; the rest is. This guards against accidents and bombs; it is no sandbox against
code that takes over the decoder, which would run with the user's rights.

Each worker has a pipe of its own and one item at a time, so it is always known which item killed it.
Pebble and concurrent.futures share one queue among all workers: there a worker that dies right after it took
an item may break the pool (measured with pebble 5.2.3: after 7 crashes).

A worker that opened a stranger's file is not trusted any more: its answers are JSON of a type that the caller states
(``answers``), of bounded length, and a worker that sends anything else is ended and its item counts as ``crashed``.
"""

from __future__ import annotations

import multiprocessing
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler
from types import ModuleType, TracebackType
from typing import Any, Self, TypeVar

from pydantic import TypeAdapter

from coefvq.compute.answers import READY, Outcome, read_answer
from coefvq.compute.limited_worker import ITEM, WORK, FailureReason, reason_of_exit, serve
from coefvq.compute.worker_pipe import ParentEnd
from coefvq.config import MediaLimits
from coefvq.errors import DataError

T = TypeVar("T")
R = TypeVar("R")

# items taken ahead of the one whose result is awaited, per worker: one slow clip does not idle the others
_AHEAD = 16
_START_SECONDS = 120.0  # for a process to start and import; generous, as a shared disk may be slow
_GRACE_SECONDS = 10.0  # for a killed process to go, or a live one to take a request; one stuck is left to the kernel


@dataclass
class _Job:
    """An item that was taken, as it is sent, until its outcome is handed over."""

    request: bytes
    outcome: Outcome | None = None


@dataclass
class _Worker:
    """A process, our end of its pipe, and what it is at; ``loading`` counts the works it has not said it loaded."""

    process: SpawnProcess
    pipe: ParentEnd
    deadline: float
    ready: bool = False
    loading: int = 0
    job: _Job | None = None

    def load(self, order: bytes) -> None:
        """Send the work; one that died meanwhile is noticed when it is to be given an item."""
        self.loading += self.pipe.send(WORK + order, _GRACE_SECONDS)

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        self.pipe.pipe.close()
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

    def map(
        self, work: Callable[[T], R], items: Iterable[T], answer: TypeAdapter[R], failed: Callable[[T, str], R]
    ) -> Iterator[R]:
        """Results in the order of ``items``, as ``engines.limited_map`` gives them."""
        taken: deque[T] = deque()

        def requests() -> Iterator[bytes]:
            for item in items:
                request = pickled(item)
                taken.append(item)
                yield request

        with closing(self.exchange(pickled(work), requests(), partial(read_answer, kind=answer))) as outcomes:
            for outcome in outcomes:
                yield result(outcome, taken.popleft(), failed)

    def exchange(
        self, order: bytes, items: Iterable[bytes], read: Callable[[bytes], Outcome]
    ) -> Generator[Outcome, None, None]:
        """Outcomes in order; ``order`` and ``items`` are ``pickled``, ``read`` judges an answer by a ValueError."""
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("this pool is at work for another caller; use one pool per thread")
        try:
            for worker in self._team:
                worker.load(order)
            yield from self._run(order, iter(items), read)
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

    def _run(self, order: bytes, items: Iterator[bytes], read: Callable[[bytes], Outcome]) -> Iterator[Outcome]:
        taken: deque[_Job] = deque()  # in order, until handed over
        waiting: deque[_Job] = deque()  # those that no worker has yet
        while True:
            done = taken[0].outcome if taken else None
            self._listen(read, patient=done is None)
            for item in islice(items, min(_AHEAD * self.workers - len(taken), self.workers - len(waiting))):
                taken.append(_Job(ITEM + item))
                waiting.append(taken[-1])
            while waiting and (worker := self._free(order)):
                if self._give(worker, waiting[0]):
                    waiting.popleft()
            if done is not None:
                taken.popleft()
                yield done
            elif not taken:
                return

    def _free(self, order: bytes) -> _Worker | None:
        """A worker without an item, a new one if there is room."""
        for worker in self._team:
            if worker.job is None:
                return worker
        return self._start(order) if len(self._team) < self.workers else None

    def _start(self, order: bytes) -> _Worker:
        # torch starts its loader processes as daemons, which multiprocessing forbids to have children; ours end with
        # the process that started them, however that ends
        if (this := multiprocessing.current_process()).daemon:
            this.daemon = False
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        arguments = (theirs, self.limits.worker_mib, self.limits.cpu_seconds)
        process = _WithoutMain(target=serve, args=arguments, daemon=True)
        process.start()
        theirs.close()  # the process has its own: when that one closes, we see the end
        worker = _Worker(process, ParentEnd(ours), time.monotonic() + _START_SECONDS)
        self._team.append(worker)
        worker.load(order)
        return worker

    def _give(self, worker: _Worker, job: _Job) -> bool:
        """Whether the worker took the item; one that died idle is let go."""
        if not worker.pipe.send(job.request, _GRACE_SECONDS):
            self._lose(worker, None)
            return False
        worker.job = job
        if worker.ready:
            worker.deadline = time.monotonic() + self.limits.wall_seconds
        return True

    def _listen(self, read: Callable[[bytes], Outcome], *, patient: bool) -> None:
        """Take the answers that came; if ``patient``, wait for the next answer, death or deadline."""
        at_work = [worker for worker in self._team if worker.job is not None]
        if not at_work:
            return
        rest = min(worker.deadline for worker in at_work) - time.monotonic()
        handles: list[Any] = [handle for worker in at_work for handle in (worker.pipe.pipe, worker.process.sentinel)]
        heard = wait(handles, max(0.0, rest) if patient else 0.0)
        for worker in at_work:
            lost: FailureReason | None = None
            if worker.pipe.pipe in heard or worker.process.sentinel in heard:
                lost = self._hear(worker, read)
            # also of one that speaks all the time and says nothing
            if lost is None and worker.job is not None and worker.deadline <= time.monotonic():
                lost = "timeout"
            if lost is not None:
                self._lose(worker, lost)

    def _hear(self, worker: _Worker, read: Callable[[bytes], Outcome]) -> FailureReason | None:
        """Take what a worker says; why it is of no use any more, if it is not."""
        try:
            # what a worker said before it died counts
            heard = worker.pipe.receive()
            for frame in worker.pipe.frames():
                self._take(worker, frame, read)
            if heard or worker.process.is_alive():
                return None
        except EOFError:
            worker.process.join(_GRACE_SECONDS)
        except ValueError:
            return "crashed"
        return reason_of_exit(worker.process.exitcode)

    def _take(self, worker: _Worker, frame: bytes, read: Callable[[bytes], Outcome]) -> None:
        if frame == READY and worker.loading > 0:
            worker.loading -= 1
            worker.ready, worker.deadline = True, time.monotonic() + self.limits.wall_seconds
        elif worker.job is not None and worker.ready and worker.loading == 0:
            worker.job.outcome, worker.job = read(frame), None
        else:
            raise ValueError("an answer that nobody asked for")

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


_starting = threading.Lock()


class _WithoutMain(SpawnProcess):
    """A spawned process that does not import the caller's script: a worker needs nothing of it.

    Otherwise a plain script without ``if __name__ == "__main__"`` would begin again in each worker.
    """

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802 - multiprocessing's own name
        from multiprocessing.popen_spawn_posix import Popen

        with _starting:
            main = sys.modules["__main__"]
            # what spawn looks at to learn which script to import
            sys.modules["__main__"] = ModuleType("__main__")
            try:
                return Popen(process_obj)
            finally:
                sys.modules["__main__"] = main


def pickled(value: object) -> bytes:
    """What a worker is sent: it trusts the process that started it."""
    return bytes(ForkingPickler.dumps(value))


def result(outcome: Outcome, item: T, failed: Callable[[T, str], R]) -> R:
    """The value of an outcome, or what ``failed`` makes of a lost one; the work's own error is raised."""
    kind, payload = outcome
    if kind == "error":
        raise payload
    value: R = failed(item, payload) if kind == "lost" else payload
    return value
