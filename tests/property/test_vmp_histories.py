"""Seeded histories of promotions, rollbacks, late writes, outages, campaigns and overrides on the real store.

After each, the index must hold the newest content's full verdict by the head deployment, and a person's word on top.
The guard before epochs gets the same rows and is the control: it must fail in many.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from coefvq.vmp.database import Database
from coefvq.vmp.epochs import FencedError
from coefvq.vmp.index import IndexStore, open_index
from coefvq.vmp.log_rows import content_digest
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
    """One random history of one video under issue icd; the same rows go to the guard before epochs."""

    video_id: str
    old: OldIndex = field(default_factory=OldIndex)
    newest: int = 1
    pinned: tuple[int, State] | None = None
    seen: int = 0

    def row(self, epoch: int, pair: int, content: int, rank: Rank) -> SinkRow:
        """A verdict; it follows from content and pair."""
        error = "ucc: undecodable" if rank == ERROR else None
        digest = content_digest(Published().version(self.video_id, content))
        return SinkRow(content, self.video_id, content, epoch, rank, f"icd={pair}-x", "live", state_of(content, pair),
                       "r", "{}", NOW.isoformat(), digest, error=error, degraded=rank == DEGRADED)  # fmt: skip

    def wrong(self, index: IndexStore, epoch: int, pair: int) -> str | None:
        """What did not converge in the real index."""
        entry = index.get(self.video_id)
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

    def wrong_before(self, pair: int) -> str | None:
        """What did not converge under the old guard, which knows no person's word."""
        row = self.old.entries[self.video_id][1]
        if row.source_version != self.newest:
            return "old content"
        if row.bundle_version != f"icd={pair}-x":
            return "a withdrawn or superseded pair stays"
        return None if row.rank == FULL else "a degraded verdict stays"


@dataclass
class Releases:
    """One random line of releases, with a history of each of its videos; pairs are numbers.

    A worker's batch holds a row of some of the videos, each of its own content and rank: so the videos' histories
    differ, and a batch costs one transaction as in the platform.
    """

    rng: random.Random
    index: IndexStore
    videos: list[History]
    epochs: list[tuple[int, int]] = field(default_factory=list)
    stack: list[int] = field(default_factory=list)
    gone: set[int] = field(default_factory=set)

    def decide(self) -> None:
        """A release decision that a worker picks up: promote the next pair, or roll back."""
        if len(self.stack) > 1 and self.rng.random() < 0.45:
            self.gone.add(self.stack.pop())
        else:
            self.stack.append(max([0, *self.stack, *self.gone]) + 1)
        bundles = [f"{pair}-x" for pair in self.gone]
        epoch = promote(self.index, len(self.epochs) + 1, f"{self.stack[-1]}-x", *bundles)
        self.epochs.append((epoch, self.stack[-1]))

    def write(self, at: tuple[int, int], batch: list[tuple[History, int, Rank]]) -> None:
        """A batch of a worker that runs the deployment ``at``, however late; the Sink may refuse it."""
        rows = [video.row(*at, content, rank) for video, content, rank in batch]
        for (video, _, _), row in zip(batch, rows, strict=True):
            video.old.apply(row)
        try:
            self.index.revise(rows, "worker")
        except FencedError:
            return
        for video, content, _ in batch:
            video.seen = max(video.seen, content)

    def late(self) -> None:
        """Any deployment that was; of each video any content that was, full or not."""
        chosen = [video for video in self.videos if len(self.videos) == 1 or self.rng.random() < 0.85]
        batch = [(video, self.rng.randint(1, video.newest), self.rng.choices((ERROR, DEGRADED, FULL), (15, 25, 60))[0])
                 for video in chosen]  # fmt: skip
        if batch:
            self.write(self.rng.choice(self.epochs), batch)

    def pin(self) -> None:
        """A person's word about what the index holds now of a video."""
        video = self.rng.choice(self.videos)
        if self.index.get(video.video_id) is not None:
            word: State = self.rng.choice(("live", "removed"))
            override(Published(), self.index, video.video_id, word, "ana", "because", NOW)  # type: ignore[arg-type]
            video.pinned = (video.seen, word)

    def update(self) -> None:
        for video in self.videos:
            video.newest += len(self.videos) == 1 or self.rng.random() < 0.7

    def run(self) -> None:
        self.decide()
        steps = [self.decide] * self.rng.randint(0, 5) + [self.late] * self.rng.randint(3, 9)
        pins = sum(self.rng.random() < 0.2 for _ in self.videos)
        steps += [self.update] * self.rng.randint(0, 2) + [self.pin] * pins
        self.rng.shuffle(steps)
        for step in steps:
            step()
        # the campaign: newest content, head deployment, the MLLM answers; and slow workers still write after it
        self.write(self.epochs[-1], [(video, video.newest, FULL) for video in self.videos])
        for _ in range(self.rng.randint(0, 3)):
            self.late()


def state_of(content: int, pair: int) -> State:
    return "removed" if (content * 3 + pair) % 2 else "live"


def simulate(index: IndexStore, histories: int, together: int = 1) -> tuple[Counter[str], Counter[str]]:
    """What went wrong in how many histories, now and under the old guard; so many of them ``together`` in one index."""
    now, before = Counter[str](), Counter[str]()
    for seed in range(0, histories, together):
        clear(index.database)
        videos = [History(f"v{number}") for number in range(together)]
        line = Releases(random.Random(seed), index, videos)
        line.run()
        epoch, pair = line.epochs[-1]
        now.update(filter(None, (video.wrong(index, epoch, pair) for video in videos)))
        before.update(filter(None, (video.wrong_before(pair) for video in videos)))
    return now, before


def clear(database: Database) -> None:
    with database.transaction() as connection:
        for table in TABLES:
            connection.execute(f"DELETE FROM {table}")  # noqa: S608


@pytest.mark.parametrize("together", [1, 20])
def test_histories_converge_and_the_old_guard_does_not(
    index: IndexStore, index_place: Path | str, together: int
) -> None:
    # the server costs a round trip per statement
    histories = (200 if isinstance(index_place, Path) else 20) * (2 if together > 1 else 1)
    now, before = simulate(index, histories, together)
    assert now == {}
    # the server's few histories are enough for one
    assert before.total() >= (0.1 * histories if isinstance(index_place, Path) else 1), before


@pytest.mark.long
@pytest.mark.timeout(3600)  # beside other work
def test_twenty_thousand_histories(index: IndexStore, index_place: Path | str) -> None:
    """1,000 lines of releases with 20 videos each."""
    began, own = time.monotonic(), time.process_time()
    now, before = simulate(index, 20_000, together=20)
    print(f"{'SQLite' if isinstance(index_place, Path) else 'PostgreSQL'}: 20000 histories in "
          f"{time.monotonic() - began:.0f} s, {time.process_time() - own:.0f} s of this process's CPU: not converged "
          f"{dict(now)}; by the old guard {dict(before)}")  # fmt: skip
    assert now == {}
    assert before.total() >= 0.2 * 20_000, before
