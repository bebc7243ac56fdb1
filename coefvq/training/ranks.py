"""The processes of one training: who is first, and a few words between them. One process alone is rank 0 of 1."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
from torch import distributed

#: for the others to compute features or to fetch weights; a rank that dies is noticed by torchrun at once
PATIENCE = timedelta(hours=6)


def launched() -> bool:
    """Whether this process is one of several that torchrun (or Ray) started."""
    return world_size() > 1


def world_size() -> int:
    """Number of processes, from the environment that torchrun sets."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process's number; 0 writes the results."""
    return int(os.environ.get("RANK", "0"))


def connect() -> None:
    """Give every rank of a machine a GPU of its own, where there are any, and let the ranks find each other.

    First of all, so that rank 0 can decide for all; the time limit is that of the longest work that others wait for.
    """
    if not launched():
        return
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if not connected():
        distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)


def summed(values: torch.Tensor) -> torch.Tensor:
    """Sum of a tensor over all ranks, without gradient."""
    if connected():
        values = values.detach().clone()
        distributed.all_reduce(values)
    return values


def from_first(value: int, device: torch.device) -> int:
    """Rank 0's value on every rank."""
    if not connected():
        return value
    tensor = torch.tensor([value], device=device)
    distributed.broadcast(tensor, 0)
    return int(tensor.item())


def everywhere(here: bool, device: torch.device) -> bool:
    """Whether something holds on every rank."""
    return int(summed(torch.tensor(int(here), device=device)).item()) == (world_size() if connected() else 1)


def wait_for_all() -> None:
    """Go on when every rank is here."""
    if connected():
        distributed.barrier()


def connected() -> bool:
    """Whether the ranks have found each other: by ``connect``, or later by the Trainer."""
    return distributed.is_available() and distributed.is_initialized()
