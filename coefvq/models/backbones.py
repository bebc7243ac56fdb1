"""A published LLaVA-OneVision that several models of one process start from: read once, its tensors held once."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any


@dataclass
class Backbone:
    """The network as published; no model changes its tensors, so models with adapters of their own can share them."""

    network: Any = None

    def around(self, read: Callable[[], Any]) -> Any:
        """Modules of the caller's own around the tensors that all have in common; ``read`` is called the first time."""
        if self.network is None:
            self.network = read()
        tensors = [*self.network.parameters(), *self.network.buffers()]
        return deepcopy(self.network, {id(tensor): tensor for tensor in tensors})
