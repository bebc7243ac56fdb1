"""An original as it comes → footage to work with: capped picture size, constant frame rate, mono sound.

This is the only step that opens the user's files; it runs in the limited workers of
``coefvq.compute.workers``, one clip at a time, and its result says why a clip is of no use. The picture is
streamed, never held whole.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from coefvq.data.locations import locate, root_at
from coefvq.errors import MediaError
from coefvq.files import atomic_path

if TYPE_CHECKING:
    from coefvq.config import MediaLimits
    from coefvq.data.media.container import OpenClip

Picture = NDArray[np.uint8]
Item = TypeVar("Item")

_CRF = 18.0  # of the first of three encodings: nearly as the input
_ASPECT = 4.0  # a picture more than this many times longer than wide is squeezed
_LEAST_SECONDS = 0.5
_SILENCE = 0.01  # peak


@dataclass(frozen=True)
class Frames:
    """What the footage is brought to: short side in pixels, frames per second, seconds at most."""

    size: int
    fps: int
    seconds: float


@dataclass(frozen=True)
class Footage:
    """One original, prepared; ``reason`` is from ``records.REASONS``, and ``message`` says more if not ok."""

    video_id: str
    uri: str
    reason: str = "ok"
    message: str = ""
    frames: int = 0
    width: int = 0
    height: int = 0
    video_bytes: int = 0
    has_sound: bool = False

    @property
    def ok(self) -> bool:
        """Usable."""
        return self.reason == "ok"

    def to_json(self) -> dict[str, Any]:
        """As originals.json holds it."""
        return asdict(self)


#: what a worker answers
FOOTAGE = TypeAdapter(Footage)


def prepare(root: Path, work: Path, frames: Frames, limits: MediaLimits, item: tuple[str, str, str]) -> Footage:
    """Write the footage of ``item`` (video_id, uri, name of the file in ``work``)."""
    video_id, uri, name = item
    try:
        path = located(root, uri)
        with _decoding(path):
            return _prepared(path, work / name, frames, limits, Footage(video_id, uri))
    except MediaError as error:
        return Footage(video_id, uri, error.reason, str(error))


def located(root: Path, uri: str) -> Path:
    """The file ``uri`` names below ``root``.

    Raises:
        MediaError: it lies elsewhere, or there is no such file, or it is none.
    """
    return locate(uri, root_at(root)).file


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Whatever a file makes the decoder raise is the file's fault; memory and disk are not."""
    from av.error import FFmpegError

    try:
        yield
    except MemoryError:
        raise
    except (FFmpegError, ValueError, ArithmeticError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise MediaError("undecodable", f"{path}: cannot be decoded ({first}); re-encode it or delete it") from error


def failed(item: tuple[str, str, str], reason: str) -> Footage:
    """The result of an original whose worker was stopped."""
    video_id, uri, _ = item
    return Footage(video_id, uri, reason, f"{uri}: decoding ended by {reason}; re-encode it or delete the row")


def _prepared(path: Path, target: Path, frames: Frames, limits: MediaLimits, start: Footage) -> Footage:
    # lazy: FFmpeg is needed only where clips are made
    from coefvq.data.media.decode import decode_audio, stream_info
    from coefvq.simulation.reupload.encode import write_clip

    stream_info(path, limits)  # refuses what the header shows to be of no use
    pictures = _Counted(_pictures(path, frames, limits))
    sound = decode_audio(path, frames.seconds, limits).astype(np.float32) / np.float32(32_768)
    with atomic_path(target) as temporary:
        video_bytes = write_clip(temporary, pictures, frames.fps, sound, _CRF)
        if pictures.count < _LEAST_SECONDS * frames.fps:
            raise MediaError("unsupported", f"{path}: shorter than {_LEAST_SECONDS} s; delete the row")
    height, width = pictures.shape
    heard = bool(len(sound) and np.abs(sound).max() > _SILENCE)
    return Footage(start.video_id, start.uri, "ok", "", pictures.count, width, height, video_bytes, heard)


class _Counted:
    """Pass pictures on and remember how many there were and how large."""

    def __init__(self, pictures: Iterable[Picture]) -> None:
        self._pictures = pictures
        self.count = 0
        self.shape = (0, 0)

    def __iter__(self) -> Iterator[Picture]:
        for picture in self._pictures:
            self.count += 1
            self.shape = picture.shape[:2]
            yield picture


def _pictures(path: Path, wanted: Frames, limits: MediaLimits) -> Iterator[Picture]:
    """Upright RGB pictures ``uint8 [H,W,3]`` of one size at a constant rate, both sides even."""
    from coefvq.data.media.container import opened
    from coefvq.data.media.pictures import Scaler

    size, last, picture = None, None, None
    with opened(path, limits) as clip:
        scaler = Scaler(clip.colours)
        for aspect, frame in _at_constant_rate(_timed(clip), wanted):
            size = size or _size(frame.width * aspect, frame.height, wanted.size)
            if frame is not last or picture is None:
                picture, last = np.ascontiguousarray(scaler.picture(frame, *size)), frame
            yield picture


def _timed(clip: OpenClip) -> Iterator[tuple[float, tuple[float, Any]]]:
    """Seconds since the first frame, and the frame with the aspect of its pixels."""
    stream = clip.video
    rate = float(stream.average_rate or 25)
    aspect = float(stream.sample_aspect_ratio or 1)
    first = None
    for number, frame in enumerate(clip.container.decode(stream)):
        _check_frame(clip.path, number, frame.width * frame.height, clip.limits)
        time = number / rate if frame.time is None else float(frame.time)
        first = time if first is None else first
        yield time - first, (aspect, frame)


def _check_frame(path: Path, number: int, pixels: int, limits: MediaLimits) -> None:
    if number >= limits.frames:
        raise MediaError("too_many_frames", f"{path}: over {limits.frames} frames; cut it or raise the limit")
    # the size may change in the middle of a stream
    if pixels > limits.megapixels * 1_000_000:
        raise MediaError("too_many_pixels", f"{path}: frames over {limits.megapixels:g} megapixels; scale it down")


def _at_constant_rate(timed: Iterable[tuple[float, Item]], wanted: Frames) -> Iterator[Item]:
    """Picture k is the last one shown by k / fps, up to the end of the last one, or ``seconds``."""
    most = round(wanted.seconds * wanted.fps)
    held: list[Item] = []
    done, shown, lasts = 0, 0.0, 0.0
    for time, item in timed:
        while held and done < most and done / wanted.fps < time - 1e-6:
            yield held[0]
            done += 1
        if done >= most:
            return
        held, shown, lasts = [item], time, time - shown
    # the container does not say how long the last picture stands: as long as the one before it
    while held and done < most and (done == 0 or done / wanted.fps < shown + lasts - 1e-6):
        yield held[0]
        done += 1


def _size(width: float, height: float, short_side: int) -> tuple[int, int]:
    """(width, height): the short side at most ``short_side``, the aspect kept up to ``_ASPECT``, both even."""
    aspect = min(max(width / height, 1 / _ASPECT), _ASPECT)
    short = min(width, height, short_side)
    sides = (short * max(aspect, 1.0), short / min(aspect, 1.0))
    return max(round(sides[0] / 2) * 2, 16), max(round(sides[1] / 2) * 2, 16)
