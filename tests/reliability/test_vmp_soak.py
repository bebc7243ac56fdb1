"""Two workers over 20,000 events, releases and a campaign, killed at every kind of step: the index is the oracle's.

And two workers under 20 promotions and 10 rollbacks, one of them stopped before each fence and woken after it. Both on
SQLite and PostgreSQL. Each worker is a process of its own that ends itself by SIGKILL at a step that its plan names, so
the kill hits exactly there; some are killed from outside at any moment.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import pytest

from coefvq.vmp import retention
from coefvq.vmp.campaigns import Campaigns
from coefvq.vmp.index import IndexStore
from coefvq.vmp.log import EventLog, open_log
from coefvq.vmp.loop import CONSUMER
from coefvq.vmp.records import Event
from coefvq.vmp.state import open_state
from tests.old_vmp_state import as_version
from tests.reliability import vmp_soak_child as child
from tests.reliability.vmp_soak_child import BUSY, Job, Plan, Record
from tests.vmp_world import NOW

pytestmark = pytest.mark.long

EVENTS, VIDEOS, OLD = int(os.environ.get("SOAK", "20000")), 1_500, 1_000
#: kinds of steps of a migration, and of how many of them one is chosen; a server makes its newest tables at once
MIGRATION = {"sqlite": (("CREATE", 3), ("ALTER", 5), ("INSERT deployments", 1), ("INSERT videos", 1), ("DROP", 2),
                        ("COMMIT", 2), ("UPDATE entries", 1)),
             "postgres": (("CREATE", 3), ("CREATE", 20), ("CREATE", 9), ("INSERT coefvq_vmp_schema", 1),
                          ("COMMIT", 1))}  # fmt: skip
#: the steps of a stream in four parts, and of how many of them one is chosen: rare ones first, and half a dozen batches
STREAM = (
    (("INSERT deployments", 1), ("poll", 9), ("INSERT videos", 200), ("INSERT entries", 150), ("DELETE due", 6),
     ("INSERT pending", 40), ("COMMIT", 20)),
    (("UPDATE deployments", 1), ("judged", 6), ("INSERT effects", 200), ("BEGIN", 20), ("UPDATE pending", 6),
     ("INSERT dead_letters", 4), ("DELETE changes", 150)),
    (("INSERT test_fences", 1), ("applied", 6), ("INSERT due", 150), ("INSERT offsets", 6), ("DELETE pending", 40),
     ("answered", 4), ("INSERT budget", 9)),
    (("INSERT deployments", 1), ("DELETE dead_letters", 2), ("INSERT changes", 150), ("COMMIT", 30), ("BEGIN", 40),
     ("INSERT entries", 200), ("INSERT offsets", 9)),
)  # fmt: skip
CAMPAIGN = (("UPDATE campaigns", 6), ("INSERT entries", 60), ("COMMIT", 9), ("answered", 3), ("INSERT effects", 90),
            ("DELETE pending", 60), ("BEGIN", 12), ("UPDATE campaigns", 2))  # fmt: skip
COMPACTION = (("DELETE events", 200), ("INSERT cut", 1), ("DELETE effects", 1), ("COMMIT", 2), ("VACUUM", 1),
              ("BEGIN", 3))  # fmt: skip


@pytest.fixture
def workers() -> multiprocessing.context.ForkServerContext:
    """Makes processes that have the imports of a worker already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([child.__name__])
    return context


@pytest.fixture
def state(index_place: Path | str, tmp_path: Path) -> Path:
    """A folder of a state whose index is in either store."""
    folder = tmp_path / "vmp"
    folder.mkdir()
    if isinstance(index_place, str):
        (folder / "state.yaml").write_text(f"index: {index_place}\n")
    return folder


@dataclass
class Traffic:
    """Seeded events of few videos: contents, deletions, views, poison, and duplicates that the log must refuse."""

    rng: random.Random
    events: list[Event] = field(default_factory=list)
    refused: int = 0
    live: dict[str, Event] = field(default_factory=dict)

    def publish(self, log: EventLog, until: int, views: bool = True) -> None:
        """Publish up to ``until`` events; ``views`` off leaves out what schema 1 did not know."""
        while len(self.events) < until:
            wanted = [self._next(views) for _ in range(min(100, until - len(self.events)))]
            made = log.publish(wanted)
            self.refused += len(wanted) - len(made)
            self.events += made

    def _next(self, views: bool) -> Event:
        # videos come up one after another; each lives for a while
        video_id = f"v{max(0, len(self.events) * VIDEOS // EVENTS - self.rng.randrange(60)):04}"
        kind, before = self.rng.random(), self.live.get(video_id)
        if before is not None and kind < 0.05:
            return before  # the same once more
        if before is not None and kind < 0.12:
            del self.live[video_id]
            return Event(video_id, "delete")
        if before is not None and views and kind < 0.45:
            count = (before.views or 0) + self.rng.choice((1, 20, 20, 400))
            event = Event(video_id, uri=before.uri, title=before.title, views=count)
        else:
            word = self.rng.choices(("poison", "poison-ucc", "plain"), (2, 1, 97))[0]
            event = Event(video_id, uri=f"/{video_id}.mp4", title=f"{word} {self.rng.randrange(10**6)}",
                          views=self.rng.randrange(900) if views else None)  # fmt: skip
        self.live[video_id] = event
        return event


@dataclass
class Crew:
    """Two slots of workers; each slot takes the next plan when its process has ended."""

    context: multiprocessing.context.ForkServerContext
    job: Job
    rng: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    busy: int = 0

    def work(self, plans: Sequence[Plan | None], at_once: int = 2, kind: Any = "run") -> None:
        """Carry out the plans, None a kill at any moment, and go on until nothing is left to do."""
        waiting, running = list(plans), dict[ForkServerProcess, Plan | None]()
        while waiting or running:
            while waiting and len(running) < at_once:
                plan = waiting.pop(0)
                running[self.start(plan or Plan(), kind)] = plan
            timeout = self.rng.uniform(0.2, 1.5) if None in running.values() else None
            ended = wait([process.sentinel for process in running], timeout)
            for process, plan in list(running.items()):
                if not ended and plan is None:
                    process.kill()  # where it stands is not known
                elif process.sentinel not in ended:
                    continue
                process.join()
                del running[process]
                self._note(process, plan)

    def finish(self) -> None:
        """One worker that nobody kills."""
        process = self.start(Plan(), "run")
        process.join()
        assert process.exitcode == 0

    def start(self, plan: Plan, kind: Any, **more: Any) -> ForkServerProcess:
        job = Job(self.job.state, self.job.record, kind, plan, **more)
        process = self.context.Process(target=child.main, args=(job,))
        process.start()
        return process

    def _note(self, process: ForkServerProcess, plan: Plan | None) -> None:
        assert process.exitcode in (0, BUSY, -signal.SIGKILL), (process.exitcode, plan)
        if process.exitcode == -signal.SIGKILL:
            self.kills["any moment" if plan is None else plan.step] += 1
        self.busy += process.exitcode == BUSY


def plans(rng: random.Random, steps: Sequence[tuple[str, int]], anywhere: int = 0) -> list[Plan | None]:
    found: list[Plan | None] = [Plan(step, rng.randint(1, most)) for step, most in steps]
    found += [None] * anywhere
    rng.shuffle(found)
    return found


def reported(state: Path) -> tuple[Counter[tuple[str, int]], int]:
    """How often each consumer's event took effect, by the audit rows of index and archive; and doubles of campaigns."""
    with open_state(state) as (_, index):
        rows = index.database.query("SELECT consumer, offset, video_id, source_version, epoch, written FROM effects")
    for path in sorted((state / "audit").glob("*.parquet")):
        table = pd.read_parquet(path)
        rows += list(table[["consumer", "offset", "video_id", "source_version", "epoch", "written"]]
                     .itertuples(index=False, name=None))  # fmt: skip
    events = Counter((str(name), int(offset)) for name, offset, *_ in rows if name in (CONSUMER, "rows"))
    campaign = Counter(tuple(row[:5]) for row in rows if row[0] == "campaign" and row[5])
    return events, sum(count > 1 for count in campaign.values())


def check_index(index: IndexStore, traffic: Traffic, head: int, bundles: Mapping[str, str]) -> Counter[str]:
    """Compare with what the events say, video by video; how many there were of each kind."""
    letters, kinds = {letter.video_id for letter in index.dead_letters()}, Counter[str]()
    newest = child.newest(traffic.events)
    for video_id, (event, views) in newest.items():
        entry = index.get(video_id)
        known = index.known([video_id])[video_id]
        assert (known.seen_version, known.views) == (event.source_version, views), video_id
        if event.kind == "delete":
            assert entry is not None
            assert (entry.state, entry.source_version, video_id in letters) == ("deleted", event.source_version, False)
            kinds["deleted"] += 1
        elif event.title.startswith("poison"):
            assert video_id in letters
            kinds["poison"] += 1
        else:
            state, answers = child.wanted(event, views, bundles)
            assert entry is not None
            assert (entry.state, entry.source_version, entry.epoch) == (state, event.source_version, head), video_id
            found = {issue: one["mllm_score"] for issue, one in entry.value["scores"].items()}
            assert found == answers, video_id
            assert video_id not in letters
            kinds[state] += 1
    assert index.database.query("SELECT count(*) FROM pending") == [(0,)]
    assert index.database.query("SELECT count(*) FROM entries")[0][0] <= len(newest)
    return kinds


def test_kills_of_two_workers_leave_the_oracle_s_index(
    state: Path, workers: multiprocessing.context.ForkServerContext, index_place: Path | str
) -> None:
    rng, store = random.Random(3), "sqlite" if isinstance(index_place, Path) else "postgres"
    traffic, record = Traffic(random.Random(5)), child.decisions(6, 3, EVENTS)
    crew = Crew(workers, Job(state, record), rng)
    if store == "sqlite":
        with open_state(state) as (log, _):
            traffic.publish(log, OLD, views=False)
        crew.finish()
        as_version(state, 1)
    else:
        with open_log(state / "log.sqlite") as log:
            traffic.publish(log, OLD)
    crew.work(plans(rng, MIGRATION[store]), kind="migrate", at_once=1)
    for part, steps in enumerate(STREAM, start=1):
        with open_state(state) as (log, _):
            traffic.publish(log, EVENTS * part // len(STREAM))
        crew.work(plans(rng, steps[:1]) + plans(rng, steps[1:], anywhere=3))
        if part == 2:
            crew.work(plans(rng, COMPACTION[:3]), kind="compact", at_once=1)
    crew.finish()
    with open_state(state) as (_, index):
        assert index.committed(CONSUMER) == EVENTS
        started = Campaigns(index.database).start(NOW)
        assert started.total > 100
    crew.work(plans(rng, CAMPAIGN, anywhere=2))
    crew.finish()
    crew.work(plans(rng, COMPACTION), kind="compact", at_once=1)

    with open_state(state) as (log, index):
        last = Campaigns(index.database).last()
        assert last is not None
        assert last.state == "done"
        head, bundles = max(child.known_bundles(index).items())
        assert bundles == record[-1][1].bundle_text
        kinds = check_index(index, traffic, head, record[-1][1].bundles)
        now = child.datetime.now(child.UTC)
        done = retention.compact(state, log, index, now, child.timedelta(0), child.timedelta(days=36_500))
        assert check_index(index, traffic, head, record[-1][1].bundles) == kinds
    effects, doubled = reported(state)
    print(f"{store}: {crew.kills.total()} kills ({dict(sorted(crew.kills.items()))}), {crew.busy} busy, "
          f"{len(traffic.events)} events, {traffic.refused} duplicates refused, {dict(kinds)}, {done}")  # fmt: skip
    missing = [event.offset for event in traffic.events if effects[CONSUMER, event.offset] != 1]
    assert (missing, doubled) == ([], 0)
    assert crew.kills.total() >= 50
    assert set(kinds) == {"live", "removed", "deleted", "poison"}
    assert traffic.refused > 100


FLOW, PROMOTIONS, ROLLBACKS = 8_000, 20, 10


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


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def gaps(diary: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Time from the last batch of a deployment to the first of the next, in median batches: median and largest."""
    swaps, steps = list[float](), list[float]()
    for worker in {line["worker"] for line in diary}:
        batches = [line for line in diary if line["worker"] == worker and ("epoch" in line or "stopped" in line)]
        for one, two in zip(batches, batches[1:], strict=False):
            if "epoch" in one and "epoch" in two:
                (swaps if one["epoch"] != two["epoch"] else steps).append(two["at"] - one["at"])
    return median(swaps) / median(steps), max(swaps) / median(steps)


def test_releases_under_load_and_a_worker_that_slept_through_each_rollback(
    state: Path, workers: multiprocessing.context.ForkServerContext
) -> None:
    traffic, record = Traffic(random.Random(5)), child.decisions(PROMOTIONS, ROLLBACKS, FLOW)
    with open_state(state) as (log, _):
        traffic.publish(log, FLOW)
    crew = Crew(workers, Job(state, record), random.Random(3))
    found = release_and_stop(state, crew, record)
    with open_state(state) as (_, index):
        bundles = child.known_bundles(index)
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
            f"SELECT count(*) FROM served WHERE state IN ('live', 'removed') AND epoch IN ({marks})", gone  # noqa: S608
        )[0][0]
        kinds = check_index(index, traffic, head, record[-1][1].bundles)
    print(f"{len(rows)} rows, {mixed} mixed; {len(found.stopped)} stops at {fences} fences, {found.late} late writes; "
          f"batches begun with a ready swap: {max(ready.values(), default=0)} at most; gap of a swap in batches: "
          f"median {gaps(found.diary)[0]:.2f}, largest {gaps(found.diary)[1]:.2f}; {served} rows of withdrawn pairs after the "
          f"campaign; {dict(kinds)}")  # fmt: skip
    assert (mixed, found.late, served) == (0, 0, 0)
    assert fences == len(found.stopped) == ROLLBACKS
    assert max(ready.values(), default=0) <= 1


def test_without_a_fence_a_worker_that_slept_writes_late(
    state: Path, workers: multiprocessing.context.ForkServerContext
) -> None:
    record = child.decisions(4, 2, 1_600)
    with open_state(state) as (log, _):
        Traffic(random.Random(5)).publish(log, 1_600)
    found = release_and_stop(state, Crew(workers, Job(state, record), random.Random(3)), record, fenced=False)
    print(f"without a fence: {found.late} late writes")
    assert found.late > 0


def test_the_harness_sees_a_sink_that_commits_first(
    state: Path, workers: multiprocessing.context.ForkServerContext
) -> None:
    rng, traffic = random.Random(7), Traffic(random.Random(5))
    with open_state(state) as (log, _):
        traffic.publish(log, 1_000)
    crew = Crew(workers, Job(state, child.decisions(0, 0, 1_000)), rng)
    crew.work([Plan("between", 3), Plan("between", 2)], kind="commit first")
    crew.work([Plan()], kind="commit first")
    effects, _ = reported(state)
    lost = sum(effects["rows", event.offset] == 0 for event in traffic.events)
    print(f"commit first: {crew.kills.total()} kills lost {lost} of {len(traffic.events)} events")
    assert crew.kills["between"] == 2
    assert lost >= child.BATCH_SIZE
