"""Features that are computed and on no disk yet, with the chunks that they belong to."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from coefvq.errors import MediaError
from coefvq.models.frozen import FrozenPart
from coefvq.records import VideoInput

_SHARD_BYTES = 64 * 2**20  # a shard is written at the latest when it is so large
_MOST_CLAIMS = 128  # chunks whose locks are held, one open file each
#: by part, the shard of each entry
Index = dict[str, dict[str, Path]]
#: a video and the parts of the network that it lacks
Task = tuple[VideoInput, tuple[FrozenPart, ...]]


@dataclass
class Claim:
    """A chunk that is ours until ``lock`` is released: what to compute, what is there, what does not decode."""

    lock: Any
    tasks: list[Task]
    index: Index
    failed: dict[str, MediaError]


@dataclass
class PendingFeatures:
    """Features that are on no disk yet, by part and entry; their chunks stay ours until they are."""

    tensors: dict[str, dict[str, torch.Tensor]]
    claims: list[Claim] = field(default_factory=list)
    _bytes: dict[str, int] = field(default_factory=dict)
    _since: float | None = None

    def add(self, part: str, entry: str, tensor: torch.Tensor) -> None:
        """Put one aside."""
        self.tensors[part][entry] = tensor
        self._bytes[part] = self._bytes.get(part, 0) + tensor.nbytes
        self._since = self._since or time.monotonic()

    @property
    def full(self) -> bool:
        """Whether a part has a whole shard."""
        return max(self._bytes.values(), default=0) >= _SHARD_BYTES

    def due(self, seconds: float) -> bool:
        """Whether the first waits long enough, or so many chunks do that their locks are a burden."""
        waited = self._since is not None and time.monotonic() - self._since >= seconds
        return waited or len(self.claims) >= _MOST_CLAIMS

    def take(self) -> dict[str, dict[str, torch.Tensor]]:
        """All of them, to be written."""
        taken = self.tensors
        self.tensors, self._bytes, self._since = {name: {} for name in taken}, {}, None
        return taken

    def release(self) -> None:
        """Let other processes have the chunks."""
        while self.claims:
            self.claims.pop().lock.release()
