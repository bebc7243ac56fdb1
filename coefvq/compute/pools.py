"""Pools that callers find instead of making: a limited one for occasional clips, a plain one for work of our own."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache

from coefvq.compute.limited_worker import end_with_parent
from coefvq.compute.workers import LimitedPool
from coefvq.config import MediaLimits

_sharing = threading.Lock()


@contextmanager
def shared_pool(limits: MediaLimits) -> Iterator[LimitedPool]:
    """The pool that stays for the life of this process, for calls that bring a few items each; one call at a time."""
    with _sharing:
        yield _shared(limits, os.getpid())


@cache
def _shared(limits: MediaLimits, _owner: int) -> LimitedPool:
    # a forked process needs its own
    return LimitedPool(limits, os.cpu_count() or 1)


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
