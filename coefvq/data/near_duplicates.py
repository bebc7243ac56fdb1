"""Perceptual hash of a video, for finding copies that are not the same bytes.

PDQ (Meta's ThreatExchange): 256 bits per sampled frame, robust to re-encoding and scaling.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def video_hash(frames: npt.NDArray[np.uint8]) -> str:
    """PDQ of each frame, uint8 [F, 3, S, S] -> F x 64 hexadecimal digits."""
    import pdqhash

    bits = [pdqhash.compute(np.ascontiguousarray(frame.transpose(1, 2, 0)))[0] for frame in frames]
    return "".join(np.packbits(np.asarray(vector, np.uint8)).tobytes().hex() for vector in bits)
