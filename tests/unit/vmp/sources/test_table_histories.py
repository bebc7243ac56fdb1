"""Seeded histories of transactions that commit out of order, readers that die, two workers: nothing is passed over.

The table is in memory with a clock of its own, and its rows are not checked; all else is real. Control: ``settle``
shorter than the longest transaction.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from coefvq.data.locations import root_at
from coefvq.vmp.configuration import TableSource
from coefvq.vmp.records import Event, Known
from coefvq.vmp.sources import table as module
from coefvq.vmp.sources.batches import partition_and_offset
from coefvq.vmp.sources.messages import Headers, Reading
from coefvq.vmp.sources.table import TableStream
from coefvq.vmp.sources.table_pages import Cells, Page, Row

LONGEST = 20


class Unchecked(Reading):
    """Events without a look at files."""

    def event(self, key: bytes | None, value: bytes | None, headers: Headers, place: int) -> Event:
        fields = json.loads(value or b"")
        return Event(fields["video_id"], source_version=fields["source_version"])


@dataclass
class World:
    """Writers, with a stamp and a later commit each, and what the index holds."""

    rng: random.Random
    now: float = 0.0
    #: commit time, stamp, id, version
    writes: list[tuple[float, int, str, int]] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)
    effects: list[tuple[str, int]] = field(default_factory=list)
    stored: tuple[int, str] = (0, "")

    def write(self) -> None:
        name = f"v{self.rng.randrange(30)}"
        version = 1 + max((one[3] for one in self.writes if one[2] == name), default=0)
        # writers of one row wait for each other
        free = max((one[0] for one in self.writes if one[2] == name), default=0.0)
        if free <= self.now:
            self.writes.append((self.now + self.rng.choice([0, 0, 1, 5, LONGEST]), int(self.now), name, version))

    def rows(self) -> list[Row]:
        newest: dict[str, tuple[float, int, str, int]] = {}
        for one in self.writes:
            if one[0] <= self.now and one[3] > newest.get(one[2], (0.0, 0, "", 0))[3]:
                newest[one[2]] = one
        cells = [
            {"updated_at": stamp, "video_id": name, "uri": "a.mp4", "version": version}
            for _, stamp, name, version in newest.values()
        ]
        return sorted((Row((one["updated_at"], one["video_id"]), one["updated_at"], one) for one in cells),
                      key=lambda row: row.place)  # fmt: skip

    # what a Table offers
    name = what = "table:memory"

    def page(self, after: Cells, size: int) -> Page:
        return Page([row for row in self.rows() if not after or row.place > after][:size], self.now)

    def close(self) -> None: ...

    def known(self, names: Iterable[str]) -> dict[str, Known]:
        return {name: Known(self.seen[name]) for name in names if name in self.seen}

    def reader(self, settle: float) -> TableStream:
        source = TableSource(kind="table", url="sqlite://", root=Path(), table="t", version="r", updated_at="u",
                             settle=settle)  # fmt: skip
        return TableStream(source, Unchecked(root_at(Path())), lambda: self.stored, self.known, lambda one: False,
                           stop=threading.Event(), clock=lambda: self.now)  # fmt: skip

    def step(self, reader: TableStream, other: TableStream | None, dies: bool = False) -> None:
        """One batch, as the inbox stores it; ``dies``: the effect is stored, the reader never hears.

        While the batch is scored, rows are written, and the ``other`` reader may be faster.
        """
        batch = reader.take(self.rng.randrange(1, 6))
        if batch is None:
            return
        if other is not None and self.rng.random() < 0.4:
            self.now += self.rng.choice([1, 7, 40])
            self.write()
            self.step(other, None)
        span = batch.spans[0]
        first = span.first_new(self.stored[0])
        if first < span.end:
            for event in batch.events:
                if partition_and_offset(event.offset)[1] >= first:
                    self.seen[event.video_id] = max(self.seen.get(event.video_id, 0), event.source_version)
                    self.effects.append((event.video_id, event.source_version))
            self.stored = (span.end, span.mark or "")
        if not dies:
            reader.settle()


def missing(seed: int, settle: float, monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, int]]:
    """Rows that no reader ever gave, after all have settled."""
    world = World(random.Random(seed))
    monkeypatch.setattr(module, "Table", lambda source: world)
    readers = [world.reader(settle), world.reader(settle)]
    for _ in range(120):
        world.now += world.rng.choice([0, 0, 1, 3])
        world.write()
        number = world.rng.randrange(2)
        dies = world.rng.random() < 0.1
        world.step(readers[number], readers[1 - number], dies)
        if dies:
            readers[number] = world.reader(settle)
    for _ in range(30):  # nobody writes any more
        world.now += settle + LONGEST
        world.step(readers[world.rng.randrange(2)], None)
    assert len(world.effects) == len(set(world.effects))
    return {(row.cells["video_id"], row.cells["version"]) for row in world.rows()} - set(world.seen.items())


def test_nothing_is_passed_over_and_nothing_comes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(12):
        assert missing(seed, LONGEST, monkeypatch) == set(), seed


@pytest.mark.parametrize("settle", [0.0, 4.0])
def test_a_shorter_settle_than_the_longest_transaction_loses(settle: float, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sum(bool(missing(seed, settle, monkeypatch)) for seed in range(6)) > 1
