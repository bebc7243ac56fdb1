"""Clips as encoders and phones make them, and a plain decoder to compare with. No helper of the library is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT, SIDE = 96, 64, 48
MILLISECONDS = Fraction(1, 1000)


@dataclass(frozen=True)
class Recipe:
    """How to encode one clip; ``times`` gives the presentation time of a frame in ms."""

    codec: str = "libx264"
    suffix: str = "mp4"
    frames: int = 60
    options: dict[str, str] = field(default_factory=dict)
    times: Callable[[int], int] = lambda number: 100 * number
    size: tuple[int, int] = (WIDTH, HEIGHT)
    pixels: str = "yuv420p"
    clock: Fraction = MILLISECONDS
    container: dict[str, str] = field(default_factory=dict)


def x264(gop: int, *params: str, bframes: int = 3, **others: object) -> Recipe:
    """H.264; ``params`` as ``x264 --help`` knows them."""
    options = {"preset": "veryfast", "g": str(gop), "bf": str(bframes), "threads": "1", "crf": "28"}
    return Recipe(options=options | {"x264-params": ":".join(("scenecut=0", *params))}, **others)  # type: ignore[arg-type]


def x265(gop: int, *params: str, **others: object) -> Recipe:
    """HEVC."""
    fixed = (f"keyint={gop}", "min-keyint=1", "pools=1", "frame-threads=1", "log-level=none", "scenecut=0")
    options = {"preset": "ultrafast", "crf": "30", "x265-params": ":".join((*fixed, *params))}
    return Recipe(codec="libx265", options=options, **others)  # type: ignore[arg-type]


def picture(number: int, width: int, height: int) -> np.ndarray:
    """Texture that moves, a cut every 17 frames, and no two frames alike; RGB."""
    canvas = np.random.default_rng(7 + number // 17).integers(0, 256, (height + 64, width + 128, 3))
    smooth = (canvas + np.roll(canvas, 1, 0) + np.roll(canvas, 1, 1) + np.roll(canvas, (1, 1), (0, 1))) // 4
    y, x = 2 * number % 64, 3 * number % 128
    image = smooth[y : y + height, x : x + width].astype(np.uint8)
    left = 5 * number % (width - 16)
    image[height // 3 : height // 3 + 16, left : left + 16] = 37 * number % 256
    return image


def write(path: Path, recipe: Recipe, change: Callable[[list[av.Packet]], Sequence[av.Packet]] = list) -> Path:
    """Encode; ``change`` may drop, reorder or alter the packets before they are written."""
    width, height = recipe.size
    with av.open(str(path), "w", options=recipe.container) as container:
        stream = container.add_stream(recipe.codec, rate=10, options=dict(recipe.options))
        stream.width, stream.height, stream.pix_fmt = width, height, recipe.pixels
        stream.codec_context.time_base = recipe.clock
        packets = []
        for number in range(recipe.frames):
            frame = av.VideoFrame.from_ndarray(picture(number, width, height), format="rgb24")
            frame.pts, frame.time_base = recipe.times(number), MILLISECONDS
            packets += stream.encode(frame)
        for packet in change([*packets, *stream.encode(None)]):
            container.mux(packet)
    return path


def naive(path: Path, count: int, side: int = SIDE) -> np.ndarray:
    """Decode everything, sort by time where times are usable, pick, scale."""
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        frames = list(container.decode(video=0))
    times = [frame.pts for frame in frames]
    if None not in times and len(set(times)) == len(times):
        frames.sort(key=lambda frame: frame.pts)
    picked = [frames[int(i)] for i in np.linspace(0, len(frames) - 1, count).round()]
    arrays = [
        np.rot90(frame.reformat(side, side, "rgb24", interpolation="BICUBIC").to_ndarray(), round(frame.rotation / 90))
        for frame in picked
    ]
    return np.stack(arrays).transpose(0, 3, 1, 2)
