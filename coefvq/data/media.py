"""Decode a clip into frames and sound with PyAV; no system ffmpeg is needed.

Frames are picked uniformly over the stream's presentation order and are exactly those a full decode
would give. Only picked frames are scaled.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from coefvq.errors import MediaError

if TYPE_CHECKING:
    from av.container import InputContainer

SAMPLE_RATE = 16_000
# container formats a short-video platform receives; "file" is the only protocol, so playlists that
# point at other files or hosts are refused by the demuxer list and the protocol list alike
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv"


@dataclass(frozen=True)
class Clip:
    """``frames`` uint8 [F, 3, S, S] RGB; ``waveform`` int16 [N] mono 16 kHz, empty if there is no sound."""

    frames: npt.NDArray[np.uint8]
    waveform: npt.NDArray[np.int16]


@dataclass(frozen=True)
class StreamInfo:
    """What the container says of itself; seconds, frames per second, pixels."""

    duration_s: float
    fps: float
    width: int
    height: int
    has_audio: bool


@contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    import av

    if not path.is_file():
        raise MediaError("missing", f"{path}: no such file; correct the path or delete the row")
    if path.stat().st_size == 0:
        raise MediaError("empty", f"{path}: empty file; copy the clip again or delete the row")
    options = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
    try:
        with av.open(str(path), options=options) as container:
            if not container.streams.video:
                raise MediaError("no_video", f"{path}: holds no video stream; delete the row")
            yield container
    except (av.error.FFmpegError, UnicodeDecodeError, ValueError, OSError) as error:
        first = str(error).splitlines()[0].replace(f": {str(path)!r}", "")
        raise MediaError(
            "undecodable", f"{path}: cannot be decoded ({first}); re-encode it or delete the row"
        ) from error


def stream_info(path: Path) -> StreamInfo:
    """Container facts of a clip.

    Raises:
        MediaError: not a readable video.
    """
    with _opened(path) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.base_rate or 0
        if stream.duration is not None and stream.time_base is not None:
            duration = float(stream.duration * stream.time_base)
        else:
            duration = (container.duration or 0) / 1_000_000
        return StreamInfo(
            duration_s=round(duration, 6),
            fps=round(float(rate), 6),
            width=int(stream.width),
            height=int(stream.height),
            has_audio=bool(container.streams.audio),
        )


def decode_clip(path: Path, frames: int, frame_size: int, audio_seconds: float) -> Clip:
    """Decode ``frames`` uniformly spaced frames at ``frame_size``² and up to ``audio_seconds`` of sound.

    Raises:
        MediaError: the file is missing, empty, has no video stream or does not decode.
    """
    return Clip(decode_frames(path, frames, frame_size), decode_audio(path, audio_seconds))


def decode_frames(path: Path, frames: int, size: int) -> npt.NDArray[np.uint8]:
    """Frames at indices round(linspace(0, n-1, frames)) of the presentation order, uint8 [F, 3, S, S].

    A clip with fewer frames than asked for repeats its nearest ones. Scaling is bicubic, aspect not
    kept (as SigLIP's processor does).
    """
    with _opened(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        packets = [packet for packet in container.demux(stream) if packet.size]
        wanted = _wanted_pts([packet.pts for packet in packets if not packet.is_discard], frames)
        found = _scaled(stream.codec_context, packets, set(wanted or []), size)
    if wanted is None or not set(wanted) <= found.keys():
        # packets without pts, or frames that never came out: count what really decodes instead
        return _decode_then_pick(path, frames, size)
    return np.stack([found[pts] for pts in wanted])


def _wanted_pts(pts: list[int | None], frames: int) -> list[int] | None:
    known = sorted(value for value in pts if value is not None)
    if not known or len(known) != len(pts):
        return None
    return [known[i] for i in _uniform(len(known), frames)]


def _uniform(count: int, frames: int) -> list[int]:
    return [int(i) for i in np.linspace(0, count - 1, frames).round()]


def _scaled(codec: Any, packets: list[Any], wanted: set[int], size: int) -> dict[int, npt.NDArray[np.uint8]]:
    found: dict[int, npt.NDArray[np.uint8]] = {}
    for packet in [*packets, None]:  # None flushes the decoder
        for frame in codec.decode(packet):
            if frame.pts in wanted and frame.pts not in found:
                found[frame.pts] = _to_rgb(frame, size)
    return found


def _decode_then_pick(path: Path, frames: int, size: int) -> npt.NDArray[np.uint8]:
    with _opened(path) as container:
        count = sum(1 for _ in container.decode(video=0))
    if count == 0:
        raise MediaError("undecodable", f"{path}: no frame decodes; re-encode it or delete the row")
    indices = _uniform(count, frames)
    found: dict[int, npt.NDArray[np.uint8]] = {}
    with _opened(path) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index in indices:
                found[index] = _to_rgb(frame, size)
    return np.stack([found[index] for index in indices])


def _to_rgb(frame: Any, size: int) -> npt.NDArray[np.uint8]:
    array = frame.reformat(width=size, height=size, format="rgb24", interpolation="BICUBIC").to_ndarray()
    # phones store portrait clips rotated; the square makes a quarter turn free of scaling questions
    turned = np.rot90(array, k=(round(frame.rotation / 90)) % 4)
    return np.ascontiguousarray(turned.transpose(2, 0, 1))


def decode_audio(path: Path, seconds: float) -> npt.NDArray[np.int16]:
    """First ``seconds`` of the first audio stream as int16 [N] mono 16 kHz; empty without audio."""
    import av

    limit = round(seconds * SAMPLE_RATE)
    chunks: list[npt.NDArray[np.int16]] = []
    total = 0
    with _opened(path) as container:
        if not container.streams.audio:
            return np.zeros(0, np.int16)
        resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        for frame in container.decode(audio=0):
            for piece in resampler.resample(frame):
                chunks.append(piece.to_ndarray().reshape(-1))
                total += chunks[-1].size
            if total >= limit:
                break
        chunks.extend(piece.to_ndarray().reshape(-1) for piece in resampler.resample(None))
    return np.concatenate(chunks)[:limit] if chunks else np.zeros(0, np.int16)
