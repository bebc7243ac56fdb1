"""Clips of our own in and out: frame by frame, one encoder, the same bytes each time.

Importing this module loads FFmpeg; import it where clips are made.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import PictureType
from numpy.typing import NDArray

from coefvq.files import atomic_path

SAMPLE_RATE = 16_000
AUDIO_BITS = 32_000  # per second, of AAC mono
_AAC_FRAME = 1024  # samples
_CRF_BOUNDS = (8.0, 51.0)
CRF_PER_HALVING = 6.0  # of the bits, roughly
_TRIES = 6
_TOLERANCE = 0.03

Frame = NDArray[np.uint8]
Samples = NDArray[np.float32]


def write_clip(path: Path, frames: Iterable[Frame | av.VideoFrame], fps: int, samples: Samples, crf: float) -> int:
    """Write H.264 + AAC mono and return the bytes of the video stream.

    ``frames``: RGB ``uint8 [H,W,3]`` or decoded, H and W even; ``samples``: ``float32 [S]`` in [-1, 1], cut or
    filled up with silence to the length of the picture, so that every clip has sound.
    One thread and a bit-exact container: equal input gives equal bytes.
    """
    options = {"preset": "ultrafast", "crf": f"{crf:.3f}", "threads": "1", "g": str(2 * fps)}
    video_bytes, number = 0, -1
    with av.open(str(path.absolute()), "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        video = container.add_stream("libx264", rate=fps, options=options)
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono", options={"b": str(AUDIO_BITS)})
        for stream in (video, audio):
            stream.codec_context.thread_count = 1
        for number, picture in enumerate(frames):
            frame = picture if isinstance(picture, av.VideoFrame) else av.VideoFrame.from_ndarray(picture, "rgb24")
            if number == 0:
                video.height, video.width = frame.height, frame.width
            # a decoded frame brings the time and type it had in its own file
            frame.pts, frame.time_base, frame.pict_type = number, Fraction(1, fps), PictureType.NONE
            for packet in video.encode(frame):
                video_bytes += packet.size
                container.mux(packet)
        for packet in video.encode():
            video_bytes += packet.size
            container.mux(packet)
        for frame in _audio_frames(fitted(samples, (number + 1) / fps)):
            container.mux(audio.encode(frame))
        container.mux(audio.encode())
    return video_bytes


def write_to_size(source: Path, target: Path, fps: int, wanted_bytes: int, crf: float) -> None:
    """Encode ``source`` once more at the quality that gives a file of ``wanted_bytes``, within 3 %.

    ``crf`` is where to begin. A fixed quality would give edits away by the bits they cost: bars are cheap,
    banners are not. Where no quality reaches the size, the nearest is taken. Written atomically.
    """
    samples = read_sound(source)
    tried: dict[float, float] = {}
    with atomic_path(target) as temporary:
        for _ in range(_TRIES):
            video = write_clip(temporary, _decoded(source), fps, samples, crf)
            size = temporary.stat().st_size
            if abs(size - wanted_bytes) < _TOLERANCE * wanted_bytes or crf in tried:
                break
            # sound and container cost the same at any quality
            tried[crf] = math.log2(video / max(wanted_bytes - (size - video), 1))
            crf = _next_crf(tried)


def _next_crf(tried: Mapping[float, float]) -> float:
    """Secant step on log2(bits too many) over CRF, from the two tries that came nearest."""
    (crf, excess), *others = sorted(tried.items(), key=lambda item: abs(item[1]))
    slope = -1.0 / CRF_PER_HALVING
    if others:
        slope = min((excess - others[0][1]) / (crf - others[0][0]), -0.05)
    low, high = _CRF_BOUNDS
    return round(min(max(crf - excess / slope, low), high), 3)


def read_frames(path: Path) -> Iterator[Frame]:
    """All frames of a clip of our own, RGB ``uint8 [H,W,3]``."""
    for frame in _decoded(path):
        yield frame.to_ndarray(format="rgb24")


def _decoded(path: Path) -> Iterator[av.VideoFrame]:
    with av.open(str(path.absolute())) as container:
        container.streams.video[0].codec_context.thread_count = 1
        yield from container.decode(video=0)


def read_sound(path: Path) -> Samples:
    """The sound of a clip of our own, ``float32 [S]`` at 16 kHz."""
    with av.open(str(path.absolute())) as container:
        parts = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    return np.concatenate(parts).astype(np.float32) if parts else np.zeros(0, np.float32)


def fitted(samples: Samples, seconds: float) -> Samples:
    """Cut, or filled up with silence, to ``seconds``."""
    wanted = round(seconds * SAMPLE_RATE)
    return np.pad(samples[:wanted], (0, max(wanted - len(samples), 0)))


def retimed(samples: Samples, tempo: float, pitch: float) -> Samples:
    """Play ``tempo`` times faster and ``pitch`` times higher, each without the other (FFmpeg's atempo)."""
    if not len(samples) or (tempo == 1.0 and pitch == 1.0):
        return samples
    graph = av.filter.Graph()
    chain = [
        graph.add_abuffer(sample_rate=SAMPLE_RATE, format="fltp", layout="mono"),
        graph.add("asetrate", str(round(SAMPLE_RATE * pitch))),
        graph.add("aresample", str(SAMPLE_RATE)),
        graph.add("atempo", f"{tempo / pitch:.6f}"),
        graph.add("aformat", "sample_fmts=fltp:sample_rates=16000:channel_layouts=mono"),
        graph.add("abuffersink"),
    ]
    for before, after in pairwise(chain):
        before.link_to(after)
    graph.configure()
    for frame in _audio_frames(samples):
        chain[0].push(frame)
    chain[0].push(None)
    return _drained(chain[-1])


def _drained(sink: Any) -> Samples:
    parts: list[Samples] = []
    while True:
        try:
            parts.append(sink.pull().to_ndarray().reshape(-1).astype(np.float32))
        except (av.error.EOFError, av.error.BlockingIOError):
            return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _audio_frames(samples: Samples) -> Iterator[av.AudioFrame]:
    for start in range(0, len(samples), _AAC_FRAME):
        block = np.ascontiguousarray(samples[None, start : start + _AAC_FRAME])
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        frame.pts = start
        yield frame
