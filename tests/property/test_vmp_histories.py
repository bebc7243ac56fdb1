"""Seeded histories of promotions, rollbacks, late writes, outages, campaigns and overrides on the real store.

After each, the index must hold the newest content's full verdict by the head deployment, and a person's word on top.
The guard before epochs gets the same rows and is the control: it must fail in many.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from coefvq.vmp.database import Database
from coefvq.vmp.epochs import FencedError
from coefvq.vmp.index import IndexStore, open_index
from coefvq.vmp.log import content_digest
from coefvq.vmp.overrides import override
from coefvq.vmp.records import DEGRADED, ERROR, FULL, Event, Rank, SinkRow, State
from tests.old_guard import OldIndex
from tests.vmp_world import NOW, promote

TABLES = ("deployments", "entries", "videos", "effects", "dead_letters", "due", "overrides")


@pytest.fixture
def index(index_place: Path | str) -> Iterator[IndexStore]:
    with open_index(index_place) as opened:
        if isinstance(index_place, Path):
            opened.database.connection.execute("PRAGMA synchronous = OFF")  # order is tested here, not power cuts
        yield opened


class Published:
    """The log as far as an override asks: every version of a video."""

    def version(self, video_id: str, source_version: int) -> Event:
        return Event(video_id, title=f"content {source_version}", source_version=source_version)


@dataclass
class History:
    """One random history of one video under issue icd; pairs are numbers, a pair's verdict follows from its number."""

    rng: random.Random
    index: IndexStore
    old: OldIndex = field(default_factory=OldIndex)
    epochs: list[tuple[int, int]] = field(default_factory=list)
    stack: list[int] = field(default_factory=list)
    gone: set[int] = field(default_factory=set)
    newest: int = 1
    pinned: tuple[int, State] | None = None
    seen: int = 0

    def decide(self) -> None:
        """A release decision that a worker picks up: promote the next pair, or roll back."""
        if len(self.stack) > 1 and self.rng.random() < 0.45:
            self.gone.add(self.stack.pop())
        else:
            self.stack.append(max([0, *self.stack, *self.gone]) + 1)
        bundles = [f"{pair}-x" for pair in self.gone]
        epoch = promote(self.index, len(self.epochs) + 1, f"{self.stack[-1]}-x", *bundles)
        self.epochs.append((epoch, self.stack[-1]))

    def write(self, at: tuple[int, int], content: int, rank: Rank) -> None:
        """A row of a worker that runs the deployment ``at``, however late; the Sink may refuse it."""
        epoch, pair = at
        error = "ucc: undecodable" if rank == ERROR else None
        event = Published().version("v", content)
        row = SinkRow(content, "v", content, epoch, rank, f"icd={pair}-x", "live", state_of(content, pair), "r",
                      "{}", NOW.isoformat(), content_digest(event), error=error, degraded=rank == DEGRADED)  # fmt: skip
        self.old.apply(row)
        try:
            self.index.revise([row], "worker")
        except FencedError:
            return
        self.seen = max(self.seen, content)

    def late(self) -> None:
        """Any deployment that was, any content that was, full or not."""
        rank = self.rng.choices((ERROR, DEGRADED, FULL), (15, 25, 60))[0]
        self.write(self.rng.choice(self.epochs), self.rng.randint(1, self.newest), rank)

    def pin(self) -> None:
        """A person's word about what the index holds now."""
        if self.index.get("v") is not None:
            word: State = self.rng.choice(("live", "removed"))
            override(Published(), self.index, "v", word, "ana", "because", NOW)  # type: ignore[arg-type]
            self.pinned = (self.seen, word)

    def run(self) -> None:
        self.decide()
        steps = [self.decide] * self.rng.randint(0, 5) + [self.late] * self.rng.randint(2, 8)
        steps += [self.update] * self.rng.randint(0, 2) + [self.pin] * (self.rng.random() < 0.2)
        self.rng.shuffle(steps)
        for step in steps:
            step()
        # the campaign: newest content, head deployment, the MLLM answers; and slow workers still write after it
        self.write(self.epochs[-1], self.newest, FULL)
        for _ in range(self.rng.randint(0, 3)):
            self.late()

    def update(self) -> None:
        self.newest += 1

    def wrong(self) -> str | None:
        """What did not converge in the real index."""
        entry, (epoch, pair) = self.index.get("v"), self.epochs[-1]
        assert entry is not None
        if entry.source_version != self.newest:
            return "old content"
        if (entry.epoch, entry.bundle_version) != (epoch, f"icd={pair}-x"):
            return "a withdrawn or superseded pair stays"
        if entry.rank != FULL:
            return "a degraded verdict stays"
        pinned = self.pinned is not None and self.pinned[0] == self.newest
        wanted = self.pinned[1] if pinned and self.pinned else state_of(self.newest, pair)
        return None if entry.state == wanted else "a person's word"

    def wrong_before(self) -> str | None:
        """What did not converge under the old guard, which knows no person's word."""
        row = self.old.entries["v"][1]
        if row.source_version != self.newest:
            return "old content"
        if row.bundle_version != f"icd={self.epochs[-1][1]}-x":
            return "a withdrawn or superseded pair stays"
        return None if row.rank == FULL else "a degraded verdict stays"


def state_of(content: int, pair: int) -> State:
    return "removed" if (content * 3 + pair) % 2 else "live"


def simulate(index: IndexStore, seeds: range) -> tuple[Counter[str], Counter[str]]:
    """What went wrong in how many histories: now, and under the old guard."""
    now, before = Counter[str](), Counter[str]()
    for seed in seeds:
        clear(index.database)
        history = History(random.Random(seed), index)
        history.run()
        now.update(filter(None, [history.wrong()]))
        before.update(filter(None, [history.wrong_before()]))
    return now, before


def clear(database: Database) -> None:
    with database.transaction() as connection:
        for table in TABLES:
            connection.execute(f"DELETE FROM {table}")  # noqa: S608


def test_histories_converge_and_the_old_guard_does_not(index: IndexStore, index_place: Path | str) -> None:
    histories = 400 if isinstance(index_place, Path) else 60  # the server costs a round trip per statement
    now, before = simulate(index, range(histories))
    assert now == {}
    assert before.total() >= 0.1 * histories, before


@pytest.mark.long
def test_twenty_thousand_histories(index: IndexStore) -> None:
    now, before = simulate(index, range(20_000))
    print(f"20000 histories: not converged {dict(now)}; by the old guard {dict(before)}")
    assert now == {}
    assert before.total() >= 0.2 * 20_000, before
