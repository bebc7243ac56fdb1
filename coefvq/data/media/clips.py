"""Decoded clips on disk, addressed by content: decode once, read in every epoch, stage and run.

Key = SHA-256 of the media bytes + the decode settings + this module's format version; one safetensors
file each, written atomically, so several processes may share a store. Deleting it costs time only, and above
``max_bytes`` the least recently used go (``clip_room``).
A clip whose hash the manifest knows is decoded only if the file, or what a store sends, still has it.

Clips are decoded in limited workers and nowhere else: what a store lacks, it asks a pool for. An entry that is cut,
empty or of another shape is deleted and made again.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from coefvq.compute.engines import limited_map
from coefvq.compute.pools import shared_pool
from coefvq.compute.workers import LimitedPool
from coefvq.config import MediaLimits, MediaSpec
from coefvq.data import remote
from coefvq.data.media.clip_entry import entry_bytes, is_entry, read_entry, write_entry
from coefvq.data.media.clip_room import DEFAULT_BYTES, ClipRoom
from coefvq.data.media.decode import Clip, decode_clip
from coefvq.errors import MediaError
from coefvq.files import sha256_file, sha256_json, storage_errors
from coefvq.records import VideoInput
from coefvq.redaction import redact

#: raise it when decoding gives other values
FORMAT_VERSION = 2
_SHA256 = re.compile("[0-9a-f]{64}")
_STORY = 10_000  # characters of a message, at most


@dataclass(frozen=True)
class _Filled:
    """A worker's answer for a clip: the hash under which the store holds it, or the reason why it does not."""

    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
    reason: Annotated[str, Field(pattern=r"^[a-z_]*$", max_length=30)] = ""
    message: Annotated[str, Field(max_length=_STORY)] = ""


_FILLED = TypeAdapter(_Filled)


def default_cache() -> Path:
    """``COEFVQ_CACHE`` or ``.coefvq/cache`` in the working directory."""
    return Path(os.environ.get("COEFVQ_CACHE") or ".coefvq/cache")


@dataclass(frozen=True)
class ClipStore:
    """Reads clips for one set of decode settings; what is not there yet is decoded within ``limits``.

    All clips below ``root`` together take about ``max_bytes`` at most.
    """

    root: Path
    spec: MediaSpec
    limits: MediaLimits
    max_bytes: int = DEFAULT_BYTES

    def get(self, video: VideoInput) -> Clip:
        """Decoded clip of a video; ``video.url`` is fetched into this store's folder if need be.

        Raises:
            MediaError: it cannot be fetched, is not what the manifest says (``changed``), or does not decode.
            StorageError: the disk is full.
        """
        known = self.hashed(video)
        if (clip := self._stored(known.sha256)) is not None:
            return clip
        with shared_pool(self.limits) as pool:
            [filled] = pool.map(partial(_fill, self), [known], _FILLED, _stopped)
        if filled.reason:
            raise MediaError(filled.reason, filled.message)
        if (clip := self._stored(filled.sha256)) is None:
            raise MediaError("crashed", f"{_name(video)}: its decoder left no clip; re-encode it or delete the row")
        self._room.wrote(entry_bytes(self.spec))
        return clip

    @contextmanager
    def passing(self, videos: Sequence[VideoInput]) -> Iterator[None]:
        """Keep no clip of ``videos`` that is decoded within the block: a stream sees each video once."""
        absent = {video.sha256 for video in videos if not self._holds(video.sha256)}
        try:
            yield
        finally:
            for sha256 in absent:
                if sha256 is not None and self._holds(sha256):
                    self.path(sha256).unlink(missing_ok=True)

    def fill(
        self, videos: Sequence[VideoInput], workers: int, progress: Callable[[int], None] = lambda _: None
    ) -> None:
        """Decode what is missing, side by side.

        Raises:
            MediaError: a clip does not decode; the first one is named.
        """
        for _, filled in self._filled(videos, workers, progress, None):
            if filled.reason:
                raise MediaError(filled.reason, filled.message)

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
        return {index: MediaError(found.reason, found.message) for index, found in filled if found.reason}

    def hashed(self, video: VideoInput) -> VideoInput:
        """A local clip with its hash, so that it is not taken again at each look into the store.

        What is no plain file of fair size is left alone; the worker will say what is wrong.
        """
        if video.sha256 is not None or video.url is not None or video.refusal is not None:
            return video
        try:
            _check_file(video.path, self.limits)
            return replace(video, sha256=sha256_file(video.path))
        except (MediaError, OSError):
            return video

    def _filled(
        self, videos: Sequence[VideoInput], workers: int, progress: Callable[[int], None], pool: LimitedPool | None
    ) -> Iterator[tuple[int, _Filled]]:
        missing = [index for index, video in enumerate(videos) if not self._holds(video.sha256)]
        progress(len(videos) - len(missing))
        if not missing:
            return
        work, todo = partial(_fill, self), [videos[index] for index in missing]
        if pool is not None:
            results = pool.map(work, todo, _FILLED, _stopped)
        else:
            results = limited_map(work, todo, answer=_FILLED, failed=_stopped, limits=self.limits, workers=workers)
        for index, filled in zip(missing, results, strict=True):
            progress(1)
            if not filled.reason:
                self._room.wrote(entry_bytes(self.spec))
            yield index, filled

    def _source(self, video: VideoInput) -> tuple[Path, str]:
        """A local file with the clip's bytes, and their hash."""
        if video.refusal is not None:
            raise MediaError("outside_root", video.refusal)
        path = video.path
        if video.url is not None:
            path = remote.fetch(video.url, self.root, self.limits, video.sha256)
        with _unreadable(path):
            _check_file(path, self.limits)
            digest = sha256_file(path)
        if video.sha256 is not None and digest != video.sha256:
            problem = "its bytes are not those that were ingested; run ingest again"
            raise MediaError("changed", f"{_name(video)}: {problem}")
        return path, digest

    def holds(self, video: VideoInput) -> bool:
        """Whether the decoded clip is there."""
        return self._holds(video.sha256)

    def path(self, sha256: str) -> Path:
        """Where the entry of these bytes lies."""
        return self._folder / sha256[:2] / f"{sha256}.safetensors"

    @cached_property
    def _folder(self) -> Path:
        return self.root / "clips" / sha256_json([FORMAT_VERSION, self.spec.model_dump()])[:16]

    @cached_property
    def _room(self) -> ClipRoom:
        return ClipRoom(self.root, self.max_bytes)

    def _holds(self, sha256: str | None) -> bool:
        # a hash comes from a table or an event: what is none must not become a path
        return sha256 is not None and _SHA256.fullmatch(sha256) is not None and is_entry(self.path(sha256), self.spec)

    def _stored(self, sha256: str | None) -> Clip | None:
        """The clip, if the store has a whole one of these settings; what is in its place otherwise is deleted."""
        if sha256 is None or _SHA256.fullmatch(sha256) is None:
            return None
        path = self.path(sha256)
        if (clip := read_entry(path, self.spec)) is None:
            # no folder to hold it: the worker will say so when it writes
            with storage_errors(path, "delete it"), suppress(FileNotFoundError, NotADirectoryError):
                path.unlink()
        else:
            with suppress(OSError):  # gone, or another user's
                os.utime(path)
        return clip


def _name(video: VideoInput) -> object:
    return video.path if video.url is None else redact(video.url)


@contextmanager
def _unreadable(path: Path) -> Iterator[None]:
    """Whatever keeps a clip's file from being read is the row's fault: a name too long, a folder without rights."""
    try:
        yield
    except FileNotFoundError as error:
        raise MediaError("missing", f"{path}: no such file; correct the path or delete the row") from error
    except (OSError, ValueError) as error:  # a name that holds a zero byte is a ValueError
        problem = getattr(error, "strerror", None) or "no name that a file can have"
        raise MediaError("missing", f"{path}: {problem}; correct the path or delete the row") from error


def _check_file(path: Path, limits: MediaLimits) -> None:
    """Before any byte is read: opening a pipe may wait for ever, and a device may never end."""
    with _unreadable(path):
        facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise MediaError("missing", f"{path}: no such file, or a folder, pipe or device; correct the path")
    if facts.st_size > limits.megabytes * 2**20:
        problem = "above ingest.limits.megabytes; raise the limit or delete the row"
        raise MediaError("too_large", f"{path}: {problem}")


def _fill(store: ClipStore, video: VideoInput) -> _Filled:
    """Runs in a limited worker, the only place where a store's clips are decoded."""
    spec = store.spec
    try:
        source, digest = store._source(video)
        path = store.path(digest)
        if not is_entry(path, spec):
            write_entry(path, _decoded(source, spec, store.limits), store.root)
    except MediaError as error:
        return _Filled("", error.reason, str(error)[:_STORY])
    return _Filled(digest)


def _decoded(path: Path, spec: MediaSpec, limits: MediaLimits) -> Clip:
    try:
        return decode_clip(path, spec.frames, spec.frame_size, spec.audio_seconds, limits)
    except (MediaError, MemoryError):
        raise
    except Exception as error:
        problem = f"cannot be decoded ({type(error).__name__}: {error}); re-encode it or delete the row"
        raise MediaError("undecodable", f"{path}: {problem}") from error


def _stopped(video: VideoInput, reason: str) -> _Filled:
    problem = f"decoding was stopped ({reason}); raise the limit it met or delete the row"
    return _Filled("", reason, f"{_name(video)}: {problem}")
