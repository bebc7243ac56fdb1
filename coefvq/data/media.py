"""Decode frames and sound of a clip with PyAV; no system ffmpeg is needed.

``container`` opens files and keeps to the limits, ``frames`` and ``bitstream`` find the cheapest exact way
to the frames asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coefvq.config import MediaLimits
from coefvq.data.bitstream import describe
from coefvq.data.container import check_pixels, duration, opened, packets, video_decoder
from coefvq.data.frames import Picture, decode_planned, plan, uniform_indices
from coefvq.errors import MediaError

SAMPLE_RATE = 16_000

#: the same values as in params.yaml, for callers who have no params
DEFAULT_LIMITS = MediaLimits(
    megabytes=512.0,
    seconds=600.0,
    megapixels=36.0,
    streams=16,
    frames=100_000,
    worker_mib=3072,
    cpu_seconds=60,
    wall_seconds=120.0,
)


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


def stream_info(path: Path, limits: MediaLimits = DEFAULT_LIMITS) -> StreamInfo:
    """Container facts of a clip.

    Raises:
        MediaError: not a readable video, or above a limit.
    """
    with opened(path, limits) as container:
        stream = container.streams.video[0]
        return StreamInfo(
            duration_s=round(duration(container), 6),
            fps=round(float(stream.average_rate or stream.base_rate or 0), 6),
            width=int(stream.width),
            height=int(stream.height),
            has_audio=bool(container.streams.audio),
        )


def decode_clip(
    path: Path, frames: int, frame_size: int, audio_seconds: float, limits: MediaLimits = DEFAULT_LIMITS
) -> Clip:
    """Decode ``frames`` uniformly spaced frames at ``frame_size``² and up to ``audio_seconds`` of sound.

    Raises:
        MediaError: the file is missing, empty, not decodable or above a limit.
    """
    return Clip(decode_frames(path, frames, frame_size, limits), decode_audio(path, audio_seconds, limits))


def decode_frames(path: Path, frames: int, size: int, limits: MediaLimits = DEFAULT_LIMITS) -> npt.NDArray[np.uint8]:
    """Frames at indices round(linspace(0, n-1, frames)) of the presentation order, uint8 [F, 3, S, S].

    A clip with fewer frames than asked for repeats its nearest ones. Scaling is bicubic, aspect not
    kept (as SigLIP's processor does).

    Raises:
        MediaError: as ``decode_clip``.
    """
    found = planned_frames(path, frames, size, limits)
    return full_decode_frames(path, frames, size, limits) if found is None else found


def planned_frames(
    path: Path, frames: int, size: int, limits: MediaLimits = DEFAULT_LIMITS
) -> npt.NDArray[np.uint8] | None:
    """As ``decode_frames``, but None where the plan does not hold and a full decode is needed."""
    import av

    with opened(path, limits) as container:
        codec = video_decoder(container, limits)
        stored = list(packets(container, container.streams.video[0], path, limits))
        described = describe(codec.codec.canonical_name, codec.extradata, stored)
        chosen = None if described is None else plan(described, frames)
        if chosen is None:
            return None
        try:
            found = decode_planned(codec, stored, chosen.steps, frozenset(chosen.wanted), _scaler(size, path, limits))
        except av.error.FFmpegError:
            return None  # the full decode tells whether the clip is broken
    return None if found is None else np.stack([found[pts] for pts in chosen.wanted])


def full_decode_frames(
    path: Path, frames: int, size: int, limits: MediaLimits = DEFAULT_LIMITS
) -> npt.NDArray[np.uint8]:
    """As ``decode_frames``, decoding every frame."""
    with opened(path, limits) as container:
        guess = container.streams.video[0].frames
    times, found = _decode_all(path, set(uniform_indices(max(guess, 1), frames)), size, limits)
    if not times:
        raise MediaError("undecodable", f"{path}: no frame decodes; re-encode it or delete the row")
    order = _presentation_order(times)
    picked = [order[i] for i in uniform_indices(len(order), frames)]
    if not found.keys() >= set(picked):  # the header does not know how many frames there are
        found |= _decode_all(path, set(picked) - found.keys(), size, limits)[1]
    return np.stack([found[i] for i in picked])


def _presentation_order(times: list[int | None]) -> list[int]:
    known = [time for time in times if time is not None]
    if len(set(known)) < len(times):
        # no usable times: the order in which the decoder hands frames out
        return list(range(len(times)))
    return sorted(range(len(times)), key=known.__getitem__)


def _decode_all(
    path: Path, wanted: set[int], size: int, limits: MediaLimits
) -> tuple[list[int | None], dict[int, Picture]]:
    """Pts of every frame the decoder hands out, and pictures of those whose number is wanted."""
    times: list[int | None] = []
    found: dict[int, Picture] = {}
    scale = _scaler(size, path, limits)
    with opened(path, limits) as container:
        codec = video_decoder(container, limits)
        for packet in chain(packets(container, container.streams.video[0], path, limits), [None]):
            for frame in codec.decode(packet):
                # the resolution may change in the middle of a stream
                check_pixels(frame.width, frame.height, path, limits)
                if len(times) in wanted:
                    found[len(times)] = scale(frame)
                times.append(frame.pts)
    return times, found


def _scaler(size: int, path: Path, limits: MediaLimits) -> Callable[[Any], Picture]:
    from av.video.reformatter import VideoReformatter

    # one for all frames of a clip: it keeps the scaler's tables
    return partial(_to_rgb, VideoReformatter(), size=size, path=path, limits=limits)


def _to_rgb(reformatter: Any, frame: Any, size: int, path: Path, limits: MediaLimits) -> Picture:
    check_pixels(frame.width, frame.height, path, limits)
    scaled = reformatter.reformat(frame, size, size, "rgb24", interpolation="BICUBIC", threads=1)
    # phones store portrait clips rotated; the square makes a quarter turn free of scaling questions
    turned = np.rot90(scaled.to_ndarray(), k=(round(frame.rotation / 90)) % 4)
    return np.ascontiguousarray(turned.transpose(2, 0, 1))


def decode_audio(path: Path, seconds: float, limits: MediaLimits = DEFAULT_LIMITS) -> npt.NDArray[np.int16]:
    """First ``seconds`` of the first audio stream as int16 [N] mono 16 kHz; empty without audio.

    Raises:
        MediaError: as ``decode_clip``.
    """
    import av

    limit = round(seconds * SAMPLE_RATE)
    chunks: list[npt.NDArray[np.int16]] = []
    total = 0
    with opened(path, limits) as container:
        if not container.streams.audio:
            return np.zeros(0, np.int16)
        resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        for packet in packets(container, container.streams.audio[0], path, limits):
            for frame in packet.decode():
                for piece in resampler.resample(frame):
                    chunks.append(piece.to_ndarray().reshape(-1))
                    total += chunks[-1].size
            if total >= limit:
                break
        else:
            for frame in container.streams.audio[0].codec_context.decode(None):
                chunks.extend(piece.to_ndarray().reshape(-1) for piece in resampler.resample(frame))
        chunks.extend(piece.to_ndarray().reshape(-1) for piece in resampler.resample(None))
    return np.concatenate(chunks)[:limit] if chunks else np.zeros(0, np.int16)
