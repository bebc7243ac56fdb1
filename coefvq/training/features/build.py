"""Fill the store: clips are decoded by limited processes ahead of the towers, through a bounded queue.

Any number of processes may build the same videos: each takes chunks that no other has taken, and at the end
waits for those of the others (or takes over where one died). On a CPU every video is computed alone, so that its
features do not depend on its neighbours or on who computed them; a GPU gets some at once. A clip that does not
decode in its time is skipped and named.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch

from coefvq.compute.workers import LimitedPool
from coefvq.data.media.clips import ClipStore
from coefvq.errors import MediaError
from coefvq.files import sha256_json, storage_errors
from coefvq.models.dataset import Example, ready, text_of
from coefvq.models.frozen import READS, FrozenPart
from coefvq.records import VideoInput
from coefvq.training.features.keys import CachedModel
from coefvq.training.features.store import FeatureStore, Lease

CHUNK = 32  # videos that one process takes at a time
_SHARD_BYTES = 64 * 2**20  # a shard is written at the latest when it is so large
_AHEAD = 2  # chunks decoded before their turn; their clips wait on disk, not in memory
Index = dict[str, dict[str, Path]]
_Task = tuple[VideoInput, tuple[FrozenPart, ...]]


@dataclass
class Built:
    """What a build did; ``index`` has the shard of each entry, by part."""

    index: Index
    computed: int = 0
    found: int = 0
    tensor_bytes: int = 0
    seconds: float = 0.0
    skipped: dict[str, MediaError] = field(default_factory=dict)


@dataclass(frozen=True)
class FeatureBuilder:
    """One process's hand in filling the store with the parts of ``model``."""

    model: CachedModel
    store: FeatureStore
    clips: ClipStore
    lease: Lease
    workers: int

    def lookup(self, videos: Sequence[VideoInput]) -> Index:
        """What is there already."""
        return {
            part.name: self.store.lookup(
                self.model.keys[part.name], (self.model.entry(part, video) for video in videos), self.lease
            )
            for part in self.model.parts
        }

    def build(self, videos: Sequence[VideoInput], progress: Callable[[int], None] = lambda _: None) -> Built:
        """Compute what is missing.

        Raises:
            StorageError: the disk or the limit of the store is full; what was written stays usable.
        """
        start = time.perf_counter()
        built = Built(self.lookup(videos))
        tasks = self.missing(videos, built.index)
        built.found = len(videos) - len(tasks)
        progress(built.found)
        chunks = [tasks[at : at + CHUNK] for at in range(0, len(tasks), CHUNK)]
        with self.model.packed(), LimitedPool(self.clips.limits, self.workers) as pool:
            # first what nobody else is at, then the rest as it becomes free
            busy = list(self._pass(chunks, built, pool, progress, wait=False))
            list(self._pass(busy, built, pool, progress, wait=True))
        built.seconds = time.perf_counter() - start
        return built

    def missing(self, videos: Sequence[VideoInput], index: Index) -> list[_Task]:
        """Each video with its parts that are not there; the same clip and text twice is one task."""
        tasks, seen = [], set()
        for video in videos:
            entries = {part: self.model.entry(part, video) for part in self.model.parts}
            parts = tuple(part for part, entry in entries.items() if entry not in index[part.name])
            if parts and (identity := tuple(entries.values())) not in seen:
                seen.add(identity)
                tasks.append((video, parts))
        return tasks

    def _pass(
        self,
        chunks: Sequence[list[_Task]],
        built: Built,
        pool: LimitedPool,
        progress: Callable[[int], None],
        *,
        wait: bool,
    ) -> Iterator[list[_Task]]:
        """Compute chunk after chunk; yields those that another process is at."""

        def prepare(chunk: list[_Task]) -> _Claim | None:
            return self._claim(chunk, pool, wait)

        for chunk, claim in _ahead(prepare, chunks):
            if claim is None:
                yield chunk
                continue
            try:
                built.skipped |= claim.failed
                self._compute(claim, built)
            finally:
                claim.lock.release()
            progress(len(chunk))

    def _claim(self, chunk: list[_Task], pool: LimitedPool, wait: bool) -> _Claim | None:
        """Lock a chunk, see what others did of it meanwhile, decode the rest; None if another process has it."""
        from filelock import FileLock, Timeout

        # named by what will be written, so that every process calls the same chunk the same
        names = [[self.model.keys[p.name].digest, self.model.entry(p, video)] for video, parts in chunk for p in parts]
        with storage_errors(self.store.root, "free some space"):
            folder = self.store.root / "claims"
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / f"{sha256_json(names)[:32]}.lock", thread_local=False)
            try:
                lock.acquire(blocking=wait)
            except Timeout:
                return None
            try:
                return self._decoded(chunk, pool, lock)
            except BaseException:
                lock.release()
                raise

    def _decoded(self, chunk: list[_Task], pool: LimitedPool, lock: Any) -> _Claim:
        index = self.lookup([video for video, _ in chunk])
        todo = self.missing([video for video, _ in chunk], index)
        seen = [video for video, parts in todo if any(part.reads != READS for part in parts)]
        bad = self.clips.try_fill(seen, self.workers, pool=pool)
        failed = {seen[at].video_id: error for at, error in bad.items()}
        return _Claim(lock, [task for task in todo if task[0].video_id not in failed], index, failed)

    def _compute(self, claim: _Claim, built: Built) -> None:
        for name, found in claim.index.items():
            built.index[name] |= found
        pending: dict[str, dict[str, torch.Tensor]] = {part.name: {} for part in self.model.parts}
        for parts, videos in _alike(claim.tasks, self.model.at_once):
            examples = self._examples(parts, videos, built)
            inputs = model_inputs(self.model, parts, list(examples.values()))
            for video, features in zip(examples, self.model.compute(parts, inputs), strict=True):
                built.computed += 1
                for part in parts:
                    pending[part.name][self.model.entry(part, video)] = features[part.name]
                    built.tensor_bytes += features[part.name].nbytes
                    if sum(tensor.nbytes for tensor in pending[part.name].values()) >= _SHARD_BYTES:
                        self._flush(part.name, pending, built)
        for name in pending:
            self._flush(name, pending, built)

    def _examples(
        self, parts: Sequence[FrozenPart], videos: Sequence[VideoInput], built: Built
    ) -> dict[VideoInput, Example]:
        examples = {}
        for video in videos:
            try:
                examples[video] = example(parts, video, self.clips)
            except MediaError as error:
                built.skipped[video.video_id] = error
        return examples

    def _flush(self, name: str, pending: dict[str, dict[str, torch.Tensor]], built: Built) -> None:
        tensors, pending[name] = pending[name], {}
        if tensors:
            shard = self.store.write(self.model.keys[name], tensors, self.lease)
            built.index[name] |= dict.fromkeys(tensors, shard)


@dataclass
class _Claim:
    """A chunk that is ours until ``lock`` is released: what to compute, what is there, what does not decode."""

    lock: Any
    tasks: list[_Task]
    index: Index
    failed: dict[str, MediaError]


def _alike(tasks: Sequence[_Task], size: int) -> Iterator[tuple[tuple[FrozenPart, ...], list[VideoInput]]]:
    """Videos that lack the same parts, at most ``size`` at a time, in order."""
    for parts, group in groupby(tasks, key=itemgetter(1)):
        videos = [video for video, _ in group]
        for at in range(0, len(videos), size):
            yield parts, videos[at : at + size]


def example(parts: Sequence[FrozenPart], video: VideoInput, clips: ClipStore) -> Example:
    """A video with its clip, if a part needs one.

    Raises:
        MediaError: the clip does not decode.
    """
    seen = any(part.reads != READS for part in parts)
    return Example(clips.get(video) if seen else None, text_of(video), None)


def model_inputs(
    model: CachedModel, parts: Sequence[FrozenPart], examples: Sequence[Example]
) -> dict[str, torch.Tensor]:
    """What ``parts`` read of some videos, as a batch on the model's device; empty without videos."""
    if not examples:
        return {}
    needed = {name for part in parts for name in part.reads}
    unused = frozenset({"pixel_values", "input_ids", "log_mel"} - needed)
    batch = replace(model.collator, replaced=unused, raw=True)(examples)
    inputs = ready({name: tensor.to(model.device) for name, tensor in batch.items()})
    return {name: tensor for name, tensor in inputs.items() if name in needed}


def _ahead(
    prepare: Callable[[list[_Task]], _Claim | None], chunks: Sequence[list[_Task]]
) -> Iterator[tuple[list[_Task], _Claim | None]]:
    """Results in order, prepared by a thread that is at most ``_AHEAD`` chunks in front."""
    waiting: deque[tuple[list[_Task], Future[_Claim | None]]] = deque()
    executor = ThreadPoolExecutor(1)
    try:
        for chunk in chunks:
            waiting.append((chunk, executor.submit(prepare, chunk)))
            if len(waiting) > _AHEAD:
                first, future = waiting.popleft()
                yield first, future.result()
        for chunk, future in waiting:
            yield chunk, future.result()
    finally:
        executor.shutdown(cancel_futures=True)
        for _, future in waiting:
            if future.done() and not future.cancelled() and not future.exception() and (claim := future.result()):
                claim.lock.release()
