"""Clips with several streams, odd sound and odd colours, made with PyAV; no helper of the library is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition

RED, BLUE, YELLOW = (255, 0, 0), (0, 0, 255), (255, 255, 0)


@dataclass(frozen=True)
class Track:
    """A stream of one colour or one tone; ``times`` in ms, for pictures only."""

    codec: str
    colour: tuple[int, int, int] = RED
    times: Sequence[int] = range(0, 2000, 100)
    hertz: float = 0.0
    rate: int = 16_000
    layout: str = "mono"
    seconds: float = 2.0
    disposition: Disposition = Disposition.default

    @property
    def is_sound(self) -> bool:
        return self.rate > 0 and self.codec in ("aac", "wavpack", "mp2", "flac", "pcm_s16le")


def write_tracks(path: Path, *tracks: Track) -> Path:
    """Write the streams in the order given, packets interleaved by time as muxers do it."""
    with av.open(str(path), "w") as container:
        made = [(_sound if track.is_sound else _pictures)(container, track) for track in tracks]
        for packet in [packet for packets in made for packet in packets]:
            container.mux(packet)
    return path


def _pictures(container: av.container.OutputContainer, track: Track) -> list[av.Packet]:
    options = {"threads": "1", "g": "10", "bf": "0"} if track.codec == "libx264" else {}
    stream = container.add_stream(track.codec, rate=10, options=options)
    stream.width, stream.height = 64, 48
    stream.pix_fmt = {"mjpeg": "yuvj420p", "ffv1": "yuv420p", "png": "rgb24"}.get(track.codec, "yuv420p")
    stream.codec_context.time_base = Fraction(1, 1000)
    stream.disposition = track.disposition
    packets = []
    for time in track.times:
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), track.colour, np.uint8), format="rgb24")
        frame = frame.reformat(format=stream.pix_fmt)
        frame.pts, frame.time_base = time, Fraction(1, 1000)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def _sound(container: av.container.OutputContainer, track: Track) -> list[av.Packet]:
    stream = container.add_stream(track.codec, rate=track.rate, layout=track.layout)
    stream.disposition = track.disposition
    time = np.arange(round(track.seconds * track.rate)) / track.rate
    wave = (8_000 * np.sin(2 * np.pi * track.hertz * time)).astype(np.int16)
    channels = 1 if track.layout == "mono" else 2
    frame = av.AudioFrame.from_ndarray(np.repeat(wave, channels).reshape(1, -1), format="s16", layout=track.layout)
    frame.sample_rate = track.rate
    return [*stream.encode(frame), *stream.encode(None)]


def loudness(wave: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(wave.astype(float) ** 2))) if wave.size else 0.0


def tone(wave: np.ndarray) -> float:
    """The strongest frequency in Hz of sound at 16 kHz."""
    return float(np.abs(np.fft.rfft(wave)).argmax() * 16_000 / wave.size)
