"""Whether a cache pays, by part and said before the run: seconds it saves against seconds and bytes it costs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Literal

from coefvq.data.media.clips import ClipStore
from coefvq.files import atomic_path, storage_errors
from coefvq.models.frozen import FrozenPart
from coefvq.records import VideoInput
from coefvq.training.features.build import example, model_inputs
from coefvq.training.features.keys import CachedModel

Mode = Literal["auto", "on", "off"]
_SAMPLE = 3  # videos measured; a fourth goes first and warms up
_SPARE_BYTES = 256 * 2**20  # of the disk's free space, left to others


@dataclass(frozen=True)
class VideoCost:
    """Seconds and bytes of a video in one part: making the tower's input, the tower, storing and reading its result."""

    prepare: float
    compute: float
    write: float
    read: float
    bytes: int


@dataclass(frozen=True)
class CachePlan:
    """What a run will do with the cache of a part: ``passes`` counts how often each video is read, over all runs."""

    videos: int
    missing: int
    passes: float
    cost: VideoCost
    free_bytes: int

    @property
    def needed_bytes(self) -> int:
        """Disk space that the missing features take."""
        return self.missing * self.cost.bytes

    @property
    def build_seconds(self) -> float:
        """Once."""
        return self.missing * (self.cost.prepare + self.cost.compute + self.cost.write)

    @property
    def saved_seconds(self) -> float:
        """Over all passes; negative where the cache costs more than it saves."""
        without = self.passes * self.videos * (self.cost.prepare + self.cost.compute)
        return without - self.build_seconds - self.passes * self.videos * self.cost.read

    @property
    def break_even(self) -> float:
        """Passes after which the cache has paid for itself; infinite where it never does."""
        per_pass = self.videos * (self.cost.prepare + self.cost.compute - self.cost.read)
        return self.build_seconds / per_pass if per_pass > 0 else float("inf")

    def decide(self, mode: Mode) -> tuple[bool, str]:
        """Whether to use the cache, and why in one line."""
        if mode == "off":
            return False, "off by runtime.features"
        story = (
            f"{self.missing} of {self.videos} videos to compute, {self.cost.bytes / 1e3:,.1f} kB each "
            f"({self.needed_bytes / 1e6:,.0f} MB), about {self.build_seconds:,.0f} s once; "
            f"{self.passes:g} passes save about {self.saved_seconds:,.0f} s (break-even at {self.break_even:.2f})"
        )
        if mode == "on":
            return True, f"on by runtime.features: {story}"
        if self.needed_bytes > self.free_bytes:
            return False, f"off, {self.free_bytes / 1e6:,.0f} MB are free for it: {story}"
        return (True, f"on: {story}") if self.saved_seconds > 0 else (False, f"off, it would not pay: {story}")


def free_bytes(root: Path, max_bytes: int, reclaimable: int) -> int:
    """Bytes that the store may still write, by its limit (``reclaimable`` ones can be evicted) and by the disk."""
    import shutil

    place = root
    while not place.exists():
        place = place.parent
    disk = shutil.disk_usage(place).free + reclaimable - _SPARE_BYTES
    return max(0, min(disk, max_bytes))


def choose(plans: Mapping[str, CachePlan], mode: Mode) -> tuple[frozenset[str], str]:
    """Which parts to keep, and why in one line; what saves most seconds per byte has the disk first."""
    chosen, lines, used = set[str](), {}, 0

    def gain(name: str) -> float:
        return plans[name].saved_seconds / max(plans[name].needed_bytes, 1)

    for name in sorted(plans, key=gain, reverse=True):
        plan = plans[name]
        use, lines[name] = replace(plan, free_bytes=max(plan.free_bytes - used, 0)).decide(mode)
        if use:
            chosen.add(name)
            used += plan.needed_bytes
    if len(plans) == 1:
        return frozenset(chosen), next(iter(lines.values()))
    return frozenset(chosen), "; ".join(f"{name} {lines[name]}" for name in plans)


def measure(
    model: CachedModel, videos: Sequence[VideoInput], clips: ClipStore, scratch: Path
) -> dict[str, VideoCost] | None:
    """Median cost of a few videos by part; None if none of them decodes. Decoding is needed either way, not counted."""
    sample = videos[: _SAMPLE + 1]
    bad = clips.try_fill(sample, 1) if model.reads_media else {}
    good = [video for at, video in enumerate(sample) if at not in bad]
    if not good:
        return None
    with model.packed():
        return {
            part.name: _median([_timed(model, part, video, clips, scratch) for video in good]) for part in model.parts
        }


def _median(rows: list[tuple[float, ...]]) -> VideoCost:
    rows = rows[1:] or rows  # the first one warms up
    seconds = [median(row[column] for row in rows) for column in range(4)]
    return VideoCost(seconds[0], seconds[1], seconds[2], seconds[3], round(median(row[4] for row in rows)))


def _timed(
    model: CachedModel, part: FrozenPart, video: VideoInput, clips: ClipStore, scratch: Path
) -> tuple[float, float, float, float, int]:
    from safetensors import safe_open
    from safetensors.torch import save

    times = [time.perf_counter()]
    batch = model_inputs(model, [part], [example([part], video, clips)])
    times.append(time.perf_counter())
    [features] = model.compute([part], batch)
    times.append(time.perf_counter())
    # the bytes of one video as a file of their own: dearer than a shard's share, so the answer is on the safe side
    path = scratch / "measured.safetensors"
    with storage_errors(scratch, "free some space or set runtime.features: off"):
        with atomic_path(path) as temporary:
            temporary.write_bytes(save({name: tensor.contiguous() for name, tensor in features.items()}))
        times.append(time.perf_counter())
        with safe_open(path, framework="pt") as opened:
            total = sum(opened.get_tensor(name).clone().nbytes for name in features)
        times.append(time.perf_counter())
        path.unlink()
    steps = [after - before for before, after in pairwise(times)]
    return steps[0], steps[1], steps[2], steps[3], total
