"""Batches of rows of like length: little padding, and still another order in each epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler


class LengthGrouped(Sampler[int]):
    """transformers' length grouping (shuffled mega-batches, sorted within), seeded by ``seed`` and epoch.

    transformers' own ``LengthGroupedSampler`` draws from torch's global generator, so that its order depends on
    what ran before; here a resumed run sees the order of the run it resumes.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed = list(lengths), batch_size, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        from transformers.trainer_pt_utils import get_length_grouped_indices

        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        yield from get_length_grouped_indices(self._lengths, self._batch_size, generator=generator)
