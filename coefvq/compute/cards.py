"""Work of our own on every GPU of this machine: one process for each, which sees no other."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.queues import Queue

from coefvq.compute.limited_worker import end_with_parent

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_cards() -> tuple[str, ...]:
    """This process's GPUs as ``CUDA_VISIBLE_DEVICES`` names them; one of several ranks has its own alone."""
    import torch

    if not torch.cuda.is_available():
        return ()
    if "LOCAL_RANK" in os.environ:
        return (str(torch.cuda.current_device()),)
    named = os.environ.get(_VISIBLE)
    return tuple(named.split(",")) if named else tuple(map(str, range(torch.cuda.device_count())))


@contextmanager
def card_pool(cards: Sequence[str]) -> Iterator[ProcessPoolExecutor]:
    """A process per card, in which it is the only one; they give up their queue on any error and end with us."""
    context = multiprocessing.get_context("spawn")
    free = context.Queue()
    for card in cards:
        free.put(card)
    pool = ProcessPoolExecutor(len(cards), mp_context=context, initializer=_take, initargs=(free,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _take(free: Queue[str]) -> None:
    end_with_parent()
    os.environ[_VISIBLE] = free.get()  # before CUDA starts here
