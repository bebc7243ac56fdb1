"""Features of a video for ``VideoDataset``: the cache as a function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from cachetools import LRUCache

from coefvq.models.dataset import Collator
from coefvq.training.features.keys import CachedModel
from coefvq.training.features.shards import read_entry

if TYPE_CHECKING:
    import torch

    from coefvq.records import VideoInput
    from coefvq.training.features.pending import Index

#: of a process, so that only the first epoch opens shards; a million videos do not fit and are read again
_MOST_KEPT, _LEAST_KEPT = 2**30, 256 * 2**20


class KeptEntries:
    """Entries that were read, the latest ones up to a number of bytes; entries never change under their name."""

    def __init__(self, limit: int) -> None:
        """``limit`` in bytes; an entry above it is never kept."""
        self._kept: LRUCache[tuple[Path, str], torch.Tensor] = LRUCache(limit, getsizeof=lambda entry: entry.nbytes)
        self._limit = limit
        self._lock = Lock()

    def read(self, shard: Path, entry: str) -> torch.Tensor:
        """As ``read_entry``, which also says what it raises; the tensor is shared, so nobody writes to it."""
        key = (shard, entry)
        with self._lock:
            kept = self._kept.get(key)
        if kept is not None:
            return kept
        # a copy: the mapped one would hold the pages of its shard
        tensor = read_entry(shard, entry).clone()
        if tensor.nbytes <= self._limit:
            with self._lock:
                self._kept[key] = tensor
        return tensor


def kept_bytes(free: int) -> int:
    """An eighth of the ``free`` bytes of memory, 256 MiB to 1 GiB."""
    return min(max(free // 8, _LEAST_KEPT), _MOST_KEPT)


@cache
def _kept() -> KeptEntries:
    import psutil

    return KeptEntries(kept_bytes(psutil.virtual_memory().available))


@dataclass(frozen=True)
class FeatureReader:
    """``reader(video)`` -> outputs of the frozen parts by name, from disk or kept; see ``VideoDataset``.

    Only the names travel to loader processes: the model itself does not. ``beginnings`` has, by part, the folder of
    entries that hold more, and how many of their rows are the part's.
    """

    index: Index
    entries: dict[str, dict[str, str]]
    beginnings: Mapping[str, tuple[str, int]] = field(default_factory=dict)

    def __call__(self, video: VideoInput) -> dict[str, torch.Tensor]:
        """Features without the batch dimension.

        Raises:
            StorageError: a shard was deleted or damaged meanwhile.
        """
        own_entries = self.entries[video.video_id]
        return {name: self._read(name, entry) for name, entry in own_entries.items()}

    def _read(self, name: str, entry: str) -> torch.Tensor:
        shard = self.shard(name, entry)
        tensor = _kept().read(shard, entry)
        folder, rows = self.beginnings.get(name, ("", 0))
        return tensor[:rows] if shard.parent.name == folder else tensor

    def shard(self, name: str, entry: str) -> Path:
        """Where an entry lies."""
        return self.index[name][entry]


def reader(model: CachedModel, index: Index, videos: Sequence[VideoInput]) -> tuple[FeatureReader, list[bool]]:
    """A reader for those of ``videos`` that have all parts, and which those are."""
    entries: dict[str, dict[str, str]] = {}
    for video in videos:
        own_entries = {part.name: model.entry(part, video) for part in model.parts}
        if all(entry in index[name] for name, entry in own_entries.items()):
            entries[video.video_id] = own_entries
    beginnings = {name: (wider.key.digest, wider.rows) for name, wider in model.wider.items()}
    return FeatureReader(index, entries, beginnings), [video.video_id in entries for video in videos]


def feature_collator(model: CachedModel) -> Collator:
    """The model's collator for examples that carry features."""
    return replace(model.collator, replaced=model.replaced)
