"""Decoded clips on disk, addressed by content: decode once, read in every epoch, stage and run.

Key = SHA-256 of the media bytes + the decode settings + this module's format version; one safetensors
file each, written atomically, so several processes may share a store. Deleting it costs time only.
A clip whose hash the manifest knows is decoded only if the file, or what a store sends, still has it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from coefvq.config import MediaLimits, MediaSpec
from coefvq.data import remote
from coefvq.data.media import DEFAULT_LIMITS, Clip, decode_clip
from coefvq.data.workers import LimitedPool, limited_map
from coefvq.errors import MediaError
from coefvq.files import atomic_path, sha256_file, sha256_json, storage_errors
from coefvq.records import VideoInput

#: raise it when decoding gives other values
FORMAT_VERSION = 1
_Failure = tuple[str, str]


def default_cache() -> Path:
    """``COEFVQ_CACHE`` or ``.coefvq/cache`` in the working directory."""
    return Path(os.environ.get("COEFVQ_CACHE") or ".coefvq/cache")


@dataclass(frozen=True)
class ClipStore:
    """Reads clips for one set of decode settings, decoding what is not there yet."""

    root: Path
    spec: MediaSpec
    limits: MediaLimits = DEFAULT_LIMITS

    def get(self, video: VideoInput) -> Clip:
        """Decoded clip of a video; ``video.url`` is fetched into this store's folder if need be.

        Raises:
            MediaError: it cannot be fetched, is not what the manifest says (``changed``), or does not decode.
            StorageError: the disk is full.
        """
        known = self._path(video.sha256) if video.sha256 else None
        if known is not None and known.is_file():
            return _read(known)
        source, digest = self._source(video)
        path = known or self._path(digest)
        if path.is_file():
            return _read(path)
        clip = decode_clip(source, self.spec.frames, self.spec.frame_size, self.spec.audio_seconds, self.limits)
        _write(path, clip)
        return clip

    def fill(
        self, videos: Sequence[VideoInput], workers: int, progress: Callable[[int], None] = lambda _: None
    ) -> None:
        """Decode what is missing, side by side.

        Raises:
            MediaError: a clip does not decode; the first one is named.
        """
        for _, failure in self._filled(videos, workers, progress, None):
            if failure is not None:
                raise MediaError(*failure)

    def try_fill(
        self,
        videos: Sequence[VideoInput],
        workers: int,
        progress: Callable[[int], None] = lambda _: None,
        pool: LimitedPool | None = None,
    ) -> dict[int, MediaError]:
        """Decode what is missing, side by side; what went wrong by index into ``videos``.

        Limited worker processes are started for this call, unless the caller keeps a ``pool`` of them.
        """
        filled = self._filled(videos, workers, progress, pool)
        return {index: MediaError(*failure) for index, failure in filled if failure is not None}

    def _filled(
        self, videos: Sequence[VideoInput], workers: int, progress: Callable[[int], None], pool: LimitedPool | None
    ) -> Iterator[tuple[int, _Failure | None]]:
        missing = [index for index, video in enumerate(videos) if not self._is_stored(video)]
        progress(len(videos) - len(missing))
        if not missing:
            return
        work, todo = partial(_fill_one, self), [videos[index] for index in missing]
        if pool is not None:
            results = pool.map(work, todo, _fill_failed)
        else:
            results = limited_map(work, todo, failed=_fill_failed, limits=self.limits, workers=workers)
        for index, failure in zip(missing, results, strict=True):
            progress(1)
            yield index, failure

    def _is_stored(self, video: VideoInput) -> bool:
        return video.sha256 is not None and self._path(video.sha256).is_file()

    def _source(self, video: VideoInput) -> tuple[Path, str]:
        """A local file with the clip's bytes, and their hash."""
        if video.refusal is not None:
            raise MediaError("outside_root", video.refusal)
        path = video.path
        if video.url is not None:
            path = remote.fetch(video.url, self.root, self.limits, video.sha256)
        _check_file(path, self.limits)
        try:
            digest = sha256_file(path)
        except OSError as error:
            raise MediaError("missing", f"{path}: {error.strerror}; correct the path or delete the row") from error
        if video.sha256 is not None and digest != video.sha256:
            name = path if video.url is None else remote.redacted(video.url)
            raise MediaError("changed", f"{name}: its bytes are not those that were ingested; run ingest again")
        return path, digest

    def _path(self, digest: str) -> Path:
        folder = sha256_json([FORMAT_VERSION, self.spec.model_dump()])[:16]
        return self.root / "clips" / folder / digest[:2] / f"{digest}.safetensors"


def _check_file(path: Path, limits: MediaLimits) -> None:
    """Before any byte is read: opening a pipe may wait for ever, and a device may never end."""
    if not os.path.isfile(path):  # noqa: PTH113  Path raises where a name is too long
        raise MediaError("missing", f"{path}: no such file, or a folder, pipe or device; correct the path")
    if path.stat().st_size > limits.megabytes * 2**20:
        problem = "above ingest.limits.megabytes; raise the limit or delete the row"
        raise MediaError("too_large", f"{path}: {problem}")


def _fill_one(store: ClipStore, video: VideoInput) -> _Failure | None:
    # an exception class with two arguments does not travel between processes; its arguments do
    try:
        store.get(video)
    except MediaError as error:
        return error.reason, str(error)
    return None


def _fill_failed(video: VideoInput, reason: str) -> _Failure:
    name = video.path if video.url is None else remote.redacted(video.url)
    return reason, f"{name}: decoding was stopped ({reason}); raise the limit it met or delete the row"


def _write(path: Path, clip: Clip) -> None:
    from safetensors.numpy import save

    remedy = "free some space, or set COEFVQ_CACHE to a folder on another disk"
    with storage_errors(path.parent, remedy), atomic_path(path) as temporary:
        temporary.write_bytes(save({"frames": clip.frames, "waveform": clip.waveform}))


def _read(path: Path) -> Clip:
    from safetensors.numpy import load_file

    arrays = load_file(path)
    return Clip(frames=arrays["frames"], waveform=arrays["waveform"].astype(np.int16, copy=False))
