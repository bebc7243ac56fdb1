"""Small valid clips in the accepted containers, encoded on the spot; what the mutations start from."""

from __future__ import annotations

import io
from fractions import Fraction
from functools import cache

import av
import numpy as np

WIDTH, HEIGHT, FPS, RATE = 64, 48, 12, 16_000
#: name → (container, suffix, video codec, audio codec)
FORMS = {
    "mp4": ("mp4", ".mp4", "libx264", "aac"),
    "mov": ("mov", ".mov", "mpeg4", "alac"),
    "mkv": ("matroska", ".mkv", "libx264", "flac"),
    "webm": ("webm", ".webm", "libvpx-vp9", "libopus"),
    "ts": ("mpegts", ".ts", "mpeg2video", "mp2"),
    "avi": ("avi", ".avi", "mpeg4", "libmp3lame"),
    "flv": ("flv", ".flv", "flv", "libmp3lame"),
    "fragmented": ("mp4", ".mp4", "libx264", "aac"),
    "streamed": ("matroska", ".mkv", "libx264", "aac"),
}
_OPTIONS = {"fragmented": {"movflags": "frag_keyframe+empty_moov"}, "streamed": {"live": "1"}}


def encode(
    container: str,
    video: str,
    audio: str | None,
    *,
    frames: int = 12,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    sounds: int = 1,
    options: dict[str, str] | None = None,
) -> bytes:
    """A clip of ``frames`` frames at 12 per second, with ``sounds`` audio streams of the same length."""
    target = io.BytesIO()
    with av.open(target, "w", format=container, options=options or {}) as out:
        picture = out.add_stream(video, rate=FPS, options={"preset": "ultrafast"} if video == "libx264" else {})
        picture.width, picture.height, picture.pix_fmt = *size, "yuv420p"
        tracks = [
            out.add_stream(audio, rate=44_100 if "mp3" in str(audio) else RATE) for _ in range(sounds if audio else 0)
        ]
        for track in tracks:
            track.layout = "mono"
        for index in range(frames):
            out.mux(picture.encode(_frame(index, *size)))
        out.mux(picture.encode())
        for track in tracks:
            for chunk in _sound(track, frames / FPS):
                out.mux(track.encode(chunk))
            out.mux(track.encode())
    return target.getvalue()


def sound_only() -> bytes:
    """An MP4 without a picture."""
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as out:
        track = out.add_stream("aac", rate=RATE)
        track.layout = "mono"
        for chunk in _sound(track, 1.0):
            out.mux(track.encode(chunk))
        out.mux(track.encode())
    return target.getvalue()


@cache
def seed(name: str) -> bytes:
    """The valid clip of one of ``FORMS``."""
    container, _, video, audio = FORMS[name]
    return encode(container, video, audio, options=_OPTIONS.get(name))


def repeated(
    container: str,
    video: str,
    audio: str | None,
    count: int,
    *,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    rate: int = 1000,
    timed: bool = True,
) -> bytes:
    """One packet of picture, and one of silence, written ``count`` times: little to store, much to decode.

    ``rate`` packets make a second of what the container claims; not ``timed``: all claim the same time.
    """
    target = io.BytesIO()
    with av.open(target, "w", format=container) as out:
        picture = out.add_stream(video, rate=rate if container == "matroska" else FPS)
        picture.width, picture.height, picture.pix_fmt = *size, "yuv420p"
        black = av.VideoFrame.from_ndarray(np.zeros((size[1] * 3 // 2, size[0]), np.uint8), "yuv420p")
        streams = [(picture, [*picture.encode(black), *picture.encode()][0])]
        if audio:
            sound = out.add_stream(audio, rate=48_000)
            sound.layout = "mono"
            streams.append(
                (sound, [*(p for f in _sound(sound, 1.0, silent=True) for p in sound.encode(f)), *sound.encode()][0])
            )
        for index in range(count):
            for stream, first in streams:
                packet = av.Packet(bytes(first))
                packet.stream, packet.time_base = stream, Fraction(1, rate)
                packet.pts = packet.dts = index if timed else index // 1000
                packet.is_keyframe = True
                out.mux(packet)
    return target.getvalue()


def _frame(index: int, width: int, height: int) -> av.VideoFrame:
    y, x = np.mgrid[0:height, 0:width]
    array = np.stack([(x * 3 + index * 9) % 256, (y * 5) % 256, (x + y + index * 17) % 256], axis=2).astype(np.uint8)
    return av.VideoFrame.from_ndarray(array, "rgb24").reformat(format="yuv420p")


def _sound(track: av.AudioStream, seconds: float, *, silent: bool = False) -> list[av.AudioFrame]:
    rate = track.codec_context.sample_rate
    wave = (np.sin(np.arange(round(rate * seconds)) * 440 * 2 * np.pi / rate) * (0 if silent else 9000)).astype(
        np.int16
    )
    resampler = av.AudioResampler(
        format=track.codec_context.format, layout="mono", rate=rate, frame_size=track.codec_context.frame_size or 1024
    )
    frame = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    return [*resampler.resample(frame), *resampler.resample(None)]
