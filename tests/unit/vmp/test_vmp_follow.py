"""Live pick-up: the next pair is loaded beside the running one and takes over between two batches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from coefvq.errors import ModelError, RegistryError
from coefvq.vmp import loop
from coefvq.vmp.deployment import Deployment
from coefvq.vmp.epochs import FencedError, Order, issue
from coefvq.vmp.follow import Follower, Parts
from coefvq.vmp.index import IndexStore, open_index
from coefvq.vmp.log import EventLog, open_log
from coefvq.vmp.records import Event
from tests.vmp_world import NOW, Pair, deployment

FIRST = Order(1, {"icd": "1-ab"})
SECOND = Order(2, {"icd": "2-cd"})
BACK = Order(3, {"icd": "1-ab"}, withdrawn=frozenset({"icd=2-cd"}))


@dataclass
class World:
    """A decision record, a loader that may be held up or fail, and what was said."""

    index: IndexStore
    order: Order | Exception = FIRST
    failure: Exception | None = None
    gate: threading.Event = field(default_factory=threading.Event)
    loaded: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def read(self) -> Order:
        if isinstance(self.order, Exception):
            raise self.order
        return self.order

    def load(self, order: Order) -> Callable[[int], Deployment]:
        assert self.gate.wait(60)
        if self.failure is not None:
            raise self.failure
        self.loaded.append(order.bundle_text)
        pair = Pair(bundle=order.bundles["icd"])
        return lambda epoch: deployment(pair, epoch, bundle=order.bundles["icd"])

    def parts(self) -> Parts:
        return Parts(self.read, self.load, lambda order: issue(self.index.database, order), self.said.append)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_index(tmp_path / "index.sqlite") as index:
        made = World(index)
        made.gate.set()
        yield made


@pytest.fixture
def follower(world: World) -> Iterator[Follower]:
    with Follower(world.parts(), threading.Event(), 1.0, monotonic=lambda: world.seconds) as made:
        yield made
        world.gate.set()


def settle(follower: Follower, world: World, seconds: float = 1.0) -> Deployment:
    """One look later, once the loader is done."""
    world.seconds += seconds
    follower.current()
    if (loading := follower._loading) is not None:
        loading.future.exception(60)
    return follower.current()


def test_the_old_pair_decides_until_the_next_is_loaded(world: World, follower: Follower) -> None:
    first = follower.current()
    world.order = SECOND
    assert follower.current() is first  # the record is not read for every batch
    world.gate.clear()
    world.seconds = 1.0
    assert follower.current() is first  # loading
    assert follower.current() is first
    world.gate.set()
    second = settle(follower, world, 0.0)
    assert (first.epoch, second.epoch) == (1, 2)
    assert world.said == ["now deciding with icd=2-cd (epoch 2)"]
    assert settle(follower, world) is second
    assert world.loaded == ["icd=1-ab", "icd=2-cd"]


@pytest.mark.parametrize("broken", ["load", "record"])
def test_a_failure_keeps_the_old_and_says_so_once(world: World, follower: Follower, broken: str) -> None:
    first = follower.current()
    if broken == "load":
        world.order, world.failure = SECOND, ModelError("weights are gone")
    else:
        world.order = RegistryError("no answer")
    for _ in range(3):
        assert settle(follower, world, 20.0) is first
    (line,) = world.said
    assert ("weights are gone" if broken == "load" else "no answer") in line
    assert line.endswith("icd=1-ab goes on")
    assert world.index.models().keys() == {1}  # what does not load gets no epoch
    world.order, world.failure = SECOND, None
    assert settle(follower, world, 20.0).epoch == 2


def test_a_rollback_fences_before_it_loads(world: World, follower: Follower, tmp_path: Path) -> None:
    """No batch of the withdrawn pair is stored from the look on; events wait until the pair returned to is there."""
    world.order = SECOND
    assert settle(follower, world).epoch == 2
    world.order, world.failure = BACK, ModelError("not yet")
    looks: list[float] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            looks.append(world.seconds)
            world.seconds += 20.0
            if len(looks) == 3:
                world.failure = None
            return super().wait(0.01)

    follower._stop = Stop()
    with open_log(tmp_path / "log.sqlite") as log:
        log.publish([Event(name) for name in "abc"])
        world.seconds += 1.0
        drain(log, follower, world.index)
    assert len(looks) >= 3
    rows = world.index.database.query("SELECT DISTINCT epoch, bundle_version FROM effects")
    assert rows == [(3, "icd=1-ab")]
    assert any("not yet" in line for line in world.said)


def test_a_worker_that_slept_through_a_rollback_takes_the_next_pair(
    world: World, follower: Follower, tmp_path: Path
) -> None:
    """It learns of it from the Sink alone: its own next look is far away."""
    world.order = SECOND
    assert settle(follower, world).epoch == 2
    issue(world.index.database, BACK)  # another worker's
    world.order = BACK
    with open_log(tmp_path / "log.sqlite") as log:
        log.publish([Event("a")])
        drain(log, follower, world.index)
    assert world.index.database.query("SELECT epoch, bundle_version FROM effects") == [(3, "icd=1-ab")]


def test_a_run_that_does_not_wait_ends_with_the_refusal(world: World, tmp_path: Path) -> None:
    world.order = SECOND
    stop = threading.Event()
    with (
        Follower(world.parts(), stop, 1.0, patient=False, monotonic=lambda: world.seconds) as follower,
        open_log(tmp_path / "log.sqlite") as log,
    ):
        log.publish([Event("a")])
        issue(world.index.database, BACK)
        world.order, world.failure = BACK, ModelError("weights are gone")
        with pytest.raises(FencedError, match="epoch 1 was withdrawn"):
            drain(log, follower, world.index)
    assert world.index.get("a") is None


def test_under_many_decisions_no_row_mixes_pairs(world: World, tmp_path: Path) -> None:
    """20 promotions and 10 rollbacks while events flow: each row bears its epoch's pair, and epochs only rise."""
    plan = decisions()
    world.order = next(plan)
    with (
        open_log(tmp_path / "log.sqlite") as log,
        Follower(world.parts(), threading.Event(), 1.0, monotonic=lambda: world.seconds) as follower,
    ):
        log.publish([Event(f"v{number}") for number in range(200)])

        def between(_: object) -> None:
            world.seconds += 1.0
            world.order = next(plan, world.order)
            if (loading := follower._loading) is not None:
                loading.future.exception(60)

        drain(log, follower, world.index, between, batch_size=4)
        pairs = dict(world.index.database.query("SELECT epoch, bundles FROM deployments"))
        rows = world.index.database.query("SELECT number, epoch, bundle_version FROM effects ORDER BY number")
    assert len(rows) == 200
    assert {bundle for _, _, bundle in rows} <= set(pairs.values())
    assert all(pairs[epoch] == bundle for _, epoch, bundle in rows)
    epochs = [epoch for _, epoch, _ in rows]
    assert epochs == sorted(epochs)
    assert len(set(epochs)) > 10


def decisions() -> Iterator[Order]:
    """promote, promote, roll back, ten times over."""
    stack, gone, number = ["1-a"], set[str](), 1
    yield Order(number, {"icd": stack[-1]})
    for step in range(30):
        number += 1
        if step % 3 == 2:
            gone.add(f"icd={stack.pop()}")
        else:
            stack.append(f"{number}-a")
        yield Order(number, {"icd": stack[-1]}, withdrawn=frozenset(gone))


def drain(
    log: EventLog,
    follower: Follower,
    index: IndexStore,
    on_batch: Callable[[object], None] = lambda report: None,
    batch_size: int = 8,
) -> None:
    loop.run(log, follower, index, stop=threading.Event(), on_batch=on_batch, batch_size=batch_size, once=True,
             clock=lambda: NOW)  # fmt: skip
