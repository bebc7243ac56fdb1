"""The work of splitting, slicing and publishing grows as the videos do: counted calls, not seconds."""

from __future__ import annotations

import cProfile
import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from coefvq.config import Fractions, Negatives, Split
from coefvq.data.splits.assign import assign_splits, check_splits, summarize
from coefvq.evaluation.slices import slice_columns
from coefvq.vmp.log import open_log
from coefvq.vmp.publications import read_events
from tests.property.test_split_copies import params, world

LIMIT = 1.05


def calls(work: Callable[[], object]) -> int:
    """Calls of Python and C functions that ``work`` makes."""
    profile = cProfile.Profile()
    profile.runcall(work)
    return sum(entry.callcount for entry in profile.getstats())


def exponent(work: Callable[[int], Callable[[], object]], small: int, large: int) -> float:
    work(small)()  # what is imported and compiled once
    return math.log(calls(work(large)) / calls(work(small))) / math.log(large / small)


def test_splitting_ten_thousand_videos() -> None:
    def work(videos: int) -> Callable[[], object]:
        manifest = world(videos, 0.09, 5, 1)

        def split() -> object:
            splits = assign_splits(manifest, ["ucc"], params(), 7)
            check_splits(manifest, splits, ["ucc"], params())
            return summarize(manifest, splits, ["ucc"], params())

        return split

    assert exponent(work, 2_500, 10_000) <= LIMIT


def test_slices_are_columns() -> None:
    def work(videos: int) -> Callable[[], object]:
        manifest = world(videos, 0.09, 5, 1).assign(duration_s=3.0, views=5, has_audio=True, title="a")
        return lambda: slice_columns(manifest, ["duration", "views", "has_audio", "creator_size"])

    assert exponent(work, 2_500, 10_000) <= 0.5, "only the encoding of texts goes row by row"


def test_publishing(tmp_path: Path) -> None:
    def work(videos: int) -> Callable[[], object]:
        folder = tmp_path / str(videos)
        folder.mkdir(exist_ok=True)
        names = [f"{row}.mp4" for row in range(videos)]
        for name in names:
            (folder / name).touch()
        pd.DataFrame({"file_name": names, "title": names}).to_csv(folder / "metadata.csv", index=False)

        def publish() -> object:
            log_path = tmp_path / f"{videos}.sqlite"
            log_path.unlink(missing_ok=True)
            with open_log(log_path) as log:
                return log.publish_all(read_events(folder))

        return publish

    assert exponent(work, 250, 1_000) <= LIMIT


@pytest.mark.parametrize("creator", ["hard", "soft"])
def test_a_group_as_large_as_the_set_takes_no_longer(creator: str) -> None:
    wanted = Split(
        fractions=Fractions(train=0.56, val=0.16, test=0.18, traffic=0.1),
        order="random",
        near_duplicates=None,
        negatives=Negatives(train=1.0, val=1.0, test=1.0),
        group_by=("source_id", "creator_id"),
        creator="soft" if creator == "soft" else "hard",
    )

    def work(videos: int) -> Callable[[], object]:
        manifest = world(videos, 0.0, 5, 1).assign(creator_id="one")
        return lambda: assign_splits(manifest, ["ucc"], wanted, 7)

    assert exponent(work, 2_500, 10_000) <= LIMIT
