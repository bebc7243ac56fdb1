"""The sweep behind the exact frontier: a segment tree over MLLM scores, compiled by numba.

``frontier`` says what is searched and why this finds it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

# below any sum of values, and far enough from the end of the type that adding one does not wrap around
LOWEST: dict[np.dtype[Any], float | int] = {
    np.dtype(np.int32): -(2**30),
    np.dtype(np.int64): -(2**61),
    np.dtype(np.float64): -np.inf,
}


@cache
def sweep_kernel() -> Any:
    """The sweep, compiled at first use (numba takes seconds to import and compile; the result is cached on disk)."""
    import numba

    return numba.njit(cache=True, nogil=True)(_sweep)


def _sweep(
    leaf: NDArray[np.int32],
    value: NDArray[Any],
    positive: NDArray[Any],
    mass: NDArray[Any],
    ends: NDArray[np.intp],
    leaves: int,
    lowest: Any,
    largest: bool,
) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]:
    """Per end of a tie group: the leaf to cut after (−1: none), and the positives and rows up to there.

    ``largest``: the leaf with the largest prefix sum above 0; else the last one whose prefix sum is >= 0.
    """
    half = 1
    while half < leaves:
        half *= 2
    # a node's four numbers in one cache line: sum, largest prefix sum, positives, rows
    tree = np.zeros((2 * half, 4), value.dtype)
    tree[:, 1] = lowest
    cut = np.full(len(ends), -1, np.int64)
    hits, rows = np.zeros(len(ends), value.dtype), np.zeros(len(ends), value.dtype)
    start = 0
    for k in range(len(ends)):
        for i in range(start, ends[k] + 1):
            if leaf[i] >= leaves:
                continue
            v = leaf[i] + half
            tree[v, 0] += value[i]
            tree[v, 2] += positive[i]
            tree[v, 3] += mass[i]
            if tree[v, 2] > 0:  # a leaf without positives only adds up, it is no place to cut
                tree[v, 1] = tree[v, 0]
            v >>= 1
            while v >= 1:
                left, right = 2 * v, 2 * v + 1
                through = tree[left, 0] + tree[right, 1]
                tree[v, 0] = tree[left, 0] + tree[right, 0]
                tree[v, 1] = max(tree[left, 1], through)
                tree[v, 2] = tree[left, 2] + tree[right, 2]
                tree[v, 3] = tree[left, 3] + tree[right, 3]
                v >>= 1
        start = ends[k] + 1
        if (largest and tree[1, 1] <= 0) or tree[1, 1] < 0:
            continue
        v = 1
        total, hit, count = tree[0, 0], tree[0, 0], tree[0, 0]  # zeros of the type
        while v < half:
            left, right = 2 * v, 2 * v + 1
            if largest:
                go_right = tree[left, 0] + tree[right, 1] > tree[left, 1]
            else:
                go_right = total + tree[left, 0] + tree[right, 1] >= 0
            v = right if go_right else left
            if go_right:
                total += tree[left, 0]
                hit += tree[left, 2]
                count += tree[left, 3]
        cut[k], hits[k], rows[k] = v - half, hit + tree[v, 2], count + tree[v, 3]
    return cut, hits, rows
