"""Clips for benchmarks/decode.py: H.264 as platforms deliver it, content that does not compress to nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

FPS = 30
SIZES = {"360p": (640, 360), "720p": (1280, 720), "1080p": (1920, 1080)}


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


def _encode(spec: ClipSpec, path: Path) -> None:
    import av

    width, height = SIZES[spec.resolution]
    options = {"preset": "veryfast", "crf": "26", "bf": "3", "g": str(spec.gop), "keyint_min": str(spec.gop)}
    options |= {"sc_threshold": "0", "threads": "2"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        canvas = _texture(width + 512, height + 512)
        for number in range(spec.seconds * FPS):
            frame = av.VideoFrame.from_ndarray(_picture(canvas, number, width, height), format="yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _texture(width: int, height: int) -> npt.NDArray[np.uint8]:
    """Smooth blotches with some grain, so that motion search finds something and grain costs bits."""
    random = np.random.default_rng(7)
    coarse = random.integers(30, 220, (height // 32 + 2, width // 32 + 2)).astype(np.float32)
    blotches = np.kron(coarse, np.ones((32, 32), np.float32))[:height, :width]
    smooth = sum(np.roll(blotches, (s, s), (0, 1)) for s in range(0, 32, 4)) / 8
    return np.clip(smooth + random.normal(0, 3, smooth.shape), 0, 255).astype(np.uint8)


def _picture(canvas: npt.NDArray[np.uint8], number: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    """A panning camera with a cut every five seconds and a block that moves against it; yuv420p planes."""
    scene, t = divmod(number, 5 * FPS)
    x, y = (scene * 97 + 3 * t) % 512, (scene * 61 + 2 * t) % 512
    luma = canvas[y : y + height, x : x + width].copy()
    left = (7 * t) % (width - 128)
    luma[height // 3 : height // 3 + 128, left : left + 128] = canvas[:128, 200:328][:, ::-1]
    chroma = np.full((height // 2, width), 128, np.uint8)
    chroma[:, : width // 2] = canvas[y : y + height : 2, x : x + width : 2] // 4 + 96
    return np.ascontiguousarray(np.concatenate([luma, chroma]))
