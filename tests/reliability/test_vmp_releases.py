"""Two workers under 20 promotions and 10 rollbacks, one of them stopped before each fence and woken after it.

And a campaign over 10,000 rows that is killed ten times. On SQLite and PostgreSQL.
"""

from __future__ import annotations

import multiprocessing.context
import os
import random
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing.connection import wait
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from coefvq.vmp.campaigns import Campaigns
from coefvq.vmp.epochs import Order
from coefvq.vmp.records import Event
from coefvq.vmp.state import open_state
from tests.reliability import vmp_soak_child as child
from tests.reliability.vmp_crew import Crew, Traffic, check_index, decisions, known_bundles, lines
from tests.reliability.vmp_soak_child import Job, Plan, Record
from tests.vmp_world import NOW

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]  # beside other work

FLOW, PROMOTIONS, ROLLBACKS = 5_000, 20, 10


@dataclass(frozen=True)
class Releases:
    """What two workers wrote under a record of releases, and what one of them wrote in spite of a fence."""

    stopped: list[int]
    late: int
    diary: list[dict[str, Any]]


def release_and_stop(state: Path, crew: Crew, record: Record, fenced: bool = True) -> Releases:
    """One worker is stopped before each rollback, with judged rows or answers in its hands, and woken after."""
    diary = state.parent / "diary.jsonl"
    before = [order.withdrawn for _, order in record]
    rollbacks = tuple(order.decision for (_, order), gone in zip(record[1:], before, strict=False)
                      if order.withdrawn != gone)  # fmt: skip
    more = {"fenced": fenced, "diary": diary, "load_seconds": 0.02}
    stopped = crew.start(Plan(), "run", stop_before=rollbacks, **more)
    running = [stopped, crew.start(Plan(), "run", **more)]
    with open_state(state) as (_, index):
        while alive := [process.sentinel for process in running if process.is_alive()]:
            wait(alive, 0.02)
            if is_stopped(stopped.pid):
                last = [line["stopped"] for line in lines(diary) if "stopped" in line][-1]
                fences = index.database.query("SELECT max(decision) FROM deployments WHERE fence = 1")[0][0]
                if (fences or 0) >= last:
                    os.kill(stopped.pid or 0, signal.SIGCONT)
        sql = "SELECT count(*) FROM test_fences f JOIN effects e ON e.number > f.last AND e.epoch < f.epoch"
        late = index.database.query(sql)[0][0]
    assert [process.exitcode for process in running] == [0, 0]
    found = lines(diary)
    return Releases([line["stopped"] for line in found if "stopped" in line], late, found)


def is_stopped(pid: int | None) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


def gaps(diary: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Time from the last batch of a deployment to the first of the next, in median batches: median and largest."""
    swaps, steps = list[float](), list[float]()
    for worker in {line["worker"] for line in diary}:
        batches = [line for line in diary if line["worker"] == worker and ("epoch" in line or "stopped" in line)]
        for one, two in pairwise(batches):
            if "epoch" in one and "epoch" in two:
                (swaps if one["epoch"] != two["epoch"] else steps).append(two["at"] - one["at"])
    return median(swaps) / median(steps), max(swaps) / median(steps)


def test_releases_under_load_and_a_worker_that_slept_through_each_rollback(
    state: Path, workers: multiprocessing.context.ForkServerContext
) -> None:
    traffic, record = Traffic(random.Random(5)), decisions(PROMOTIONS, ROLLBACKS, FLOW)
    with open_state(state) as (log, _):
        traffic.publish(log, FLOW)
    crew = Crew(workers, Job(state, record), random.Random(3))
    found = release_and_stop(state, crew, record)
    with open_state(state) as (_, index):
        bundles = known_bundles(index)
        assert len(bundles) == 1 + PROMOTIONS + ROLLBACKS
        rows = index.database.query("SELECT epoch, bundle_version FROM effects WHERE bundle_version != ''")
        mixed = sum(not set(text.split(",")) <= set(bundles[epoch].split(",")) for epoch, text in rows)
        fences = index.database.query("SELECT count(*) FROM test_fences")[0][0]
        Campaigns(index.database).start(NOW)
    crew.finish()
    ready = Counter((line["worker"], line["ready"]) for line in found.diary if "ready" in line)
    with open_state(state) as (_, index):
        head = max(bundles)
        gone = [epoch for epoch, text in bundles.items() if record[-1][1].withdraws(text)]
        marks = ", ".join("?" * len(gone))
        served = index.database.query(
            f"SELECT count(*) FROM served WHERE state IN ('live', 'removed') AND epoch IN ({marks})",  # noqa: S608
            gone,
        )[0][0]
        kinds = check_index(index, traffic, head, record[-1][1].bundles)
    middle, largest = gaps(found.diary)
    print(f"{len(rows)} rows, {mixed} mixed; {len(found.stopped)} stops at {fences} fences, {found.late} late writes; "
          f"batches begun with a ready swap: {max(ready.values(), default=0)} at most; from the last batch to the "
          f"end of the next pair's first, in batches: median {middle:.2f}, largest {largest:.2f}; {served} rows of "
          f"withdrawn pairs after the campaign; {dict(kinds)}")  # fmt: skip
    assert (mixed, found.late, served) == (0, 0, 0)
    assert fences == ROLLBACKS
    # a decision may come while the worker waits for the lock: then it has nothing in its hands
    assert len(found.stopped) >= ROLLBACKS // 2
    assert max(ready.values(), default=0) <= 1


def test_without_a_fence_a_worker_that_slept_writes_late(
    state: Path, workers: multiprocessing.context.ForkServerContext
) -> None:
    record = decisions(4, 2, 1_600)
    with open_state(state) as (log, _):
        Traffic(random.Random(5)).publish(log, 1_600)
    found = release_and_stop(state, Crew(workers, Job(state, record), random.Random(3)), record, fenced=False)
    print(f"without a fence: {found.late} late writes")
    assert found.late > 0


@pytest.mark.parametrize("index_place", ["sqlite"], indirect=True)
def test_a_campaign_over_ten_thousand_rows_repeats_a_batch_per_kill_at_most(
    state: Path, workers: multiprocessing.context.ForkServerContext
) -> None:
    rows, kills, asked = 10_000, 10, state.parent / "asked.jsonl"
    first = dict.fromkeys(child.ISSUES, "1-a")
    second = {**first, "icd": "2-i"}
    orders = [Order(1, first, {"icd": "one"}), Order(2, second, {"icd": "two"}),
              Order(3, {**second, "icd": "3-i"}, {"icd": "two"})]  # fmt: skip

    def campaign(number: int) -> int:
        """Carry out a decision and its campaign, with kills if it asks models; how many videos were asked about."""
        asked.unlink(missing_ok=True)
        crew = Crew(workers, Job(state, [(0, order) for order in orders[:number]], asked=asked), random.Random(number))
        crew.finish()
        with open_state(state) as (_, index):
            assert Campaigns(index.database).start(NOW).total == rows
        plan = [Plan(step, 12) for step in ("answered", "UPDATE campaigns", "COMMIT", "BEGIN", "INSERT videos")]
        crew.work([*plan, *plan] if number == 2 else [], at_once=1)
        crew.finish()
        assert crew.kills.total() == (kills if number == 2 else 0)
        with open_state(state) as (_, index):
            last = Campaigns(index.database).last()
            assert last is not None
            assert (last.state, last.epoch) == ("done", number)
        return sum(line["asked"] for line in lines(asked))

    with open_state(state) as (log, _):
        log.publish([Event(f"v{number:05}", title=f"plain {number}") for number in range(rows)])
    Crew(workers, Job(state, [(0, orders[0])]), random.Random(1)).finish()
    repeated, policy_only = campaign(2) - rows, campaign(3)
    print(f"campaign over {rows} rows, {kills} kills: {repeated} videos asked about again "
          f"({child.BATCH_SIZE} a batch); policy only: {policy_only}")  # fmt: skip
    assert 0 <= repeated <= kills * child.BATCH_SIZE
    assert policy_only == 0
