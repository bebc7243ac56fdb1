"""Find copies that are not the same bytes: perceptual hashes of sampled frames, and who is near whom.

The hash is PDQ (Meta, ThreatExchange, 2019): 256 bits per frame, robust to scaling and re-encoding; two hashes
of one picture differ in at most about 31 bits. A video's hash is that of a few uniform frames, so two videos are
near if their frames at the same places are near on average. Most mirrored copies are found too: mirroring flips
the sign of PDQ's odd columns, hence nearly every bit of them (24 of 256 bits off, at most 44, on 60 real frames).

Candidates come from bands: two hashes that share one of 12 bands of 21 bits in any frame are compared. At a mean
distance d over 4 frames, d bits spread at random, the chance to share none is at most (1-(1-d/256)^21)^48: 3 % at
31, nothing at 20. In a crowded bucket (one intro in 100,000 videos) each is compared with its next 16 only, so time
stays linear; such copies are found through their other frames. benchmarks/near_duplicates.py measures all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from coefvq.data.media.video_hash import BITS, HEX, MIN_FRAMES

_BAND = 21
# a mirrored hash is only known approximately, so more bits may differ
_MIRROR_SLACK = 12
# a video is compared with so many neighbours in its bucket: a bucket of a million costs linear time
_REACH = 16
# PDQ writes its 16 x 16 coefficients row by row, so odd columns are every other bit
_ODD_COLUMNS = 0x55
# rows or pairs handled at once: bounds memory, changes no result
_CHUNK = 1 << 17

Codes = npt.NDArray[np.int64]
Pairs = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]


def near_duplicate_codes(hashes: Sequence[str | None] | pd.Series[Any], max_distance: int) -> Codes:
    """Group number of each video [n]; -1 where the hash is unknown or nobody is near.

    Near is transitive here: if b is near a and c is near b, all three share a number. The order of ``hashes``
    does not matter.

    Args:
        hashes: of ``video_hash``; None or "" is unknown.
        max_distance: bits of 256, mean over the frames both videos have.
    """
    owner, bits, good = _distinct(pd.Series(hashes, dtype="str"))
    if not len(bits):
        return owner
    numbers = _near(bits, good, max_distance)
    known = (owner >= 0) & (good.sum(axis=1) >= MIN_FRAMES)[owner]
    group = np.where(known, numbers[owner], -1)
    sizes = np.bincount(group[known], minlength=len(bits))
    shared = known & (sizes[group] > 1)
    codes = np.full(len(owner), -1, np.int64)
    codes[shared] = np.unique(group[shared], return_inverse=True)[1]
    return codes


def mirrored(bits: Bytes) -> Bytes:
    """Packed hashes [..., 32] of the mirrored pictures."""
    return bits ^ np.uint8(_ODD_COLUMNS)


def _distinct(hashes: pd.Series[Any]) -> tuple[Codes, Bytes, Flags]:
    """The number [n] of each video's hash among the distinct ones, -1 where it is unknown; their bits and good frames.

    They are numbered in the order of their texts, so that neighbours do not depend on the order of rows.
    """
    owner = np.full(len(hashes), -1, np.int64)
    known = np.flatnonzero(hashes.notna() & hashes.ne(""))
    if not len(known):
        return owner, np.empty((0, 1, BITS // 8), np.uint8), np.empty((0, 1), bool)
    bits, good = _unpack(hashes, known)
    order = _in_order(bits, good)
    words = bits.reshape(len(bits), -1).view(np.uint64)
    new = np.ones(len(order), bool)
    alike = np.flatnonzero(words[order[1:], 0] == words[order[:-1], 0]) + 1
    one, other = order[alike], order[alike - 1]
    new[alike] = (words[one] != words[other]).any(axis=1) | (good[one] != good[other]).any(axis=1)
    owner[known[order]] = np.cumsum(new) - 1
    return owner, bits[order[new]], good[order[new]]


def _in_order(bits: Bytes, good: Flags) -> Codes:
    """Places [n] of hashes in the order of their texts, in which a blank frame comes before any other."""
    words = bits.reshape(len(bits), -1).view(">u8")
    heads = words[:, 0].astype(np.uint64)
    order = np.argsort(heads)
    # nearly all differ in their first eight bytes already
    equal = heads[order[1:]] == heads[order[:-1]]
    tied = np.flatnonzero(np.append(equal, False) | np.append(False, equal))
    part = order[tied]
    keys = [heads[part]]
    for frame, its_words in enumerate(np.split(words[part], bits.shape[1], axis=1)):
        keys += [good[part, frame], *its_words.T]
    order[tied] = part[np.lexsort(keys[::-1])]
    return order


def _unpack(hashes: pd.Series[Any], known: Codes) -> tuple[Bytes, Flags]:
    """Packed bits [n, F, 32] and which frames count [n, F] of the ``known`` ones; short ones are filled with blanks."""
    frames = -(-int(hashes.str.len().max()) // HEX)
    bits = np.empty((len(known), frames, BITS // 8), np.uint8)
    good = np.empty((len(known), frames), bool)
    for start in range(0, len(known), _CHUNK):
        rows = slice(start, start + _CHUNK)
        # a Python text is a third of a kilobyte
        padded = "".join([text.ljust(frames * HEX, "-") for text in hashes.iloc[known[rows]].tolist()])
        good[rows] = np.frombuffer(padded.encode(), np.uint8).reshape(-1, frames, HEX)[:, :, 0] != ord("-")
        bits[rows] = np.frombuffer(bytes.fromhex(padded.replace("-", "0")), np.uint8).reshape(-1, frames, BITS // 8)
    return bits, good


def _near(bits: Bytes, good: Flags, max_distance: int) -> Codes:
    """Number [n] of the group each hash belongs to, of those that are near transitively."""
    numbers = np.arange(len(bits))
    heads = _Heads.of(bits, good)
    for frame in range(bits.shape[1]):
        members = np.flatnonzero(good[:, frame])
        for first in range(0, BITS - _BAND + 1, _BAND):
            found = []
            for left, right in _candidates(bits[members, frame], members, first):
                # whoever is in one group already need not be compared again
                apart = np.flatnonzero(numbers[left] != numbers[right])
                found.append(_are_near(left[apart], right[apart], bits, good, heads, max_distance))
            numbers = _merged(numbers, np.concatenate(found)) if found else numbers
    return numbers


def _merged(numbers: Codes, pairs: Pairs) -> Codes:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(pairs):
        return numbers
    ends = (numbers[pairs[:, 0]], numbers[pairs[:, 1]])
    graph = coo_array((np.ones(len(pairs), np.int32), ends), shape=(len(numbers), len(numbers)))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)[numbers]


def _candidates(bits: Bytes, members: Codes, first: int) -> Iterator[tuple[Codes, Codes]]:
    """Both ends [k] of pairs that agree in ``_BAND`` bits from ``first`` on, as they are or one of them mirrored."""
    keys = _band_keys(bits, first)
    # a hash and its mirror image share a bucket: the lesser of both keys
    keys = np.minimum(keys, keys ^ _band_keys(np.full((1, BITS // 8), _ODD_COLUMNS, np.uint8), first))
    keys, order = _sorted(keys)
    owners = members[order]
    for step in range(1, _REACH + 1):
        same = np.flatnonzero(keys[step:] == keys[:-step])
        if not len(same):
            return
        for start in range(0, len(same), _CHUNK):
            part = same[start : start + _CHUNK]
            yield owners[part], owners[part + step]


def _sorted(keys: Codes) -> tuple[Codes, Codes]:
    """Keys of ``_BAND`` bits in ascending order, and their places as of a stable argsort, several times as fast."""
    place = 63 - _BAND
    both = np.sort(keys << place | np.arange(len(keys)))
    return both >> place, both & ((1 << place) - 1)


def _band_keys(bits: Bytes, first: int) -> Codes:
    start, stop = first // 8, min((first + _BAND + 7) // 8, BITS // 8)
    value: Codes = np.zeros(len(bits), np.int64)
    for place in range(start, stop):
        value = (value << 8) | bits[:, place]
    surplus = stop * 8 - (first + _BAND)
    value >>= surplus
    value &= (1 << _BAND) - 1
    return value


@dataclass(frozen=True)
class _Heads:
    """The first two frames of each video: ``bits`` [n] with those of a video as one item, and who has both [n]."""

    bits: npt.NDArray[np.void]
    complete: Flags
    frames: int

    @classmethod
    def of(cls, bits: Bytes, good: Flags) -> _Heads:
        """Of hashes [n, F, 32] that lie side by side in memory; nothing is copied."""
        rows = bits.reshape(len(bits), -1)
        size = min(rows.shape[1], 2 * BITS // 8)
        item = np.dtype({"names": ["head"], "formats": [f"V{size}"], "itemsize": rows.shape[1]})
        return cls(rows.view(item)["head"][:, 0], np.logical_and.reduce(good[:, :2], axis=1), bits.shape[1])

    def may_be_near(self, left: Codes, right: Codes, max_distance: int) -> Flags:
        """False where the first two frames, if both videos have them, differ in more bits than all frames may."""
        near: Flags = np.logical_not(self.complete[left] & self.complete[right])
        words = (len(left), self.bits.itemsize // 8)
        differ = self.bits[left].view(np.uint64).reshape(words) ^ self.bits[right].view(np.uint64).reshape(words)
        for change, slack in _changes(differ):
            # of eight words, each with at most 64 bits: a byte holds the count of a word
            counts = np.bitwise_count(change)
            total = counts.sum(axis=1, dtype=np.uint16) if counts.shape[1] != 8 else _sum_of_bytes(counts)
            near |= total <= (max_distance + slack) * self.frames
        return near


def _sum_of_bytes(counts: Bytes) -> npt.NDArray[np.uint64]:
    """Sums [k] of eight bytes each [k, 8], which numpy would add one by one."""
    wide = counts.view(np.uint64)[:, 0]
    pairs = np.uint64(0x00FF00FF00FF00FF)
    halves = (wide & pairs) + (wide >> np.uint64(8) & pairs)
    return halves * np.uint64(0x0001000100010001) >> np.uint64(48)


def _are_near(left: Codes, right: Codes, bits: Bytes, good: Flags, heads: _Heads, max_distance: int) -> Pairs:
    """The pairs [k, 2] whose frames that both videos have are near on average, as they are or mirrored."""
    # most share a band by chance, and two of their frames are further apart already than all of them may be
    chosen = np.flatnonzero(heads.may_be_near(left, right, max_distance))
    left, right = left[chosen], right[chosen]
    both = good[left] & good[right]
    shared = both.sum(axis=1)
    near = np.zeros(len(left), bool)
    for change, slack in _changes(bits[left].view(np.uint64) ^ bits[right].view(np.uint64)):
        distance = np.bitwise_count(change).sum(axis=2, dtype=np.int64)
        near |= (distance * both).sum(axis=1) <= (max_distance + slack) * shared
    near &= shared >= MIN_FRAMES
    return np.stack([left[near], right[near]], axis=1)


def _changes(differ: npt.NDArray[np.uint64]) -> Iterator[tuple[npt.NDArray[np.uint64], int]]:
    """Bits that differ, eight bytes at a time, and the slack: as the pictures are, and mirrored."""
    yield differ, 0
    yield differ ^ np.full(8, _ODD_COLUMNS, np.uint8).view(np.uint64), _MIRROR_SLACK
