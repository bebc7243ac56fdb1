"""The processes of one training: who is first, and a few words between them. One process alone is rank 0 of 1."""

from __future__ import annotations

import os

import torch
from torch import distributed


def launched() -> bool:
    """Whether this process is one of several that torchrun (or Ray) started."""
    return world_size() > 1


def world_size() -> int:
    """Number of processes, from the environment that torchrun sets."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process's number; 0 writes the results."""
    return int(os.environ.get("RANK", "0"))


def use_own_device() -> None:
    """Give every rank of a machine a GPU of its own, where there are any."""
    if launched() and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))


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


def wait_for_all() -> None:
    """Go on when every rank is here."""
    if connected():
        distributed.barrier()


def connected() -> bool:
    """Whether the ranks have found each other; the Trainer sees to it."""
    return distributed.is_available() and distributed.is_initialized()
