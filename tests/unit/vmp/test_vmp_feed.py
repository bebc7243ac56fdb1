"""The change feed: whoever follows its cursor ends with the index, whatever happened and whoever wrote at once."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from coefvq.errors import DataError
from coefvq.vmp import feed, served
from coefvq.vmp.index import IndexStore, open_index
from coefvq.vmp.log import EventLog, open_log
from coefvq.vmp.overrides import override
from coefvq.vmp.records import FULL, Event, SinkRow
from coefvq.vmp.retention import compact, forget
from tests.vmp_world import NOW, promote


def row(video_id: str, epoch: int, version: int = 1, title: str = "t") -> SinkRow:
    value = json.dumps({"title": title, "views": None, "scores": {}})
    return SinkRow(1, video_id, version, epoch, FULL, f"icd={epoch}-x", "live", "live", "r", value,
                   NOW.isoformat(), f"v{version}")  # fmt: skip


class Reader:
    """A recommender: a copy of the index that is brought up to date by the feed alone."""

    def __init__(self, index: IndexStore) -> None:
        self.index, self.copy, self.cursor = index, dict[str, Any](), 0

    def follow(self, limit: int = 3) -> int:
        """Read to the end; how many changes there were."""
        count, more = 0, True
        while more:
            page = feed.read(self.index.database, self.cursor, limit)
            assert [change.number for change in page.changes] == sorted({change.number for change in page.changes})
            self.copy |= {change.entry.video_id: asdict(change.entry) for change in page.changes}
            count, more, self.cursor = count + len(page.changes), page.more, page.cursor
        return count

    def same(self) -> bool:
        return self.copy == {entry.video_id: asdict(entry) for entry in served.scan(self.index.database)}


@pytest.fixture
def state(tmp_path: Path, index_place: Path | str) -> Iterator[tuple[EventLog, IndexStore]]:
    with open_log(tmp_path / "log.sqlite") as log, open_index(index_place) as index:
        yield log, index


def test_every_kind_of_change_is_in_the_feed_once(state: tuple[EventLog, IndexStore], tmp_path: Path) -> None:
    log, index = state
    reader = Reader(index)
    assert (reader.follow(), reader.cursor) == (0, 0)
    log.publish([Event(name, uri=f"/{name}", sha256=name) for name in "abcde"])
    first = promote(index, 1, "1-x")
    index.apply([row(name, first) for name in "abcde"], "vmp", 5)
    assert (reader.follow(), reader.same()) == (5, True)
    index.apply([row("a", first), row("a", first, 2), row("a", first, 3)], "again", 6)
    assert (reader.follow(), reader.same()) == (1, True)  # the newest state, once
    index.apply([row("b", first)], "third", 6)
    assert reader.follow() == 0  # an equal version changes nothing
    override(log, index, "c", "removed", "ana", "why", NOW)
    assert (reader.follow(), reader.copy["c"]["state"], reader.same()) == (1, "removed", True)
    second = promote(index, 2, "2-x", "1-x")  # the rollback withdraws all verdicts of the first pair
    assert (reader.follow(), reader.copy["a"]["state"], reader.same()) == (5, "withdrawn", True)
    index.apply([row("a", second, 3)], "fourth", 6)
    forget(tmp_path, log, index, ["d"], NOW)
    assert (reader.follow(), reader.copy["d"]["state"], reader.copy["d"]["value"]) == (2, "deleted", {})
    # a word that ends with the content, though the new content was ignored
    index.revise([SinkRow(0, "c", 2, second, FULL, "", "ignored", None, "r", "{}", NOW.isoformat(), "other")], "x")
    assert (reader.follow(), reader.copy["c"]["state"], reader.same()) == (1, "withdrawn", True)


def test_a_reader_that_missed_a_compacted_deletion_is_told(state: tuple[EventLog, IndexStore], tmp_path: Path) -> None:
    log, index = state
    log.publish([Event(name, uri=f"/{name}", sha256=name) for name in "ab"])
    index.apply([row(name, promote(index, 1, "1-x")) for name in "ab"], "vmp", 2)
    early, late = Reader(index), Reader(index)
    early.follow()
    forget(tmp_path, log, index, ["a"], NOW)
    late.follow()
    index.apply([], "vmp", 3)  # read by all
    made = compact(tmp_path, log, index, NOW + timedelta(days=9), timedelta(0), timedelta(days=8))
    assert made.tombstones == 1
    with pytest.raises(DataError, match=r"compacted away, cursor 2 is older; read the whole index again"):
        early.follow()
    assert late.follow() == 0
    assert (Reader(index).follow(), feed.newest(index.database)) == (1, late.cursor)
    with pytest.raises(DataError, match=r"cursor 99 is ahead of the feed, which ends at 3"):
        feed.read(index.database, 99, 1)
    log.publish([Event("a", uri="/a", sha256="a")])  # a new video of that name
    assert log.newest(["a"])["a"].source_version == 1
    index.apply([row("a", 1)], "fifth", 4)
    assert (late.follow(), set(late.copy)) == (1, {"a", "b"})


def test_no_change_is_lost_under_concurrent_writers(index_place: Path | str) -> None:
    """A reader follows while three writers write: what it has at the end is the index."""
    with open_index(index_place) as index:
        epoch = promote(index, 1, "1-x")

        def write(seed: int) -> None:
            rng = random.Random(seed)
            with open_index(index_place) as mine:
                for number in range(15):
                    rows = [row(f"v{rng.randrange(6)}", epoch, rng.randrange(1, 50)) for _ in range(3)]
                    mine.revise(rows, f"{seed} {number}")

        reader = Reader(index)
        with ThreadPoolExecutor(3) as pool:
            writing = [pool.submit(write, seed) for seed in range(3)]
            while not all(one.done() for one in writing):
                reader.follow()
            for one in writing:
                one.result()
        reader.follow()
        assert reader.same()
