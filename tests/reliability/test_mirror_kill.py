"""kill -9 of mirrors, and of their Redis, while an index changes: what readers find at the end is the index.

The control stores where it stands before the rows, in two transactions: it has to lose.
"""

from __future__ import annotations

import multiprocessing.context
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event as Flag

import pytest

from coefvq.vmp.index import IndexStore, open_index
from coefvq.vmp.mirror.following import Step, follow
from coefvq.vmp.mirror.redis_copy import Place, RedisCopy
from coefvq.vmp.mirror.rows import Row
from tests.redis_index import DURABLE, PREFIX, as_read, deletion, of_index, row, world
from tests.vmp_world import promote

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

KILLS = 30
PAGE = 5


@dataclass
class Stepped:
    """A copy that reports each change before and after it, and waits for leave; ``apart`` makes it the control."""

    copy: RedisCopy
    wire: Connection
    apart: bool

    def step(self, name: str) -> None:
        self.wire.send(name)
        self.wire.recv()

    def apply(self, expected: Place | None, rows: Sequence[Row], place: Place) -> int | None:
        self.step("read")
        if self.apart:
            written = self.copy.apply(expected, [], place)
            self.step("moved")
            return self.copy.apply(place, rows, place) if rows else written
        written = self.copy.apply(expected, rows, place)
        self.step("written")
        return written

    def __getattr__(self, name: str) -> object:
        return getattr(self.copy, name)


def mirror(place: Path, url: str, apart: bool, wire: Connection) -> None:
    """The child: it follows until it is killed."""
    copy = Stepped(RedisCopy(url, PREFIX, durable=True), wire, apart)

    def on_step(done: Step) -> None:
        if done.idle:
            copy.step("idle")

    with open_index(place) as index:
        follow(index.database, copy, stop=Flag(), once=False, anew=False, interval=0.01, say=lambda line: None,
               on_step=on_step, page=PAGE)  # fmt: skip


def change(index: IndexStore, rng: random.Random, epoch: int, first: int) -> None:
    """Verdicts of versions in and out of order, some of them deletions."""
    for _ in range(12):
        chosen = [(f"v{number}", epoch, rng.randrange(first, first + 40)) for number in rng.sample(range(60), 5)]
        index.revise([(deletion if rng.random() < 0.2 else row)(*one) for one in chosen], "x")


def kill_in_the_middle(
    workers: multiprocessing.context.ForkServerContext, rng: random.Random, place: Path, url: str, apart: bool
) -> str:
    """Start a mirror, let it go some steps, and kill it at one, or as it goes on from it; the step's name."""
    mine, theirs = workers.Pipe()
    child = workers.Process(target=mirror, args=(place, url, apart, theirs))
    child.start()
    theirs.close()
    steps = rng.randrange(1, 9)
    while (name := mine.recv()) != "idle" and (steps > 1 or (apart and name != "moved")):
        steps -= 1
        mine.send(None)
    if not apart and rng.random() < 0.5:
        mine.send(None)
    child.kill()
    child.join()
    mine.close()
    return str(name)


def finish(index: IndexStore, copy: RedisCopy) -> None:
    follow(index.database, copy, stop=Flag(), once=True, anew=False, interval=0.01, say=lambda line: None,
           on_step=lambda step: None, page=PAGE)  # fmt: skip


def test_kills_of_mirror_and_server_lose_nothing(
    workers: multiprocessing.context.ForkServerContext, tmp_path: Path
) -> None:
    rng, place = random.Random(23), tmp_path / "index.sqlite"
    with open_index(place) as index, world(*DURABLE, durable=True) as made:
        epoch, killed = promote(index, 1, "1-x"), Counter[str]()
        for number in range(KILLS):
            change(index, rng, epoch, 1 + 10 * number)
            if number % 7 == 3:  # a rollback: all read otherwise
                epoch = promote(index, number + 2, f"{epoch + 1}-x", f"{epoch}-x")
            killed[kill_in_the_middle(workers, rng, place, made.url, apart=False)] += 1
            if number % 5 == 4:
                made.restart()
        promote(index, KILLS + 2, f"{epoch + 1}-x", f"{epoch}-x")
        finish(index, made.copy)
        assert as_read(made.rows()) == of_index(index)
        states = {fields["state"] for fields in made.rows().values()}
        assert states == {"deleted", "withdrawn"}
        assert killed["read"] + killed["written"] >= 20
        print(f"{dict(killed)} kills of mirrors, {KILLS // 5} of the server, {len(made.rows())} videos: equal")


def test_the_harness_sees_what_a_place_before_its_rows_loses(
    workers: multiprocessing.context.ForkServerContext, tmp_path: Path
) -> None:
    rng, place = random.Random(24), tmp_path / "index.sqlite"
    with open_index(place) as index, world(*DURABLE, durable=True) as made:
        epoch = promote(index, 1, "1-x")
        finish(index, made.copy)
        for number in range(5):
            change(index, rng, epoch, 1 + 40 * number)
            assert kill_in_the_middle(workers, rng, place, made.url, apart=True) == "moved"
        finish(index, made.copy)
        expected, found = of_index(index), as_read(made.rows())
    lost = [name for name, entry in expected.items() if found.get(name) != entry]
    print(f"{len(lost)} of {len(expected)} videos differ")
    assert lost
