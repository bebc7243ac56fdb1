"""Frames and samples → MP4 (H.264 + AAC), the same bytes each time.

One encoder thread and a bit-exact container: the file carries no time stamp and no library version.
Importing this module loads FFmpeg; import it where a clip is written.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

_VIDEO_OPTIONS = {"preset": "ultrafast", "crf": "25", "threads": "1", "g": "12"}
_AUDIO_OPTIONS = {"aac_coder": "fast", "b": "48000"}
_AAC_FRAME = 1024  # samples


def write_mp4(
    path: Path, frames: Iterable[NDArray[np.uint8]], fps: int, samples: NDArray[np.float32], sample_rate: int
) -> None:
    """Write one clip.

    ``frames``: RGB ``uint8 [H,W,3]``, H and W even; ``samples``: mono ``float32 [S]`` in [-1, 1].
    """
    with av.open(str(path.absolute()), "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        video = container.add_stream("libx264", rate=fps, options=_VIDEO_OPTIONS)
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=sample_rate, layout="mono", options=_AUDIO_OPTIONS)
        for stream in (video, audio):
            stream.codec_context.thread_count = 1
        for number, pixels in enumerate(frames):
            if number == 0:
                video.height, video.width = pixels.shape[:2]
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode())
        for frame in _audio_frames(samples, sample_rate):
            container.mux(audio.encode(frame))
        container.mux(audio.encode())


def _audio_frames(samples: NDArray[np.float32], sample_rate: int) -> Iterable[Any]:
    for start in range(0, len(samples), _AAC_FRAME):
        block = np.ascontiguousarray(samples[None, start : start + _AAC_FRAME])
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
        frame.sample_rate = sample_rate
        frame.pts = start
        yield frame
