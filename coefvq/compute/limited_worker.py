"""The inside of a limited worker process: its limits, and the loop that answers ``workers.LimitedPool``.

Nothing heavy is imported here: what a worker loads counts towards its address space.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Literal, NoReturn

from coefvq.compute.answers import READY, error_bytes, value_bytes
from coefvq.compute.worker_pipe import read_frame, write_frame

#: why a worker gave no answer; all three are in records.REASONS
FailureReason = Literal["timeout", "out_of_memory", "crashed"]
#: a request begins with one of these and goes on with a pickle: the function first, then its arguments one by one
WORK, ITEM = b"w", b"i"

_OUT_OF_MEMORY = 77  # exit code; after a MemoryError a fresh process is the only one in a known state
_NICENESS = 5  # the process that trains or serves goes first
# BLAS and OpenMP reserve address space per thread, on a large machine all that a worker may have
_ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def serve(pipe: Connection, worker_mib: int, cpu_seconds: int) -> None:
    """Answer requests until the pool hangs up; runs as the target of a spawned process."""
    _limit_process(worker_mib)
    try:
        _answer_all(pipe, cpu_seconds)
    except MemoryError:
        os._exit(_OUT_OF_MEMORY)
    except (EOFError, ConnectionError):
        return


def reason_of_exit(code: int | None) -> FailureReason:
    """Why a worker ended, from its exit code (negative: a signal)."""
    if code == -signal.SIGXCPU:
        return "timeout"
    # glibc and C++ abort where an allocation fails; the kernel's out-of-memory killer sends SIGKILL
    if code in (_OUT_OF_MEMORY, -signal.SIGABRT, -signal.SIGKILL):
        return "out_of_memory"
    return "crashed"


def end_with_parent() -> None:
    """Call in a spawned process: end at once when the parent dies, also by kill -9 and in the midst of C code.

    The kernel sends SIGIO, whose default is to end the process, when the parent's end of the sentinel pipe
    closes. PR_SET_PDEATHSIG would not do: it fires when the *thread* ends that started the process.
    """
    import fcntl
    import select

    parent = multiprocessing.parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(sentinel, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(sentinel, fcntl.F_SETFL, fcntl.fcntl(sentinel, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([sentinel], [], [], 0)[0]:  # it died before the signal was set up
        os._exit(1)


def _answer_all(pipe: Connection, cpu_seconds: int) -> NoReturn:
    work: Callable[[Any], Any] = str
    while True:
        request = read_frame(pipe)
        kind, payload = request[:1], request[1:]
        _limit_cpu(cpu_seconds)
        if kind == WORK:
            work, answer = _loaded(payload), READY
        else:
            answer = _answer(work, payload)
        write_frame(pipe, answer)


def _loaded(payload: bytes) -> Callable[[Any], Any]:
    """The function to apply; where it cannot be imported here, one that says so for each item."""
    try:
        work: Callable[[Any], Any] = pickle.loads(payload)  # noqa: S301 - from the process that started this one
    except (MemoryError, SyntaxError) as error:
        # CPython's parser may take exhausted memory for bad syntax; the parent has imported this very source
        raise MemoryError("not enough to import the work") from error
    except Exception as error:  # noqa: BLE001 - whatever an import raises
        return partial(_fail, error)
    return work


def _fail(error: Exception, _: object) -> NoReturn:
    raise error


def _answer(work: Callable[[Any], Any], payload: bytes) -> bytes:
    """The answer to one item; only a lack of memory is raised."""
    try:
        return value_bytes(work(pickle.loads(payload)))  # noqa: S301 - from the process that started this one
    except MemoryError:
        raise
    except BaseException as error:  # noqa: BLE001 - the caller's to judge, SystemExit included
        return error_bytes(error)


def _limit_process(worker_mib: int) -> None:
    """Limits that hold for all of the process's life."""
    import resource

    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends us
    os.nice(_NICENESS)
    for name in _ONE_THREAD:
        os.environ[name] = "1"
    size = worker_mib * 1024**2
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # no honest result is larger than the memory it was made in; a full disk would be everybody's problem
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    with suppress(ValueError, OSError):  # macOS takes no address-space limit
        resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _limit_cpu(seconds: int) -> None:
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = int(usage.ru_utime + usage.ru_stime) + 1
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = used + seconds
    # counted from the start of the process, so each item moves it on; SIGXCPU ends the process
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
