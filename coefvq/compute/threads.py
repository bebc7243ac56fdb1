"""Small computations on one CPU, each on a thread of its own.

A tower's layers over one video are so small that threads which share a layer mostly wait for one another
(docs/performance.md). PyTorch lets other Python threads run while it computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class Each(Protocol):
    """``map`` of one argument: results in order, raised errors included."""

    def __call__(self, function: Callable[[Item], Result], items: Iterable[Item], /) -> Iterator[Result]:
        """Results of ``function``."""
        ...


@contextmanager
def torch_threads(count: int) -> Iterator[int]:
    """Within the block PyTorch computes on ``count`` threads; yields on how many before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


@contextmanager
def thread_each(device: torch.device) -> Iterator[Each]:
    """A ``map`` that computes as many items at once as PyTorch has threads, each on one; on a GPU one after another."""
    if device.type != "cpu":
        yield map
        return
    with torch_threads(1) as count:
        if count == 1:
            yield map
            return
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool.map
