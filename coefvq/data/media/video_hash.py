"""The perceptual hash of a video: PDQ of a few frames (``splits.near_duplicates`` says what it is good for).

Workers that probe clips import this, so it stays light.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BITS = 256
#: digits of one frame's hash
HEX = BITS // 4
#: frames that say something, for a hash of the video
MIN_FRAMES = 2
# PDQ's own measure of how much there is to see, 0 … 100; flat frames all look alike
_MIN_QUALITY = 50
_BLANK = "-" * HEX


def video_hash(frames: npt.NDArray[np.uint8]) -> str:
    """PDQ of each frame, uint8 [F, 3, S, S] -> F x 64 hexadecimal digits; "-" for a frame with too little in it.

    Empty where fewer than two frames say anything.
    """
    import pdqhash

    parts = []
    for frame in frames:
        bits, quality = pdqhash.compute(np.ascontiguousarray(frame.transpose(1, 2, 0)))
        parts.append(np.packbits(np.asarray(bits, np.uint8)).tobytes().hex() if quality >= _MIN_QUALITY else _BLANK)
    return "".join(parts) if sum(part != _BLANK for part in parts) >= MIN_FRAMES else ""
