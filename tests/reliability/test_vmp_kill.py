"""kill -9 at chosen and random steps of the VMP loop: nothing is lost, nothing takes effect twice."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import pytest

from coefvq.vmp import loop
from coefvq.vmp.index import open_index
from coefvq.vmp.log import open_log
from coefvq.vmp.records import Event
from tests.reliability import vmp_child
from tests.vmp_world import fixed

pytestmark = pytest.mark.long

EVENTS = 400
STEPS = (
    "polled", "BEGIN", "INSERT INTO videos", "INSERT INTO entries", "INSERT INTO effects", "INSERT INTO offsets",
     "COMMIT", "reported",
)  # fmt: skip
Child = subprocess.Popen[str]


def publish(state: Path) -> None:
    """Publish a seeded mix of new, changed, deleted and returning videos, some twice in a batch."""
    rng = random.Random(5)
    with open_log(state / "log.sqlite") as log:
        events: list[Event] = []
        while len(events) < EVENTS:
            # five ids close together: later batches meet several versions of one video
            video_id = f"v{len(events) // 12 + rng.randrange(5)}"
            known = {event.video_id for event in events}
            if video_id in known and rng.random() < 0.2:
                event = Event(video_id, "delete")
            else:
                event = Event(video_id, title=f"title {rng.randrange(1000)}")
            events += log.publish([event])
        assert log.last_offset() == EVENTS


@contextmanager
def child(state: Path, order: str = "one transaction", mode: str = "once") -> Iterator[Child]:
    command = [sys.executable, "-m", vmp_child.__name__, str(state), order, mode]
    with subprocess.Popen(command, text=True, cwd=Path(__file__).parents[2],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def advance(process: Child, step: str, times: int = 1) -> bool:
    """Let the child run until it reports ``step`` for the ``times``-th time; False if it ended before."""
    assert process.stdout is not None
    for line in process.stdout:
        times -= line.strip() == step
        if times == 0:
            return True
        go_on(process)
    return False


def go_on(process: Child) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def kill_at(state: Path, step: str, times: int, racing: bool, order: str = "one transaction") -> None:
    """SIGKILL the child while it holds at a step or, ``racing``, just as it goes on."""
    with child(state, order) as process:
        assert advance(process, step, times), f"the child ended before {step} number {times}"
        if racing:
            go_on(process)
        process.kill()
    assert process.returncode == -signal.SIGKILL


def finish(state: Path, order: str = "one transaction") -> None:
    with child(state, order) as process:
        assert not advance(process, "never")
    assert process.returncode == 0


def lost_and_doubled(state: Path) -> tuple[int, int]:
    """Compare the events of the log with the audit rows of the index."""
    with open_log(state / "log.sqlite") as log, open_index(state / "index.sqlite") as index:
        expected = [(event.video_id, event.source_version) for event in log.poll(0, EVENTS)]
        effects = Counter(index.database.query("SELECT video_id, source_version FROM effects"))
    assert set(effects) <= set(expected)
    return sum(key not in effects for key in expected), sum(n > 1 for n in effects.values())


def contents(state: Path) -> dict[str, list[tuple[object, ...]]]:
    """Everything the Sink stores except the wall-clock times."""
    queries = {
        "entries": "SELECT * FROM entries ORDER BY video_id",
        "dead_letters": "SELECT video_id, offset, source_version, uri, reason FROM dead_letters ORDER BY video_id",
        "effects": "SELECT consumer, offset, video_id, source_version, bundle_version, outcome, rule, written, error "
        "FROM effects ORDER BY number",
        "offsets": "SELECT * FROM offsets",
    }
    with open_index(state / "index.sqlite", create=False) as index:
        return {name: index.database.query(sql) for name, sql in queries.items()}


def uninterrupted(state: Path) -> dict[str, list[tuple[object, ...]]]:
    publish(state)
    with open_log(state / "log.sqlite") as log, open_index(state / "index.sqlite") as index:
        loop.run(log, fixed(vmp_child.scorer), index, stop=threading.Event(), on_batch=lambda report: None,
                 once=True, batch_size=vmp_child.BATCH_SIZE, clock=vmp_child.frozen)  # fmt: skip
    return contents(state)


def test_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    rng = random.Random(11)
    plan = list(product(STEPS, (False, True)))
    rng.shuffle(plan)
    state = tmp_path / "killed"
    publish(state)
    for step, racing in plan:
        kill_at(state, step, rng.randrange(1, 4), racing)
    finish(state)
    assert lost_and_doubled(state) == (0, 0)

    expected = uninterrupted(tmp_path / "whole")
    assert contents(state) == expected
    # the run was worth comparing: every kind of entry, and failures
    assert {row[2] for row in expected["entries"]} == {"live", "removed", "deleted"}
    assert expected["dead_letters"]


@pytest.mark.parametrize(("order", "lost", "doubled"), [("offset first", 5, 0), ("rows first", 0, 5)])
def test_the_harness_sees_what_two_transactions_break(tmp_path: Path, order: str, lost: int, doubled: int) -> None:
    publish(tmp_path)
    rng = random.Random(13)
    for _ in range(5):
        kill_at(tmp_path, "between", rng.randrange(1, 6), racing=False, order=order)
    finish(tmp_path, order)
    batches = (lost * vmp_child.BATCH_SIZE, doubled * vmp_child.BATCH_SIZE)
    assert lost_and_doubled(tmp_path) == batches


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_batch_in_hand_and_exits_0(tmp_path: Path, number: signal.Signals) -> None:
    publish(tmp_path)
    with child(tmp_path) as process:
        assert advance(process, "INSERT INTO effects")
        process.send_signal(number)
        go_on(process)
        assert not advance(process, "polled")
        assert process.wait(60) == 0
    with open_index(tmp_path / "index.sqlite") as index:
        assert index.committed(loop.CONSUMER) == vmp_child.BATCH_SIZE
        assert index.database.query("SELECT count(*) FROM effects") == [(vmp_child.BATCH_SIZE,)]


def test_a_signal_ends_an_idle_run_at_once(tmp_path: Path) -> None:
    publish(tmp_path)
    with child(tmp_path, mode="forever") as process:
        assert advance(process, "drained")
        go_on(process)  # into a wait of an hour
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    with open_index(tmp_path / "index.sqlite") as index:
        assert index.committed(loop.CONSUMER) == EVENTS


def test_events_of_the_mix_are_versions_of_few_videos(tmp_path: Path) -> None:
    publish(tmp_path)
    with open_log(tmp_path / "log.sqlite") as log:
        batch = [event.video_id for event in log.poll(80, vmp_child.BATCH_SIZE)]
        assert len(set(batch)) < len(batch)
        assert {event.kind for event in log.poll(0, EVENTS)} == {"upsert", "delete"}
