"""The processes of one training: who is first, and a few words between them. One process alone is rank 0 of 1."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed

from coefvq.errors import TrainingError

#: for the others to compute features or to fetch weights; a rank that dies is noticed by torchrun at once
PATIENCE = timedelta(hours=6)
_LINE = 512  # bytes of a line that rank 0 tells the others


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

    Raises:
        TrainingError: there is no GPU for this rank, or it has other versions than rank 0.
    """
    if not launched():
        return
    on_gpu, place = torch.cuda.is_available(), int(os.environ.get("LOCAL_RANK", "0"))
    if on_gpu and place >= torch.cuda.device_count():
        raise TrainingError(
            f"rank {rank()} on {socket.gethostname()} is number {place} there, and {torch.cuda.device_count()} GPUs "
            "answer; start fewer ranks on that machine, or mend its cards"
        )
    if not on_gpu and _has_cards(Path("/dev")):
        raise TrainingError(
            f"rank {rank()} on {socket.gethostname()}: its GPUs do not answer; see nvidia-smi there, or leave it out"
        )
    if on_gpu:
        torch.cuda.set_device(place)
    if not connected():
        distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    check_versions(versions(), torch.device("cuda" if on_gpu else "cpu"))


def _has_cards(devices: Path) -> bool:
    """Whether there are GPUs that this build of torch could use and that nobody hid from it."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return torch.version.cuda is not None and not hidden and any(devices.glob("nvidia[0-9]*"))


def versions() -> dict[str, str]:
    """Of what decides the ranks' arithmetic and their messages."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("coefvq", "torch", "transformers", "accelerate", "deepspeed", "peft"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def check_versions(mine: Mapping[str, str], device: torch.device) -> None:
    """Compare with rank 0.

    Raises:
        TrainingError: they differ; rank 0 waits for the others and ends with them.
    """
    text = " ".join(f"{name}={value}" for name, value in sorted(mine.items()))
    first = _text_of_first(text, device)
    pairs = zip(text.split(), first.split(), strict=False)
    differing = [f"{ours} (rank 0: {theirs})" for ours, theirs in pairs if ours != theirs]
    if differing:
        raise TrainingError(
            f"rank {rank()} on {socket.gethostname()} has {', '.join(differing[:3])}; install the same set everywhere"
        )


def _text_of_first(text: str, device: torch.device) -> str:
    content = text.encode()[:_LINE].ljust(_LINE)
    line = torch.tensor(list(content), dtype=torch.uint8, device=device)
    distributed.broadcast(line, 0)
    return bytes(line.tolist()).decode().strip()


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
