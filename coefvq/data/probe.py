"""Look at each clip once, in worker processes: hash, container facts, does it decode."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from coefvq.config import MediaLimits
from coefvq.data.media import decode_frames, stream_info
from coefvq.data.near_duplicates import video_hash
from coefvq.errors import DataError, MediaError
from coefvq.files import inside, sha256_file

#: manifest columns that come from probing
PROBE_COLUMNS = ("decode_ok", "reason", "size_bytes", "phash", "duration_s", "fps", "width", "height", "has_audio")
_PROBE_FRAMES, _PROBE_SIZE = 4, 128


@dataclass(frozen=True)
class Probe:
    """One clip's facts; ``reason`` is from records.REASONS."""

    sha256: str
    decode_ok: bool
    reason: str
    size_bytes: int | None = None
    phash: str = ""
    duration_s: float | None = None
    fps: float | None = None
    width: int | None = None
    height: int | None = None
    has_audio: bool = False


def probe_clip(uri: str, root: Path, limits: MediaLimits) -> Probe:
    """Probe one clip; a bad one gives a row with its reason, never an exception."""
    try:
        path = inside(root, uri)
    except DataError:
        return Probe("", False, "outside_root")
    if not path.is_file():
        return Probe("", False, "missing")
    digest, size = sha256_file(path), path.stat().st_size
    if size > limits.megabytes * 1024**2:
        return Probe(digest, False, "too_large", size)
    try:
        info = stream_info(path)
        if info.duration_s > limits.seconds:
            return Probe(digest, False, "too_long", size, **asdict(info))
        frames = decode_frames(path, _PROBE_FRAMES, _PROBE_SIZE)
    except MediaError as error:
        return Probe(digest, False, error.reason, size)
    return Probe(digest, True, "ok", size, video_hash(frames), **asdict(info))


def probe_all(
    uris: Sequence[str],
    root: Path,
    *,
    limits: MediaLimits,
    workers: int,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Probe]:
    """Probe clips in order, in ``workers`` processes."""
    work = partial(probe_clip, root=root, limits=limits)
    results = []
    with spawn_pool(workers) as pool:
        for result in pool.map(work, uris, chunksize=8):
            results.append(result)
            progress(1)
    return results


def spawn_pool(workers: int) -> ProcessPoolExecutor:
    """A pool of fresh processes: forking one that holds FFmpeg or torch threads may deadlock."""
    return ProcessPoolExecutor(max_workers=workers, mp_context=multiprocessing.get_context("spawn"))


def merge_probes(frame: pd.DataFrame, probes: Sequence[Probe]) -> pd.DataFrame:
    """Add sha256 and the probe columns to imported rows."""
    facts = pd.DataFrame([asdict(probe) for probe in probes], index=frame.index)
    return frame.drop(columns=[c for c in facts.columns if c in frame.columns]).join(facts)
