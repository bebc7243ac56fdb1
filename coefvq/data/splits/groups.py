"""Videos that must stay together: same source, same creator, same bytes, or near-duplicates."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coefvq.config import Split
from coefvq.data.splits.division import divided, size_limit
from coefvq.data.splits.near_duplicates import near_duplicate_codes
from coefvq.records import label_column

Floats = NDArray[np.float64]
#: split by the number of a group
Places = dict[int, str]

# column with the number of a video's near-duplicate group
LOOK_ALIKE = "look_alike"
_CREATOR = "creator_id"
# whom new videos follow where old ones of several splits are equally many
_TIE_ORDER = ("test", "val", "traffic", "unlabelled", "train")


@dataclass(frozen=True, slots=True)
class Group:
    """Videos that must stay together.

    ``counts`` is [videos, negatives and positives of the first issue, of the second, ...]; ``key`` is a
    seeded hash, the group's place in a random order; ``pinned`` is the split of its old videos, if any;
    ``time`` is when its latest video was published (empty where nobody asked).
    """

    key: str
    counts: Floats
    pinned: str | None
    time: str = ""

    @property
    def size(self) -> int:
        return int(self.counts[0])

    @property
    def classes(self) -> int:
        """Bit set of the classes (two per issue) it holds an example of."""
        return sum(1 << bit for bit, count in enumerate(self.counts[1:].tolist()) if count)


def grouping_columns(params: Split) -> list[str]:
    """Columns whose equal values tie videos together; equal bytes always do."""
    return list(dict.fromkeys([*params.group_by, "sha256"]))


def tying_columns(rows: pd.DataFrame, params: Split) -> list[str]:
    """``grouping_columns``, and the one of ``with_look_alikes`` where ``rows`` has it and it is asked for."""
    look_alike = params.near_duplicates is not None and LOOK_ALIKE in rows
    return [*grouping_columns(params), *([LOOK_ALIKE] if look_alike else [])]


def decodable(rows: pd.DataFrame) -> pd.Series[bool]:
    """Which rows take part at all."""
    return rows["decode_ok"].fillna(False).astype(bool)


def with_look_alikes(manifest: pd.DataFrame, params: Split) -> pd.DataFrame:
    """``manifest`` with column ``look_alike``: the number of the near-duplicate group, NA for none.

    The search is the dear part of splitting, so a column that is there already is taken as it is.
    """
    if params.near_duplicates is None or "phash" not in manifest or LOOK_ALIKE in manifest:
        return manifest
    found = near_duplicate_codes(manifest["phash"].where(decodable(manifest)), params.near_duplicates)
    codes = pd.Series(found, index=manifest.index)
    return manifest.assign(**{LOOK_ALIKE: codes.astype("Int64").mask(codes < 0)})


def with_codes(rows: pd.DataFrame, params: Split) -> pd.DataFrame:
    """``rows`` with numbers in the grouping columns, NA where empty: the steps of splitting then compare no texts.

    Creators are numbered in the order of their names, which does not depend on the rows' order.
    """
    codes = {name: pd.factorize(_values(rows, name), sort=name == _CREATOR)[0] for name in grouping_columns(params)}
    return rows.assign(
        **{name: pd.Series(found, rows.index, dtype="Int64").mask(found < 0) for name, found in codes.items()}
    )


def undivided_columns(rows: pd.DataFrame, params: Split) -> list[str]:
    """``tying_columns`` whose values are in one split each: all, or all but the creator where that one is soft."""
    return [name for name in tying_columns(rows, params) if name != _CREATOR or params.creator == "hard"]


@dataclass(frozen=True)
class Ties:
    """What ties the decodable rows together, each [rows]: ``groups`` of ``components``, ``sources`` of ``undivided``.

    Several steps of splitting look at them, and on a million rows each look takes seconds.
    """

    groups: NDArray[np.int64]
    sources: NDArray[np.int64]


def find_ties(rows: pd.DataFrame, params: Split) -> Ties:
    """The ties of decodable rows."""
    sources = undivided(rows, params)
    return Ties(components(rows, params, sources), sources)


def components(rows: pd.DataFrame, params: Split, sources: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Group number [rows]: connected components of the graph rows — values of the tying columns.

    Where the creator is soft, groups that would be too large are divided (``division``). ``sources`` are those of
    ``undivided``, if they are known.
    """
    if sources is not None and tying_columns(rows, params) == undivided_columns(rows, params):
        return sources
    groups = _connected(rows, tying_columns(rows, params))
    if params.creator == "hard" or _CREATOR not in params.group_by or not len(rows):
        return groups
    limit = size_limit(len(rows), params)
    if np.bincount(groups).max() <= limit:
        return groups
    creators = pd.factorize(_values(rows, _CREATOR), sort=True)[0]
    sources = undivided(rows, params) if sources is None else sources
    return divided(groups, sources, creators.astype(np.int64), limit)


def undivided(rows: pd.DataFrame, params: Split) -> NDArray[np.int64]:
    """As ``components``, of the ties that are never divided."""
    return _connected(rows, undivided_columns(rows, params))


def _connected(rows: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.int64]:
    # half a second of import, and most stages only read the splits
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    sources, targets, nodes = [], [], len(rows)
    for name in columns:
        codes, values = pd.factorize(_values(rows, name))
        known = np.flatnonzero(codes >= 0)
        sources.append(known)
        targets.append(codes[known] + nodes)
        nodes += len(values)
    ends = (np.concatenate(sources), np.concatenate(targets))
    graph = coo_array((np.ones(len(ends[0]), dtype=np.int8), ends), shape=(nodes, nodes))
    _, numbers = connected_components(graph, directed=False)
    # value nodes are dropped; numbering the rest anew keeps numbers dense
    return np.asarray(np.unique(numbers[: len(rows)], return_inverse=True)[1], dtype=np.int64)


def _values(rows: pd.DataFrame, name: str) -> pd.Series[Any]:
    # an empty value means unknown, and unknown is not shared; numbers (``with_codes``) are never empty
    column = rows[name]
    return column if pd.api.types.is_numeric_dtype(column) else column.replace("", None)


def _first_names(names: pd.Series[Any], numbers: NDArray[np.int64]) -> list[str]:
    """The least name of each group, in the order of their numbers; pandas would compare texts group by group."""
    order = names.argsort().to_numpy()
    _, first = np.unique(numbers[order], return_index=True)
    return [str(name) for name in names.to_numpy(dtype=object)[order[first]]]


def make_groups(
    rows: pd.DataFrame, numbers: NDArray[np.int64], pins: pd.Series[Any], issues: Sequence[str], seed: int, timed: bool
) -> list[Group]:
    """Groups in the order of their numbers; ``pins`` is the earlier split per row, NA for new videos."""
    labels = [rows[label_column(issue)] for issue in issues]
    cells = [np.ones(len(rows)), *(label.eq(value).fillna(False) for label in labels for value in (0, 1))]
    total = int(numbers.max(initial=-1)) + 1
    counts = np.stack([np.bincount(numbers, np.asarray(cell, dtype=float), total) for cell in cells], axis=1)
    votes = np.stack([np.bincount(numbers, pins.eq(name).astype(float), total) for name in _TIE_ORDER], axis=1)
    names = _first_names(rows["video_id"].astype("str"), numbers)
    times = rows["published_at"].astype("str").groupby(numbers).max() if timed else [""] * total
    return [
        Group(
            # one draw per group: the least of its videos' hashes would favour large groups
            key=hashlib.sha256(f"{seed}:{name}".encode()).hexdigest(),
            counts=count,
            pinned=_TIE_ORDER[int(vote.argmax())] if vote.any() else None,
            time=str(time),
        )
        for name, count, vote, time in zip(names, counts, votes, times, strict=True)
    ]
