"""One decoded clip on disk: a safetensors file of frames and sound, checked before it is read."""

from __future__ import annotations

import math
import stat
from pathlib import Path

from coefvq.config import MediaSpec
from coefvq.data.media.decode import SAMPLE_RATE, Clip
from coefvq.files import atomic_path, private_folder, storage_errors

#: what to do where the store cannot be written
REMEDY = "free some space, or set COEFVQ_CACHE to a folder on another disk"


_HEADER = 4096  # bytes that the header of an entry may take, at most


def entry_bytes(spec: MediaSpec) -> int:
    """The most that a clip of these settings takes on disk."""
    return math.prod(_shape(spec)) + 2 * round(spec.audio_seconds * SAMPLE_RATE) + _HEADER


def _shape(spec: MediaSpec) -> list[int]:
    return [spec.frames, 3, spec.frame_size, spec.frame_size]


def write_entry(path: Path, clip: Clip, root: Path) -> None:
    """Write a clip below the cache folder ``root``, whole or not at all.

    Raises:
        StorageError: the disk is full, or the folder may not be written.
    """
    from safetensors.numpy import save

    with storage_errors(path.parent, REMEDY):
        private_folder(root / "clips")
        if path.exists() and not path.is_file():  # a pipe or device: whoever put it there, it holds no clip
            path.unlink()
        # durable: without it a power cut leaves names with no bytes; 0.3 to 2 ms beside a decoding of 10 to 100
        with atomic_path(path, durable=True, private=True) as temporary:
            temporary.write_bytes(save({"frames": clip.frames, "waveform": clip.waveform}))


def is_entry(path: Path, spec: MediaSpec) -> bool:
    """Whether a file is a whole entry of these settings: its header fits its size, types and shapes are right."""
    from safetensors import SafetensorError, safe_open

    frames = _shape(spec)
    samples = round(spec.audio_seconds * SAMPLE_RATE)
    try:
        # first, as a worker wrote it that a clip may have taken over: nothing huge is mapped or copied
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):  # opening a pipe may wait for ever
            return False
        if facts.st_size > entry_bytes(spec):
            return False
        with safe_open(path, framework="np") as entry:
            if set(entry.keys()) != {"frames", "waveform"}:
                return False
            picture, sound = entry.get_slice("frames"), entry.get_slice("waveform")
            [heard] = sound.get_shape()
            kinds = (picture.get_dtype(), sound.get_dtype())
            return kinds == ("U8", "I16") and picture.get_shape() == frames and heard <= samples
    except (SafetensorError, OSError, ValueError):
        return False


def read_entry(path: Path, spec: MediaSpec) -> Clip | None:
    """The clip in a file; None if it is no whole entry of these settings."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not is_entry(path, spec):
        return None
    try:
        arrays = load_file(path)
    except (SafetensorError, OSError):
        return None
    return Clip(frames=arrays["frames"], waveform=arrays["waveform"])
