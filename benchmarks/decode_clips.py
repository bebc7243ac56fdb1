"""Clips for benchmarks/decode.py: H.264 as platforms deliver it, content that does not compress to nothing.

Every frame carries its number as a row of black and white squares, so that a decoder's answer can be checked
whatever way it scales.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

FPS = 30
SIZES = {"360p": (640, 360), "720p": (1280, 720), "1080p": (1920, 1080)}
_BITS, _COLUMNS, _ROWS = 12, 16, 15
Plane = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ClipSpec:
    """One clip: resolution name, keyframe distance in frames, seconds."""

    resolution: str
    gop: int
    seconds: int

    @property
    def name(self) -> str:
        """File name."""
        return f"{self.resolution}-gop{self.gop}-{self.seconds}s.mp4"


def ensure(spec: ClipSpec, folder: Path) -> Path:
    """Path of the clip, encoded on first use (written aside, then renamed)."""
    path = folder / spec.name
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _encode(spec, path.with_suffix(".part.mp4"))
        path.with_suffix(".part.mp4").replace(path)
    return path


def numbers(frames: npt.NDArray[np.uint8]) -> list[int]:
    """The numbers written into decoded frames, uint8 [F, 3, H, W] of any size."""
    found = []
    for luma in frames[:, 1]:
        height, width = luma.shape
        y = round((_ROWS - 0.5) * height / _ROWS)
        bits = [luma[y, round((bit + 0.5) * width / _COLUMNS)] > 127 for bit in range(_BITS)]
        found.append(sum(int(is_set) << bit for bit, is_set in enumerate(bits)))
    return found


def _encode(spec: ClipSpec, path: Path) -> None:
    import av

    width, height = SIZES[spec.resolution]
    options = {"preset": "veryfast", "crf": "26", "bf": "3", "g": str(spec.gop), "keyint_min": str(spec.gop)}
    options |= {"sc_threshold": "0", "threads": "2"}
    random = np.random.default_rng(7)
    canvas = _texture(random, width + 512, height + 512)
    grain = random.normal(0, 4, canvas.shape).round().astype(np.int16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(spec.seconds * FPS):
            planes = _picture(canvas, grain, number, width, height)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode(None))


def _texture(random: np.random.Generator, width: int, height: int) -> Plane:
    """Smooth blotches with fine detail, so that motion search finds something and detail costs bits."""
    coarse = random.integers(30, 220, (height // 32 + 2, width // 32 + 2)).astype(np.float32)
    blotches = np.kron(coarse, np.ones((32, 32), np.float32))[:height, :width]
    smooth = np.mean([np.roll(blotches, (s, s), (0, 1)) for s in range(0, 32, 4)], axis=0)
    return np.clip(smooth + random.normal(0, 3, smooth.shape), 0, 255).astype(np.uint8)


def _picture(canvas: Plane, grain: npt.NDArray[np.int16], number: int, width: int, height: int) -> Plane:
    """A panning camera with a cut every five seconds, a block that moves against it, sensor noise; yuv420p planes."""
    scene, t = divmod(number, 5 * FPS)
    x, y = (scene * 97 + 3 * t) % 512, (scene * 61 + 2 * t) % 512
    luma = canvas[y : y + height, x : x + width].copy()
    left = (7 * t) % (width - 128)
    luma[height // 3 : height // 3 + 128, left : left + 128] = canvas[:128, 200:328][:, ::-1]
    shift_y, shift_x = (number * 131) % 512, (number * 197) % 512
    noisy = luma + grain[shift_y : shift_y + height, shift_x : shift_x + width]
    luma = np.clip(noisy, 16, 235).astype(np.uint8)
    cell, tall = width // _COLUMNS, height // _ROWS
    for bit in range(_BITS):
        luma[-tall:, bit * cell : (bit + 1) * cell] = 235 if number >> bit & 1 else 16
    chroma = np.full((height // 2, width), 128, np.uint8)
    chroma[: -tall // 2, : width // 2] = (canvas[y : y + height : 2, x : x + width : 2] // 4 + 96)[: -tall // 2]
    return np.ascontiguousarray(np.concatenate([luma, chroma]))
