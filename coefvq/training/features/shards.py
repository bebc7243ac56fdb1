"""One shard of the feature store: what is in it, how large it is, when it was last used."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch

from coefvq.errors import StorageError


def entries_of(shard: Path) -> list[str] | None:
    """Names in a shard's header; None where it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(shard, framework="pt") as opened:
            return list(opened.keys())
    except (SafetensorError, OSError):
        return None


def read_entry(shard: Path, entry: str) -> torch.Tensor:
    """One tensor out of a memory-mapped shard; its pages are let go with it.

    Raises:
        StorageError: the shard was damaged or deleted while in use.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(shard, framework="pt") as opened:
            tensor: torch.Tensor = opened.get_tensor(entry)
            return tensor
    except (SafetensorError, OSError) as error:
        raise StorageError(f"{shard}: deleted or damaged while in use; run again, it will be computed anew") from error


def oldest(shards: list[Path], excess: int) -> list[Path]:
    """The first shards, as many as hold ``excess`` bytes."""
    chosen = []
    for path in shards:
        if excess <= 0:
            break
        chosen.append(path)
        excess -= shard_size(path)
    return chosen


def last_use(path: Path) -> float:
    """Seconds since 1970; 0 where the shard is gone."""
    with suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def shard_size(path: Path) -> int:
    """Bytes; 0 where the shard is gone."""
    with suppress(OSError):
        return path.stat().st_size
    return 0
