"""One door to limited work: on this machine, or through Ray Data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from pydantic import TypeAdapter

from coefvq.compute.workers import LimitedPool
from coefvq.config import MediaLimits

T = TypeVar("T")
R = TypeVar("R")


def limited_map(
    work: Callable[[T], R],
    items: Iterable[T],
    *,
    answer: TypeAdapter[R],
    failed: Callable[[T, str], R],
    limits: MediaLimits,
    workers: int,
    engine: str = "local",
) -> Iterator[R]:
    """Results of ``work`` in the order of ``items``, each computed in a limited process.

    ``items`` may be endless: only a few are taken ahead. Where a worker dies or is ended, ``failed(item,
    reason)`` takes the result's place. An exception of ``work`` itself ends the map when its turn comes.

    Args:
        work: a module-level function or a ``partial`` of one, which must pickle; its results travel as JSON.
        items: what to work on; they must pickle.
        answer: the type of a result; a worker that sends another is ended, and its item is ``crashed``.
        failed: makes a result of an item and a ``FailureReason``.
        limits: ``worker_mib``, ``cpu_seconds`` and ``wall_seconds`` are used here.
        workers: processes side by side.
        engine: ``local`` or ``ray``.

    Raises:
        DataError: the workers cannot even start within the limits, or the engine is not installed.
    """
    if engine == "ray":
        from coefvq.compute.ray_engine import ray_map

        yield from ray_map(work, items, answer=answer, failed=failed, limits=limits, workers=workers)
        return
    with LimitedPool(limits, workers) as pool:
        yield from pool.map(work, items, answer, failed)
