"""How many videos a second the input side delivers, against what a card eats.

    python benchmarks/loader.py --rounds 3 --videos 24

One video is 8 frames of 384 px and 30 s of sound, decoded before. `before` is the path without loader processes:
pixels become floats and sound becomes a spectrogram in the process that trains. `workers N` are N loader processes
that hand on integers. CPU seconds are of all processes. What a card eats follows from the planner's FLOPs: a forward
pass to score, three of them to train (with activation checkpointing), at 40 % of the card's peak in bfloat16.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from safetensors.numpy import save_file

from coefvq.config import Lora, MediaSpec
from coefvq.data.media.clips import ClipStore
from coefvq.data.media.limits import kept_limits
from coefvq.models.dataset import Collator, VideoDataset
from coefvq.models.loader import load_batches
from coefvq.models.planning import plan
from coefvq.models.presets import get_preset
from coefvq.records import VideoInput

MEDIA = MediaSpec(frames=8, frame_size=384, audio_seconds=30.0)
_PEAK = {"A100": 312e12, "H100": 989e12}
_SHARE = 0.4
_BATCH = 4


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--videos", type=int, default=24)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    paths = {"before": (False, 0), "workers 1": (True, 1), "workers 2": (True, 2)}
    seconds: dict[str, list[float]] = {name: [] for name in paths}
    cpu: dict[str, list[float]] = {name: [] for name in paths}
    with tempfile.TemporaryDirectory() as scratch:
        dataset = _stored(Path(scratch), chosen.videos)
        for number in range(chosen.rounds + 1):  # the first round warms up
            for name, (raw, workers) in paths.items():
                wall, used = _measured(dataset, raw, workers)
                if number:
                    seconds[name].append(wall / chosen.videos)
                    cpu[name].append(used / chosen.videos)
    rates = {name: round(1 / median(values), 2) for name, values in seconds.items()}
    result = {
        "videos_per_second": rates,
        "cpu_seconds_per_video": {name: round(median(values), 4) for name, values in cpu.items()},
        "two_workers_over_before": round(rates["workers 2"] / rates["before"], 2),
        "card_eats_videos_per_second": {name: _eaten(name) for name in ("onevision-0.5b", "paper")},
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(result))


def _stored(root: Path, count: int) -> VideoDataset:
    store, videos = ClipStore(root, MEDIA, kept_limits(None)), []
    random = np.random.default_rng(5)
    for number in range(count):
        digest = f"{number:064x}"
        path = store.path(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        frames = random.integers(0, 255, (MEDIA.frames, 3, 384, 384)).astype(np.uint8)
        save_file({"frames": frames, "waveform": random.integers(-9000, 9000, 480_000).astype(np.int16)}, path)
        videos.append(VideoInput(str(number), Path("none.mp4"), "watch till the end", sha256=digest))
    return VideoDataset(videos, store)


def _measured(dataset: VideoDataset, raw: bool, workers: int) -> tuple[float, float]:
    """Wall and CPU seconds for all videos."""
    collate = replace(Collator(text=None, visual_tokens=0, audio_seconds=MEDIA.audio_seconds), raw=raw)
    rows: Sequence[int] = range(len(dataset))
    plan_ = [list(rows[at : at + _BATCH]) for at in range(0, len(rows), _BATCH)]
    before, start = _cpu(), time.perf_counter()
    read = sum(len(batch.rows) for batch in load_batches(dataset, plan_, collate, workers))
    wall = time.perf_counter() - start
    if read != len(dataset):
        raise SystemExit(f"{read} of {len(dataset)} videos were delivered")
    return wall, _cpu() - before


def _cpu() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _eaten(name: str) -> dict[str, float]:
    lora = Lora(rank=32, alpha=64, dropout=0.0)
    facts = plan(get_preset(name), MEDIA, lora, "late", gpus=1, memory_gib=None).as_dict()
    forward = facts["forward_flops_per_video"]
    return {
        f"{card} {what}": round(_SHARE * peak / (passes * forward), 1)
        for card, peak in _PEAK.items()
        for what, passes in (("score", 1), ("train", 3))
    }


if __name__ == "__main__":
    main()
