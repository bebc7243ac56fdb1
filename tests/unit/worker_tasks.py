"""What the tests let limited workers do; a module of its own, so that workers import little."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import threading
import time
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from coefvq.compute.engines import limited_map
from coefvq.compute.pools import spawn_pool
from coefvq.config import MediaLimits

LIMITS = MediaLimits(
    megabytes=1.0,
    seconds=1.0,
    megapixels=1.0,
    streams=1,
    frames=1,
    worker_mib=1024,
    cpu_seconds=30,
    wall_seconds=60.0,
)


#: the answer of work that is ours: whatever it is
ANY: TypeAdapter[Any] = TypeAdapter(Any)


class AwkwardError(Exception):
    """Pickles, but does not load: two arguments, one passed on."""

    def __init__(self, word: str, number: int) -> None:
        super().__init__(word)
        self.number = number


class Fatal:
    """Work that ends the process that loads it."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (9,)

    def __call__(self, item: str) -> str:
        return item


def square(number: int) -> int:
    return number * number


def pid(_: object) -> int:
    return os.getpid()


def burn(_: object) -> int:
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    return os.getpid()


def facts(_: object) -> dict[str, object]:
    return {
        "torch": "torch" in sys.modules,
        "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
        "memory": resource.getrlimit(resource.RLIMIT_AS)[0],
        "file": resource.getrlimit(resource.RLIMIT_FSIZE)[0],
        "nice": os.nice(0),
        "threads": os.environ["OPENBLAS_NUM_THREADS"],
    }


def obey(order: str) -> str:
    """Die in the way that is asked for; any other order is answered."""
    match order:
        case "segfault":
            ctypes.string_at(0)
        case "exit":
            os._exit(3)
        case "abort":
            os.abort()
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hog":
            return str(len([np.ones(1 << 24) for _ in range(1000)]))
        case "spin":
            while True:
                pass
        case "sleep":
            threading.Event().wait()
        case "large":
            return "x" * (5 << 20)
    return order


def raise_on(number: int) -> int:
    """0 is a plain error, 1 one that does not travel, 2 leaves the interpreter, 3 is a time-out of its own."""
    if number == 0:
        raise ValueError("zero")
    if number == 1:
        raise AwkwardError("one", 1)
    if number == 2:
        raise SystemExit("two")
    if number == 3:
        raise TimeoutError("three")
    return number


def unpicklable(_: object) -> object:
    return threading.Lock()


def never_end(kind: str) -> None:
    os.write(1, f"{os.getpid()}\n".encode())
    if kind == "python":
        while True:
            pass
    elif kind == "wait":
        threading.Event().wait()
    else:  # C code that keeps the interpreter's lock: no thread of this process could watch anything
        ctypes.PyDLL(None).pause()


def lost(item: object, reason: str) -> str:
    return f"{item}: {reason}"


def main(kind: str) -> None:
    """A parent to be killed: its workers write their ids to the standard output and never end."""
    work = ("python", "wait", "c")
    if kind == "limited":
        list(limited_map(never_end, work, answer=ANY, failed=lambda _, __: None, limits=LIMITS, workers=3))
    else:
        with spawn_pool(3) as pool:
            list(pool.map(never_end, work))


if __name__ == "__main__":
    # limited workers do not import the caller's script, so the work has to have the name of a module
    from tests.unit import worker_tasks

    worker_tasks.main(sys.argv[1])
