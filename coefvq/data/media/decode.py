"""Decode frames and sound of a clip with PyAV; no system ffmpeg is needed.

``container`` opens files and keeps to the limits, ``streams`` chooses picture and sound, ``timeline`` says when
each frame is shown, ``frames`` and ``bitstream`` find the cheapest exact way to the frames asked for, ``pictures``
and ``colour`` make them what a person sees, ``sound`` reads the sound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from coefvq.config import MediaLimits
from coefvq.data.media.bitstream import describe, packet_info
from coefvq.data.media.container import OpenClip, check_pixels, opened, video_packets
from coefvq.data.media.frames import decode_planned, plan
from coefvq.data.media.pictures import Picture, Scaler
from coefvq.data.media.sound import SAMPLE_RATE as SAMPLE_RATE
from coefvq.data.media.sound import read_sound
from coefvq.data.media.streams import decode_or_none
from coefvq.data.media.timeline import PacketInfo, Timeline, timeline, uniform_in_time
from coefvq.errors import MediaError

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
    """Facts of the streams that count; seconds, frames per second, pixels as stored.

    ``duration_s`` is measured from the packets. ``fps`` is the container's, or frames by time where that differs
    by more than a twentieth. ``has_audio``: a sound stream exists, readable or not. ``hdr``: "pq", "hlg" or None.
    """

    duration_s: float
    fps: float
    width: int
    height: int
    has_audio: bool
    hdr: Literal["pq", "hlg"] | None = None


def stream_info(path: Path, limits: MediaLimits = DEFAULT_LIMITS) -> StreamInfo:
    """Facts of a clip, from its headers and packets.

    Raises:
        MediaError: not a readable video, broken off, or above a limit.
    """
    with opened(path, limits) as clip:
        stream = clip.video
        shown = timeline([packet_info(packet) for packet in video_packets(clip)], clip.longest_step(stream))
        seconds = float(shown.end * stream.time_base) if stream.time_base else 0.0
        stated, measured = float(stream.average_rate or stream.base_rate or 0), len(shown.order) / (seconds or 1.0)
        return StreamInfo(
            duration_s=round(seconds, 6),
            fps=round(stated if abs(stated - measured) <= measured / 20 else measured, 6),
            width=int(stream.width),
            height=int(stream.height),
            has_audio=bool(clip.container.streams.audio),
            hdr=clip.colours.hdr or (_hdr_of_a_frame(path, limits) if _is_deep(clip) else None),
        )


def _is_deep(clip: OpenClip) -> bool:
    form = clip.video.codec_context.format
    return form is not None and form.components[0].bits > 8


def _hdr_of_a_frame(path: Path, limits: MediaLimits) -> Literal["pq", "hlg"] | None:
    """What the first frame says; broadcasts tell HLG in a message (SEI) that only a decoder reads."""
    with opened(path, limits) as clip:
        codec = clip.video.codec_context
        for packet in video_packets(clip):
            for frame in decode_or_none(codec, packet) or []:
                return clip.colours.of(frame).hdr
    return None


def decode_clip(
    path: Path, frames: int, frame_size: int, audio_seconds: float, limits: MediaLimits = DEFAULT_LIMITS
) -> Clip:
    """Decode ``frames`` uniformly spaced frames at ``frame_size``² and up to ``audio_seconds`` of sound.

    Raises:
        MediaError: the file is missing, empty, broken off, not decodable or above a limit.
    """
    return Clip(decode_frames(path, frames, frame_size, limits), decode_audio(path, audio_seconds, limits))


def decode_audio(path: Path, seconds: float, limits: MediaLimits = DEFAULT_LIMITS) -> npt.NDArray[np.int16]:
    """First ``seconds`` of the sound that a player would choose, int16 [N] mono 16 kHz; see ``sound.read_sound``.

    Raises:
        MediaError: as ``decode_clip``; not for sound that cannot be read, which is [0].
    """
    return read_sound(path, seconds, limits)


def decode_frames(path: Path, frames: int, size: int, limits: MediaLimits = DEFAULT_LIMITS) -> npt.NDArray[np.uint8]:
    """Frames spread evenly in time, uint8 [F, 3, S, S] RGB, as a player shows them (upright, SDR).

    At a constant rate these are the indices round(linspace(0, n-1, frames)) of the presentation order; see
    ``timeline.uniform_in_time`` for the others. A clip with fewer frames than asked for repeats its nearest
    ones. Scaling is bicubic, aspect not kept (as SigLIP's processor does).

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

    with opened(path, limits) as clip:
        codec = clip.video.codec_context
        stored = list(video_packets(clip))
        described = describe(codec.codec.canonical_name, codec.extradata, stored)
        chosen = None if described is None else plan(described, frames, clip.longest_step(clip.video))
        if chosen is None:
            return None
        try:
            found = decode_planned(codec, stored, chosen.steps, frozenset(chosen.wanted), _scaler(clip, size))
        except av.error.FFmpegError:
            return None  # the full decode tells what is broken
    return None if found is None else np.stack([found[pts] for pts in chosen.wanted])


def full_decode_frames(
    path: Path, frames: int, size: int, limits: MediaLimits = DEFAULT_LIMITS
) -> npt.NDArray[np.uint8]:
    """As ``decode_frames``, decoding every frame; packets that do not decode are left out, as players do."""
    shown, found = _decode_all(path, None, frames, size, limits)
    picked = [shown.order[i] for i in uniform_in_time(shown.starts, shown.end, frames)]
    if not found.keys() >= set(picked):  # packets and frames do not pair up
        found = _decode_all(path, frozenset(picked), frames, size, limits)[1]
    return np.stack([found[i] for i in picked])


def _decode_all(
    path: Path, wanted: frozenset[int] | None, frames: int, size: int, limits: MediaLimits
) -> tuple[Timeline, dict[int, Picture]]:
    """When each frame is shown, and pictures of those whose number (as the decoder hands them out) is wanted.

    Where nothing is ``wanted`` in particular, the packets say which frames are most likely to be.
    """
    with opened(path, limits) as clip:
        codec, scale, longest = clip.video.codec_context, _scaler(clip, size), clip.longest_step(clip.video)
        stored = list(video_packets(clip))
        expected = timeline([packet_info(packet) for packet in stored], longest)
        if wanted is None:
            wanted = frozenset(uniform_in_time(expected.starts, expected.end, frames))
        times: list[PacketInfo] = []
        found: dict[int, Picture] = {}
        lost = 0
        for packet in chain(stored, [None]):
            decoded = decode_or_none(codec, packet)
            lost += decoded is None
            for frame in decoded or []:
                # the resolution may change in the middle of a stream
                check_pixels(frame.width, frame.height, path, limits)
                if len(times) in wanted:
                    found[len(times)] = scale(frame)
                # frames come in the order of presentation: where the clock breaks, their times are a clock of parts
                clock = frame.pts if expected.parts > 1 else None
                times.append(PacketInfo(frame.pts, False, dts=clock, duration=frame.duration or 0))
    if lost >= len(times):
        raise MediaError("undecodable", f"{path}: hardly a frame decodes; re-encode it or delete the row")
    return timeline(times, longest), found


def _scaler(clip: OpenClip, size: int) -> Callable[[Any], Picture]:
    scaler = Scaler(clip.colours)

    def scale(frame: Any) -> Picture:
        check_pixels(frame.width, frame.height, clip.path, clip.limits)
        return np.ascontiguousarray(scaler.picture(frame, size, size).transpose(2, 0, 1))

    return scale
