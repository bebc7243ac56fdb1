"""Find copies that are not the same bytes: perceptual hashes of sampled frames, and who is near whom.

The hash is PDQ (Meta, ThreatExchange, 2019): 256 bits per frame, robust to scaling and re-encoding; two hashes
of one picture differ in at most about 31 bits. A video's hash is that of a few uniform frames, so two videos are
near if their frames at the same places are near on average. Most mirrored copies are found too: mirroring flips
the sign of PDQ's odd columns, hence nearly every bit of them (24 of 256 bits off, at most 44, on 60 real frames).

Candidates come from bands: two hashes that share one of 12 bands of 21 bits in any frame are compared. At a mean
distance d over 4 frames, d bits spread at random, the chance to share none is at most (1-(1-d/256)^21)^48: 3 % at
31, nothing at 20 (benchmarks/near_duplicates.py measures it).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

BITS = 256
_HEX = BITS // 4
# PDQ's own measure of how much there is to see, 0 … 100; flat frames all look alike
_MIN_QUALITY = 50
_MIN_FRAMES = 2
_BLANK = "-" * _HEX
_BAND = 21
# a mirrored hash is only known approximately, so more bits may differ
_MIRROR_SLACK = 12
# a video is compared with so many neighbours in its bucket: a bucket of a million costs linear time
_REACH = 16

Codes = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


def video_hash(frames: npt.NDArray[np.uint8]) -> str:
    """PDQ of each frame, uint8 [F, 3, S, S] -> F x 64 hexadecimal digits; "-" for a frame with too little in it.

    Empty where fewer than two frames say anything.
    """
    import pdqhash

    parts = []
    for frame in frames:
        bits, quality = pdqhash.compute(np.ascontiguousarray(frame.transpose(1, 2, 0)))
        parts.append(np.packbits(np.asarray(bits, np.uint8)).tobytes().hex() if quality >= _MIN_QUALITY else _BLANK)
    return "".join(parts) if sum(part != _BLANK for part in parts) >= _MIN_FRAMES else ""


def near_duplicate_codes(hashes: Sequence[str | None], max_distance: int) -> Codes:
    """Group number of each video [n]; -1 where the hash is unknown or nobody is near.

    Near is transitive here: if b is near a and c is near b, all three share a number.

    Args:
        hashes: of ``video_hash``; None or "" is unknown.
        max_distance: bits of 256, mean over the frames both videos have.
    """
    codes = np.full(len(hashes), -1, np.int64)
    known = np.array([i for i, text in enumerate(hashes) if isinstance(text, str) and text], np.int64)
    if len(known) < 2:
        return codes
    bits, good = _unpack([str(hashes[i]) for i in known])
    left, right = _near_pairs(bits, good, max_distance)
    graph = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(len(known), len(known)))
    _, numbers = connected_components(graph, directed=False)
    sizes = np.bincount(numbers)
    shared = sizes[numbers] > 1
    codes[known[shared]] = np.unique(numbers[shared], return_inverse=True)[1]
    return codes


def mirrored(bits: Bytes) -> Bytes:
    """Packed hashes [..., 32] of the mirrored pictures."""
    return bits ^ _MIRROR


# PDQ writes its 16 x 16 coefficients row by row, so odd columns are every other bit
_MIRROR = np.packbits(np.tile(np.array([0, 1], np.uint8), BITS // 2))


def _unpack(hashes: Sequence[str]) -> tuple[Bytes, npt.NDArray[np.bool_]]:
    """Packed bits [n, F, 32] and which frames count [n, F]; short hashes are filled up with blanks."""
    frames = max(len(text) for text in hashes) // _HEX
    padded = [text.ljust(frames * _HEX, "-") for text in hashes]
    good = np.array([[text[_HEX * f] != "-" for f in range(frames)] for text in padded])
    raw = bytes.fromhex("".join(padded).replace("-", "0"))
    return np.frombuffer(raw, np.uint8).reshape(len(hashes), frames, BITS // 8), good


def _near_pairs(bits: Bytes, good: npt.NDArray[np.bool_], max_distance: int) -> tuple[Codes, Codes]:
    found: list[npt.NDArray[np.int64]] = []
    for frame in range(bits.shape[1]):
        members = np.flatnonzero(good[:, frame])
        for first in range(0, BITS - _BAND + 1, _BAND):
            found.append(_verified(_candidates(bits[members, frame], members, first), bits, good, max_distance))
    pairs = np.unique(np.concatenate(found), axis=0) if found else np.zeros((0, 2), np.int64)
    return pairs[:, 0], pairs[:, 1]


def _candidates(bits: Bytes, members: Codes, first: int) -> npt.NDArray[np.int64]:
    """Pairs [k, 2] that agree in ``_BAND`` bits from ``first`` on, as they are or one of them mirrored."""
    keys = np.concatenate([_band_keys(bits, first), _band_keys(mirrored(bits), first)])
    owners = np.concatenate([members, members])
    order = np.argsort(keys, kind="stable")
    keys, owners = keys[order], owners[order]
    pairs = []
    for step in range(1, _REACH + 1):
        same = np.flatnonzero(keys[step:] == keys[:-step])
        if not len(same):
            break
        pairs.append(np.stack([owners[same], owners[same + step]], axis=1))
    if not pairs:
        return np.zeros((0, 2), np.int64)
    both = np.sort(np.concatenate(pairs), axis=1)
    return np.unique(both[both[:, 0] != both[:, 1]], axis=0)


def _band_keys(bits: Bytes, first: int) -> Codes:
    start, stop = first // 8, min((first + _BAND + 7) // 8, BITS // 8)
    value: Codes = np.zeros(len(bits), np.int64)
    for place in range(start, stop):
        value = (value << 8) | bits[:, place]
    surplus = stop * 8 - (first + _BAND)
    value >>= surplus
    value &= (1 << _BAND) - 1
    return value


def _verified(
    pairs: npt.NDArray[np.int64], bits: Bytes, good: npt.NDArray[np.bool_], max_distance: int
) -> npt.NDArray[np.int64]:
    if not len(pairs):
        return pairs
    one, two = bits[pairs[:, 0]], bits[pairs[:, 1]]
    both = good[pairs[:, 0]] & good[pairs[:, 1]]
    shared = both.sum(axis=1)
    near = np.zeros(len(pairs), bool)
    for other, limit in ((two, max_distance), (mirrored(two), max_distance + _MIRROR_SLACK)):
        distance = np.bitwise_count(one ^ other).sum(axis=2, dtype=np.int64)
        near |= (distance * both).sum(axis=1) <= limit * shared
    return np.asarray(pairs[near & (shared >= _MIN_FRAMES)])
