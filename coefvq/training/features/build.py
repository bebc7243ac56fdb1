"""Fill the store: clips are decoded by limited processes ahead of the towers, through a bounded queue.

Any number of processes may build the same videos: each takes chunks that no other has taken, and at the end
waits for those of the others (or takes over where one died). On a CPU every video is computed alone and on one
thread, so that its features do not depend on its neighbours or on who computed them; a GPU gets some at once. A clip
that does not decode in its time is skipped and named.
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

from coefvq.compute.threads import Each, thread_each
from coefvq.compute.workers import LimitedPool
from coefvq.data.media.clips import ClipStore
from coefvq.errors import MediaError
from coefvq.files import claim, sha256_json, storage_errors
from coefvq.models.dataset import Example, ready, text_of
from coefvq.models.frozen import READS, FrozenPart
from coefvq.records import VideoInput
from coefvq.training.features.keys import CachedModel
from coefvq.training.features.leases import Lease
from coefvq.training.features.pending import Claim, Index, PendingFeatures, Task
from coefvq.training.features.store import FeatureStore

CHUNK = 32  # videos that one process takes at a time
FLUSH_SECONDS = 10.0  # features that wait so long are written: what a kill costs at most
_AHEAD = 2  # chunks decoded before their turn; their clips wait on disk, not in memory


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
class _Computed:
    """Features of each of ``videos`` by part; a video whose clip does not decode is in ``skipped``."""

    parts: tuple[FrozenPart, ...]
    videos: list[VideoInput]
    features: list[dict[str, torch.Tensor]]
    skipped: dict[str, MediaError]


@dataclass(frozen=True)
class FeatureBuilder:
    """One process's hand in filling the store with the parts of ``model``."""

    model: CachedModel
    store: FeatureStore
    clips: ClipStore
    lease: Lease
    workers: int
    flush_seconds: float = FLUSH_SECONDS

    def lookup(self, videos: Sequence[VideoInput]) -> Index:
        """What is there already, of the model's own or within what another model computed."""
        return {part.name: self._lookup(part, videos) for part in self.model.parts}

    def _lookup(self, part: FrozenPart, videos: Sequence[VideoInput]) -> dict[str, Path]:
        wanted = [self.model.entry(part, video) for video in videos]
        found = self.store.lookup(self.model.keys[part.name], wanted, self.lease)
        if (wider := self.model.wider.get(part.name)) is not None and len(found) < len(wanted):
            found |= self.store.lookup(wider.key, [entry for entry in wanted if entry not in found], self.lease)
        return found

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
        limits, device = self.clips.limits, self.model.device
        with self.model.packed(), LimitedPool(limits, self.workers) as pool, thread_each(device) as each:
            # first what nobody else is at, then the rest as it becomes free
            busy = list(self._pass(chunks, built, pool, each, progress, wait=False))
            list(self._pass(busy, built, pool, each, progress, wait=True))
        built.seconds = time.perf_counter() - start
        return built

    def missing(self, videos: Sequence[VideoInput], index: Index) -> list[Task]:
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
        chunks: Sequence[list[Task]],
        built: Built,
        pool: LimitedPool,
        each: Each,
        progress: Callable[[int], None],
        *,
        wait: bool,
    ) -> Iterator[list[Task]]:
        """Compute chunk after chunk; yields those that another process is at."""

        def prepare(chunk: list[Task]) -> Claim | None:
            return self._claim(chunk, pool, wait)

        pending = PendingFeatures({part.name: {} for part in self.model.parts})
        try:
            for chunk, claim in _ahead(prepare, chunks):
                if claim is None:
                    yield chunk
                    continue
                pending.claims.append(claim)
                built.skipped |= claim.failed
                self._compute(claim, pending, built, each)
                # who waits for a chunk must not make others wait for its own: two builders would wait for each other
                if wait or pending.due(self.flush_seconds):
                    self._flush(pending, built)
                progress(len(chunk))
            self._flush(pending, built)
        finally:
            pending.release()

    def _claim(self, chunk: list[Task], pool: LimitedPool, wait: bool) -> Claim | None:
        """Lock a chunk, see what others did of it meanwhile, decode the rest; None if another process has it."""
        # named by what will be written, so that every process calls the same chunk the same
        names = [[self.model.keys[p.name].digest, self.model.entry(p, video)] for video, parts in chunk for p in parts]
        with storage_errors(self.store.root, "free some space"):
            folder = self.store.root / "claims"
            folder.mkdir(parents=True, exist_ok=True)
            if (lock := claim(folder / f"{sha256_json(names)[:32]}.lock", wait=wait)) is None:
                return None
            try:
                return self._decoded(chunk, pool, lock)
            except BaseException:
                lock.release()
                raise

    def _decoded(self, chunk: list[Task], pool: LimitedPool, lock: Any) -> Claim:
        index = self.lookup([video for video, _ in chunk])
        todo = self.missing([video for video, _ in chunk], index)
        seen = [video for video, parts in todo if any(part.reads != READS for part in parts)]
        bad = self.clips.try_fill(seen, self.workers, pool=pool)
        failed = {seen[at].video_id: error for at, error in bad.items()}
        return Claim(lock, [task for task in todo if task[0].video_id not in failed], index, failed)

    def _compute(self, claim: Claim, pending: PendingFeatures, built: Built, each: Each) -> None:
        for name, found in claim.index.items():
            built.index[name] |= found
        for computed in each(self._computed, _alike(claim.tasks, self.model.at_once)):
            built.skipped |= computed.skipped
            for video, features in zip(computed.videos, computed.features, strict=True):
                built.computed += 1
                for part in computed.parts:
                    tensor = features[part.name]
                    pending.add(part.name, self.model.entry(part, video), tensor)
                    built.tensor_bytes += tensor.nbytes
                if pending.full:
                    self._write(pending, built)

    def _computed(self, task: tuple[tuple[FrozenPart, ...], list[VideoInput]]) -> _Computed:
        parts, videos = task
        examples, skipped = dict[VideoInput, Example](), dict[str, MediaError]()
        for video in videos:
            try:
                examples[video] = example(parts, video, self.clips)
            except MediaError as error:
                skipped[video.video_id] = error
        inputs = model_inputs(self.model, parts, list(examples.values()))
        return _Computed(parts, list(examples), self.model.compute(parts, inputs), skipped)

    def _flush(self, pending: PendingFeatures, built: Built) -> None:
        """Write what waits, then let others have its chunks."""
        self._write(pending, built)
        pending.release()

    def _write(self, pending: PendingFeatures, built: Built) -> None:
        for name, tensors in pending.take().items():
            if tensors:
                shard = self.store.write(self.model.keys[name], tensors, self.lease)
                built.index[name] |= dict.fromkeys(tensors, shard)


def _alike(tasks: Sequence[Task], size: int) -> Iterator[tuple[tuple[FrozenPart, ...], list[VideoInput]]]:
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
    prepare: Callable[[list[Task]], Claim | None], chunks: Sequence[list[Task]]
) -> Iterator[tuple[list[Task], Claim | None]]:
    """Results in order, prepared by a thread that is at most ``_AHEAD`` chunks in front."""
    waiting: deque[tuple[list[Task], Future[Claim | None]]] = deque()
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
