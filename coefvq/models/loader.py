"""Batches made ahead of the model by loader processes (``runtime.loader_workers``), or in this one.

A loader process reads decoded clips from the store, which checks them, and opens no stranger's file: a clip that is
not there yet it has decoded by a limited worker of its own, as everybody does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from coefvq.errors import CoefVQError, DataError, MediaError
from coefvq.models.dataset import Example, VideoDataset

_MOST = 8  # loader processes per model that ``auto`` starts
_PREFETCH = 2  # batches that each makes ahead
_LOADER = " in DataLoader worker process "


class LoadedBatch(NamedTuple):
    """Rows that could be read with their inputs, and (row, reason, message) of those that could not."""

    rows: list[int]
    inputs: dict[str, torch.Tensor]
    unread: list[tuple[int, str, str]]


def loader_processes(setting: int | Literal["auto"], models: int = 1) -> int:
    """How many for each of ``models`` that compute; ``auto`` is none without a GPU, else a share of the cores."""
    if setting != "auto":
        return setting
    if not torch.cuda.is_available():
        return 0
    models *= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(_MOST, (os.cpu_count() or 1) // models - 1))


def load_batches(
    dataset: VideoDataset,
    plan: Sequence[Sequence[int]],
    collate: Callable[[Sequence[Example]], dict[str, torch.Tensor]],
    workers: int = 0,
) -> Iterator[LoadedBatch]:
    """The batches of ``plan`` in order, made by ``workers`` processes; 0: by this one, each when it is asked for.

    Raises:
        StorageError: a clip or its features cannot be read or written.
    """
    loader: DataLoader[Any] = DataLoader(
        _Tried(dataset),
        batch_sampler=plan,  # type: ignore[arg-type]
        collate_fn=_CollateRead(collate),
        num_workers=workers,
        prefetch_factor=_PREFETCH if workers else None,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else it would draw from the global one
    )
    with plain_errors(workers):
        yield from loader


@contextmanager
def plain_errors(workers: int) -> Iterator[None]:
    """An error of a loader process as the one line that it was there; torch hands it on with its traceback.

    Raises:
        DataError: a loader process was killed.
    """
    # a tokenizer that was used before the fork would warn in each process
    if workers:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        yield
    except CoefVQError as error:
        if _LOADER not in str(error):
            raise
        # an error of ours holds its text clean, with line feeds spelled out
        last = str(error).replace("\\n", "\n").strip().splitlines()[-1]
        raise type(error)(last.partition("Error: ")[2] or last) from error
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise DataError(
            f"a loader process was ended ({str(error).splitlines()[0]}); "
            "give the machine more memory or set runtime.loader_workers lower"
        ) from error


@dataclass(frozen=True)
class _Tried(Dataset[tuple[int, Any]]):
    """Row numbers with an example each, or with the error that took its place."""

    rows: VideoDataset

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[int, Example | MediaError]:
        try:
            return index, self.rows[index]
        except MediaError as error:
            return index, error


@dataclass(frozen=True)
class _CollateRead:
    collate: Callable[[Sequence[Example]], dict[str, torch.Tensor]]

    def __call__(self, tried: Sequence[tuple[int, Example | MediaError]]) -> LoadedBatch:
        read = {index: item for index, item in tried if isinstance(item, Example)}
        unread = [(index, item.reason, str(item)) for index, item in tried if isinstance(item, MediaError)]
        return LoadedBatch(list(read), self.collate(list(read.values())) if read else {}, unread)
