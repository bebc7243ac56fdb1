"""H of each video once, where nothing before the head trains: every later epoch is the head alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from coefvq.models.dataset import Collator, Example
from coefvq.models.mllm import MultimodalLLM
from coefvq.models.packed import packed_frozen
from coefvq.training.objective import Collate, CollatedRows, TrainingSet
from coefvq.training.parameters import part_of

#: a million vectors of 576 numbers are 2.3 GB: above this they are computed in each epoch
MOST_BYTES = 2**30


@dataclass(frozen=True)
class KnownRows(Dataset[Example]):
    """The rows of another set with what the network computes of them before its head."""

    rows: TrainingSet
    known: Sequence[Mapping[str, torch.Tensor]]

    @property
    def video_ids(self) -> Sequence[str]:
        """Which video each row is."""
        return self.rows.video_ids

    @property
    def labels(self) -> Sequence[Any] | None:
        """As the rows have them."""
        return self.rows.labels

    def __len__(self) -> int:
        return len(self.known)

    def __getitem__(self, index: int) -> Example:
        label = None if self.labels is None else self.labels[index]
        return Example(clip=None, text="", label=label, features=self.known[index])


def stays_the_same(network: nn.Module, collator: Collate, rows: int) -> bool:
    """Whether H of a video is the same in every step, so that it can be kept: only the head of an MLLM trains."""
    if not isinstance(network, MultimodalLLM) or not isinstance(collator, Collator):
        return False
    trains = any(p.requires_grad and part_of(name) != "head" for name, p in network.named_parameters())
    random = any(isinstance(module, nn.Dropout) and module.p > 0 for module in network.modules())
    return not trains and not random and rows * network.norm.weight.numel() * 4 <= MOST_BYTES


def known_rows(network: MultimodalLLM, rows: TrainingSet, collator: Collate, size: int) -> KnownRows:
    """Read each row once, ``size`` at a time, in the weights' own precision; exact but for rounding.

    Raises:
        MediaError: a clip does not decode.
    """
    batch_of = CollatedRows(rows, collator, network.norm.weight.device)
    known: list[Mapping[str, torch.Tensor]] = []
    network.eval()
    with torch.no_grad(), packed_frozen((network,)):
        for start in range(0, len(rows), size):
            numbers = range(start, min(start + size, len(rows)))
            inputs = {name: value for name, value in batch_of(numbers).items() if name != "labels"}
            found = {name: value.cpu() for name, value in network.before_head(**inputs).items()}
            known += [{name: value[at].clone() for name, value in found.items()} for at in range(len(numbers))]
    return KnownRows(rows, known)


def known_collator(collator: Collator) -> Collator:
    """For batches of ``KnownRows``: no input of the network's lower parts."""
    return replace(collator, replaced=collator.replaced | {"pixel_values", "input_ids", "log_mel"})
