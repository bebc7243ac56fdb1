"""What is made of each original, as facts: who posts it when, under which title, with which edits.

Everything about a video follows from (seed, its original's id, number of the copy). Nothing here touches
a file; what needs the footage (its length, another original's sound) is settled in ``settled``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from coefvq.simulation.reupload.edits import EVASION, EXCLUSIVE, PRESENTATION, Edit, draw_edit
from coefvq.simulation.reupload.painting import ORDER
from coefvq.simulation.reupload.titles import neutral_title, retitled

if TYPE_CHECKING:
    import pandas as pd

_START = datetime(2025, 1, 1, tzinfo=UTC)
_MOST_COPIES = 8
_RETITLED = 0.7  # share of copies under a new title; of originals with own edits, this too
# an output is this share of its footage, so that the fastest copy (1.25) still finds enough of it
_LENGTH = (0.6, 0.8)
_BITS = (0.15, 0.35)  # video bits of an output per bit of the prepared footage, and second
_VIEWS_LOG_MEAN, _VIEWS_LOG_STD = 6.5, 2.0


@dataclass(frozen=True)
class Original:
    """One row of the input table."""

    video_id: str
    uri: str
    title: str
    stickers: tuple[str, ...]
    creator_id: str
    published_at: datetime
    views: int


@dataclass(frozen=True)
class ReuploadPlan:
    """One output video. ``number`` is 0 for the original itself, else the number of the copy.

    ``inherited`` are the edits of the original's own creator, which a copy carries as well. Shares are of
    the footage: its length, where it starts in what is left, and its bits.
    """

    video_id: str
    number: int
    original: Original
    title: str
    creator_id: str
    published_at: datetime
    views: int
    inherited: tuple[Edit, ...]
    edits: tuple[Edit, ...]
    length_share: float
    start_share: float
    bits_share: float

    @property
    def file_name(self) -> str:
        """Path below the data set's folder; the table's ids may hold anything, so they are not in it."""
        return f"videos/{_digest(self.video_id)}.mp4"

    @property
    def stickers(self) -> tuple[str, ...]:
        """Text on the picture: what the original came with and what edits added."""
        added = [edit.text for edit in (*self.inherited, *self.edits)]
        return (*self.original.stickers, *(text for text in added if text))

    @property
    def label(self) -> int:
        """1 for a copy."""
        return int(self.number > 0)


def footage_name(video_id: str) -> str:
    """Name of the file between input and output."""
    return f"footage-{_digest(video_id)}.mp4"


def originals(frame: pd.DataFrame, seed: int) -> list[Original]:
    """Rows of ``importers.import_table`` as originals; what is missing is made up.

    Clips that share a source or creator in the input get one ``creator_id``, since their ``source_id`` will
    name the original: splits are grouped by both, so these clips still stay together.
    """
    import pandas as pd

    creators = _creators(frame)
    times = pd.to_datetime(frame["published_at"], errors="coerce", utc=True, format="mixed")
    views = [int(v) for v in frame["views"].dropna()]
    made = []
    for index, row in enumerate(frame.to_dict("records")):
        rng = _generator(seed, row["video_id"], "facts")
        published = _START + timedelta(minutes=10 * index + int(rng.integers(10)))
        made.append(
            Original(
                video_id=str(row["video_id"]),
                uri=str(row["uri"]),
                title=str(row["title"]) or neutral_title(rng),
                stickers=tuple(row["stickers"]),
                creator_id=creators[index],
                published_at=published if pd.isna(times.iloc[index]) else times.iloc[index].to_pydatetime(),
                views=_views(rng, views) if pd.isna(row["views"]) else int(row["views"]),
            )
        )
    return made


def plans(every: Sequence[Original], seed: int, copies: float, own_edits: float) -> list[list[ReuploadPlan]]:
    """Per original: itself, then its copies (Poisson with mean ``copies``)."""
    views = [original.views for original in every]
    return [_of_one(original, seed, copies, own_edits, views) for original in every]


def window(plan: ReuploadPlan, frames: int) -> tuple[int, float, int]:
    """First frame, step and number of frames that ``plan`` takes of a footage of ``frames``."""
    count = max(round(plan.length_share * frames), 2)
    step = next((float(edit.params["factor"]) for edit in plan.edits if edit.kind == "speed"), 1.0)
    left_over = max(frames - math.ceil(count * step), 0)
    return round(plan.start_share * left_over), step, count


def settled(plan: ReuploadPlan, footage: Mapping[str, bool], creators: Mapping[str, str]) -> ReuploadPlan:
    """Name the other original that ``pip`` and ``other_sound`` take from.

    ``footage`` are the usable originals at hand, in order, and whether they have sound; ``creators`` their
    creators. Without another creator's clip, ``pip`` shows the clip itself and the sound becomes music.
    """
    others = [video for video in footage if creators[video] != creators[plan.original.video_id]]
    heard = [video for video in others if footage[video]]

    def settle(edit: Edit) -> Edit:
        if edit.kind == "pip":
            return _from(edit, others or [plan.original.video_id])
        if edit.kind == "other_sound" and heard:
            return _from(edit, heard)
        if edit.kind == "other_sound":
            return Edit("music", {"under": False, "gain": 0.7, "seed": edit.params["seed"]})
        return edit

    return replace(plan, edits=tuple(settle(edit) for edit in plan.edits))


def _from(edit: Edit, donors: Sequence[str]) -> Edit:
    return Edit(edit.kind, {**edit.params, "donor": donors[edit.params["seed"] % len(donors)]})


def _of_one(original: Original, seed: int, copies: float, own_edits: float, views: Sequence[int]) -> list[ReuploadPlan]:
    rng = _generator(seed, original.video_id, "own")
    edited = rng.random() < own_edits
    own = _draw_edits(rng, PRESENTATION, 1 + min(int(rng.poisson(0.7)), 2)) if edited else ()
    title = retitled(rng, original.title, copyist=False) if edited and rng.random() < _RETITLED else original.title
    first = ReuploadPlan(
        video_id=original.video_id,
        number=0,
        original=original,
        title=title,
        creator_id=original.creator_id,
        published_at=original.published_at,
        views=original.views,
        inherited=(),
        edits=own,
        **_cut(rng),
    )
    count = min(int(rng.poisson(copies)), _MOST_COPIES)
    return [first, *(_copy(first, seed, number, views) for number in range(1, count + 1))]


def _copy(first: ReuploadPlan, seed: int, number: int, views: Sequence[int]) -> ReuploadPlan:
    rng = _generator(seed, first.video_id, number)
    name = _digest(seed, first.video_id, number)
    return ReuploadPlan(
        video_id=f"copy-{name}",
        number=number,
        original=first.original,
        title=retitled(rng, first.title, copyist=True) if rng.random() < _RETITLED else first.title,
        # an account per copy: one that copied from two originals would tie their groups together
        creator_id=f"account-{name}",
        published_at=first.published_at + timedelta(seconds=int(rng.exponential(5 * 86_400)) + 600),
        views=_views(rng, views),
        inherited=first.edits,
        edits=_draw_edits(rng, PRESENTATION + EVASION, 1 + min(int(rng.poisson(1.8)), 4)),
        **_cut(rng),
    )


def _draw_edits(rng: np.random.Generator, kinds: Sequence[str], count: int) -> tuple[Edit, ...]:
    """``count`` different kinds at most, in the order in which they are applied."""
    chosen: list[str] = []
    for kind in rng.permutation(np.array(kinds)):
        clash = any(str(kind) in group and group & set(chosen) for group in EXCLUSIVE)
        if len(chosen) < count and not clash:
            chosen.append(str(kind))
    return tuple(draw_edit(rng, kind) for kind in sorted(chosen, key=ORDER.index))


def _cut(rng: np.random.Generator) -> dict[str, float]:
    low, high = np.log(_BITS)
    return {
        "length_share": float(rng.uniform(*_LENGTH)),
        "start_share": float(rng.random()),
        "bits_share": float(np.exp(rng.uniform(low, high))),
    }


def _views(rng: np.random.Generator, known: Sequence[int]) -> int:
    """Views like those of the originals, whoever posts."""
    if known:
        return known[int(rng.integers(len(known)))]
    return int(rng.lognormal(_VIEWS_LOG_MEAN, _VIEWS_LOG_STD))


def _creators(frame: pd.DataFrame) -> list[str]:
    """One creator per set of rows linked by ``creator_id`` or ``source_id``, transitively."""
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(node: tuple[str, str]) -> tuple[str, str]:
        while parent.setdefault(node, node) != node:
            node = parent[node]
        return node

    videos = [("video", str(video)) for video in frame["video_id"]]
    given = {name: frame[name].notna().tolist() for name in ("creator_id", "source_id")}
    for name, known in given.items():
        for video, value, there in zip(videos, frame[name], known, strict=True):
            if there:
                parent[root((name, str(value)))] = root(video)
    named: dict[tuple[str, str], str] = {}
    for video, creator, there in zip(videos, frame["creator_id"], given["creator_id"], strict=True):
        if there:
            named.setdefault(root(video), str(creator))
    return [named.get(root(video), f"creator-{_digest(*root(video))}") for video in videos]


def _generator(*parts: object) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(blake2b(repr(parts).encode(), digest_size=16).digest()))


def _digest(*parts: object) -> str:
    return blake2b(repr(parts).encode(), digest_size=8).hexdigest()
