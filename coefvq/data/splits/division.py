"""Divide a group that grew too large because creators tie it together.

Ties are transitive: where a tenth of the videos are copies of anybody's, sources and creators tie most of the set
into one group. Such a group is divided along creators: each source goes with the creator who has most of its
videos. A creator who is still too large is divided into sources. Then parts that share creators are put together again
up to the largest size, which leaves fewer creators in several splits. Sources are never divided.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coefvq.config import Split

Numbers = NDArray[np.int64]

# no split's figures rest on one divisible group for more than this share of the split
_LARGEST_SHARE = 0.1
# in a small set a tenth of a split is a video or two; groups of so many are left whole
_SMALLEST_LIMIT = 20


def size_limit(videos: int, params: Split) -> int:
    """Videos of the largest group that is left whole although creators alone tie it together."""
    smallest = min((share for share in params.fractions.model_dump().values() if share > 0), default=0.0)
    return max(_SMALLEST_LIMIT, int(_LARGEST_SHARE * smallest * videos))


def divided(groups: Numbers, sources: Numbers, creators: Numbers, limit: int) -> Numbers:
    """Group number [rows], as ``groups``, but those above ``limit`` videos divided.

    Args:
        groups: by all ties.
        sources: finer groups that are never divided.
        creators: number of each row's creator, in an order that does not depend on rows; -1 where unknown.
        limit: videos.
    """
    large = np.bincount(groups)[groups] > limit
    if not large.any():
        return groups
    sources, creators = sources[large], creators[large]
    homes = _homes(sources, creators)[sources]
    # creators first, then the sources that stand for themselves
    parts = np.where(homes >= 0, homes, creators.max(initial=0) + 1 + sources)
    too_large = np.bincount(parts)[parts] > limit
    parts = np.where(too_large, creators.max(initial=0) + 1 + sources, parts)
    parts = _rejoined(parts, creators, limit)
    numbers = groups.copy()
    numbers[large] = parts + groups.max() + 1
    return np.unique(numbers, return_inverse=True)[1].astype(np.int64)


def _rejoined(parts: Numbers, creators: Numbers, limit: int) -> Numbers:
    """Parts put together again where they share a creator, as far as ``limit`` allows: fewer creators are divided.

    A creator's part has the creator's number. Pairs that share most videos come first, then those of the first
    creators, so that the order of rows does not matter.
    """
    sizes = np.bincount(parts, minlength=int(creators.max(initial=0)) + 1)
    away = (creators >= 0) & (parts != creators) & (parts <= creators.max(initial=0))
    away &= sizes[np.maximum(creators, 0)] > 0
    ends = np.sort(np.stack([parts[away], creators[away]], axis=1), axis=1)
    pairs, counts = _distinct(ends)
    heads = list(range(len(sizes)))
    size = sizes.tolist()

    def head(number: int) -> int:
        while heads[number] != number:
            heads[number] = heads[heads[number]]
            number = heads[number]
        return number

    for one, other in pairs[np.argsort(-counts, kind="stable")].tolist():
        first, second = head(one), head(other)
        if first != second and size[first] + size[second] <= limit:
            heads[second] = first
            size[first] += size[second]
    return np.array([head(number) for number in range(len(heads))], np.int64)[parts]


def _homes(sources: Numbers, creators: Numbers) -> Numbers:
    """The creator of most videos of each source, the first on a tie; -1 where none is known."""
    homes = np.full(sources.max() + 1, -1, np.int64)
    known = creators >= 0
    pairs, counts = _distinct(np.stack([sources[known], creators[known]], axis=1))
    # the last of a source wins, so most videos and, among those, the first creator come last
    order = np.lexsort((-pairs[:, 1], counts, pairs[:, 0]))
    homes[pairs[order, 0]] = pairs[order, 1]
    return homes


def _distinct(pairs: Numbers) -> tuple[Numbers, Numbers]:
    """As ``np.unique`` of the rows of pairs [n, 2] from 0, and their counts; it compares rows, which takes longer."""
    width = pairs[:, 1].max(initial=0) + 1
    keys, counts = np.unique(pairs[:, 0] * width + pairs[:, 1], return_counts=True)
    return np.stack(np.divmod(keys, width), axis=1), counts
