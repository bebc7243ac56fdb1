"""Decoded clips on disk, addressed by content: decode once, read in every epoch, stage and run.

Key = SHA-256 of the media bytes + the decode settings + this module's format version; one safetensors
file each, written atomically, so several processes may share a store. Deleting it costs time only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from coefvq.config import MediaSpec
from coefvq.data.media import Clip, decode_clip
from coefvq.data.probe import spawn_pool
from coefvq.errors import MediaError
from coefvq.files import atomic_path, sha256_file, sha256_json
from coefvq.records import VideoInput

_FORMAT_VERSION = 1


def default_cache() -> Path:
    """``COEFVQ_CACHE`` or ``.coefvq/cache`` in the working directory."""
    return Path(os.environ.get("COEFVQ_CACHE") or ".coefvq/cache")


@dataclass(frozen=True)
class ClipStore:
    """Reads clips for one set of decode settings, decoding what is not there yet."""

    root: Path
    spec: MediaSpec

    def get(self, video: VideoInput) -> Clip:
        """Decoded clip of a video.

        Raises:
            MediaError: it does not decode.
        """
        path = self._path(video)
        if path.is_file():
            return _read(path)
        clip = decode_clip(video.path, self.spec.frames, self.spec.frame_size, self.spec.audio_seconds)
        _write(path, clip)
        return clip

    def fill(
        self, videos: Sequence[VideoInput], workers: int, progress: Callable[[int], None] = lambda _: None
    ) -> None:
        """Decode what is missing, side by side.

        Raises:
            MediaError: a clip does not decode.
        """
        missing = [video for video in videos if not self._path(video).is_file()]
        progress(len(videos) - len(missing))
        if not missing:
            return
        with spawn_pool(workers) as pool:
            for error in pool.map(partial(_fill_one, self), missing, chunksize=8):
                if error is not None:
                    raise MediaError(*error)
                progress(1)

    def _path(self, video: VideoInput) -> Path:
        if video.sha256 is None and not video.path.is_file():
            raise MediaError("missing", f"{video.path}: no such file; correct the path")
        digest = video.sha256 or sha256_file(video.path)
        folder = sha256_json([_FORMAT_VERSION, self.spec.model_dump()])[:16]
        return self.root / "clips" / folder / digest[:2] / f"{digest}.safetensors"


def _fill_one(store: ClipStore, video: VideoInput) -> tuple[str, str] | None:
    # an exception class with two arguments does not travel between processes; its arguments do
    try:
        store.get(video)
    except MediaError as error:
        return error.reason, str(error)
    return None


def _write(path: Path, clip: Clip) -> None:
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        save_file({"frames": clip.frames, "waveform": clip.waveform}, temporary)


def _read(path: Path) -> Clip:
    from safetensors.numpy import load_file

    arrays = load_file(path)
    return Clip(frames=arrays["frames"], waveform=arrays["waveform"].astype(np.int16, copy=False))
