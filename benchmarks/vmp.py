"""What the platform costs beside a bare loop, and what its queue, its campaigns and its log cost.

    python benchmarks/vmp.py                                   all parts on SQLite, some minutes
    python benchmarks/vmp.py throughput pending --store postgres
    python benchmarks/vmp.py compaction --events 1000000

Each part prints one JSON line; the exit code is 1 if one misses its target. ``throughput``: a pair that answers at
once, against a loop that reads the same log and upserts one row per event in the same store; both take turns, so what
else runs on the machine hits both. ``kafka``: the same on a topic, against a plain consumer, one
after the other. ``burst``: ten times the usual rate on a topic, and when the lag is back. ``pending``: the same with
the MLLM's queue and without. ``latency``: seconds from publication to verdict, and to the MLLM's. ``memory``: peak
memory of a run over 10 times the events. ``campaign``: how long live videos wait on a counted clock while a campaign
walks 10,000 rows. ``compaction``: many events of 1,000 videos.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import vmp_kafka
from benchmarks.vmp_burst import burst
from benchmarks.vmp_loops import BATCH, CHUNK, filled, null, queued, ratios, run, run_bare, stores, turns
from coefvq.records import ScoredVideo, VideoInput
from coefvq.vmp import loop, retention
from coefvq.vmp.campaigns import Campaigns
from coefvq.vmp.escalations import MLLM
from coefvq.vmp.index import open_index
from coefvq.vmp.log import EventLog, open_log
from coefvq.vmp.records import Event
from coefvq.vmp.revisions import Reviser
from coefvq.vmp.state import open_state
from tests.vmp_world import NOW, FixedDeployment, deployment, promote, work

#: how often each loop of ``kafka`` drains the topic
ROUNDS = 5
SHOWN = 0.09  # share of videos that the paper's pair for UCC shows to the MLLM


def throughput(kind: str, events: int) -> dict[str, Any]:
    """The platform against the bare loop."""
    with stores(kind) as where, ExitStack() as stack:
        filled(where.folder / "log.sqlite", events)
        log = stack.enter_context(open_log(where.folder / "log.sqlite"))
        index = stack.enter_context(open_index(where.place("platform")))
        database = stack.enter_context(where.bare())
        used = deployment(null)
        platform, bare = turns(events, [
            lambda after, last: run(log, used, index, last, queue=False),
            lambda after, last: run_bare(log, database, after, last),
        ])  # fmt: skip
    wall, own = ratios(bare, platform)
    return {"events_per_s": round(events / sum(wall for wall, _ in platform)), "share_of_bare_loop": wall,
            "share_by_cpu": own, "target": 0.5, "pass": wall >= 0.5}  # fmt: skip


def kafka_throughput(kind: str, events: int) -> dict[str, Any]:
    """The platform on a topic against a plain consumer of it, one after the other, in changing order."""
    spent: dict[str, list[tuple[float, float]]] = {"platform": [], "bare": []}
    loops = {"platform": vmp_kafka.platform_alone, "bare": vmp_kafka.bare_alone}
    with stores(kind) as where, vmp_kafka.filled_topic(where.folder, events) as (broker, source):
        for number in range(ROUNDS):
            group = source.model_copy(update={"group": f"round{number}"})
            for name in loops if number % 2 else reversed(loops):
                spent[name].append(loops[name](group, where, f"{name}{number}", events))
    wall, own = (median(above[at] / below[at] for above, below in zip(spent["bare"], spent["platform"], strict=True))
                 for at in (0, 1))  # fmt: skip
    per_s = [round((events - CHUNK) / median(wall for wall, _ in spent[name])) for name in loops]
    return {"broker": broker, "events_per_s": per_s[0], "bare_events_per_s": per_s[1],
            "share_of_bare_loop": round(wall, 3), "share_by_cpu": round(own, 3), "target": 0.5,
            "pass": wall >= 0.5}  # fmt: skip


def pending(kind: str, events: int) -> dict[str, Any]:
    """Two stages against one: with an empty queue, and with the paper's share of tasks served inline."""
    with stores(kind) as where, ExitStack() as stack:
        filled(where.folder / "log.sqlite", events)
        log = stack.enter_context(open_log(where.folder / "log.sqlite"))
        made = [deployment(queued(0.0)), deployment(queued(0.0)), deployment(queued(SHOWN))]
        indexes = [stack.enter_context(open_index(where.place(f"index{number}"))) for number in range(3)]

        def part(number: int) -> Callable[[int, int], None]:
            return lambda after, last: run(log, made[number], indexes[number], last, queue=number > 0)

        without, idle, busy = turns(events, [part(number) for number in range(3)])
        answers = indexes[2].database.query("SELECT count(*) FROM effects WHERE consumer = ?", (MLLM,))[0][0]
    wall, own = ratios(idle, without)
    return {"empty_queue": wall, "empty_queue_by_cpu": own, "with_tasks": ratios(busy, without)[0],
            "tasks_share": round(answers / events, 3), "target": 1.05, "pass": wall <= 1.05}  # fmt: skip


def latency(kind: str, events: int) -> dict[str, Any]:
    """One publisher sends videos one by one; `coefvq vmp run` as it is by default, with its queue."""
    sent: dict[int, float] = {}
    decided: list[float] = []
    stop = threading.Event()
    with stores(kind) as where, open_log(where.folder / "log.sqlite"), open_index(where.place("index")) as index:

        def publish() -> None:
            with open_log(where.folder / "log.sqlite") as log:
                for number in range(events):
                    (event,) = log.publish([Event(f"v{number}", title=f"title {number}")])
                    sent[event.offset] = time.perf_counter()
                    stop.wait(0.02)

        def note(report: Any) -> None:
            now = time.perf_counter()
            decided.extend(now - sent[offset] for offset in range(len(decided) + 1, report.offset + 1))
            if len(decided) == events:
                stop.set()

        publisher = threading.Thread(target=publish)
        publisher.start()
        with open_log(where.folder / "log.sqlite") as log:
            loop.run(log, FixedDeployment(deployment(queued(SHOWN))), index, stop=stop, on_batch=note,
                     batch_size=BATCH, work=work(log, index), clock=lambda: NOW)  # fmt: skip
        publisher.join()
    p50, p99 = np.quantile(decided, (0.5, 0.99))
    return {"p50_s": round(float(p50), 3), "p99_s": round(float(p99), 3), "poll_interval_s": 1.0, "pass": True}


def memory(kind: str, events: int) -> dict[str, Any]:
    """Peak memory of a process that runs over some events, and over ten times as many of the same videos."""
    peaks = []
    for count in (events // 10, events):
        command = [sys.executable, "-W", "ignore", __file__, "memory", "--child", "--events", str(count)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        peaks.append(int(done.stdout.splitlines()[-1]))
    return {"peak_mb": [round(peak / 1e6) for peak in peaks], "ratio": round(peaks[1] / peaks[0], 3), "target": 1.1,
            "pass": peaks[1] <= 1.1 * peaks[0]}  # fmt: skip


def memory_child(events: int) -> None:
    with stores("sqlite") as where:
        filled(where.folder / "log.sqlite", events, videos=events // 2)
        with open_log(where.folder / "log.sqlite") as log, open_index(where.place("index")) as index:
            run(log, deployment(queued(SHOWN)), index, events, queue=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))


@dataclass
class Counted:
    """A clock that only scoring and waiting move, and live videos that arrive by it."""

    log: EventLog
    seconds: float = 0.0
    arrivals: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    first: int = 0

    def score(self, videos: Sequence[VideoInput]) -> list[ScoredVideo]:
        self.seconds += 0.01 * len(videos)
        return null(videos)

    def poll(self, after: int, max_n: int) -> list[Event]:
        arrived = sum(at <= self.seconds for at in self.arrivals)
        return self.log.poll(after, min(max_n, self.first + arrived - after)) if self.first + arrived > after else []

    def note(self, report: Any) -> None:
        done = report.offset - self.first
        self.waits += [self.seconds - at for at in self.arrivals[len(self.waits) : done]]

    def is_set(self) -> bool:
        return len(self.waits) == len(self.arrivals)

    def wait(self, timeout: float) -> bool:
        self.seconds += timeout
        return self.is_set()


def live(rows: int, arrivals: int, load: float, spare_every: int | None) -> float:
    """p99 of the wait of live videos, 10 ms to score one; ``spare_every``: how often a campaign gets a batch."""
    rng, at = random.Random(1), 0.0  # noqa: S311
    before = loop.SPARE_EVERY
    with (
        stores("sqlite") as where,
        open_log(where.folder / "log.sqlite") as log,
        open_index(where.place("index")) as index,
    ):
        index.database.connection.execute("PRAGMA synchronous = OFF")  # the clock is counted
        clock = Counted(log, first=rows)
        log.publish_all(Event(f"v{number}", title=f"title {number}") for number in range(rows))
        old = deployment(null, promote(index, 1, "1-ab"), models={"icd": "one"})
        run(log, old, index, rows, queue=False)
        log.publish_all(Event(f"live{number}") for number in range(arrivals))
        for _ in range(arrivals):
            at += rng.expovariate(load / 0.01)
            clock.arrivals.append(at)
        epoch = promote(index, 2, "2-cd", models="two")
        if spare_every is not None:
            Campaigns(index.database).start(NOW)
            loop.SPARE_EVERY = spare_every
        used = deployment(clock.score, epoch, bundle="2-cd", models={"icd": "two"})
        loop.run(clock, FixedDeployment(used), index, stop=clock, on_batch=clock.note, batch_size=BATCH,
                 work=(Reviser(log, index, lambda: NOW),), clock=lambda: NOW)  # fmt: skip
        loop.SPARE_EVERY = before
    return float(np.quantile(clock.waits, 0.99))


def campaign(kind: str, events: int) -> dict[str, Any]:
    """Live videos at 80 % of what the base model can do: alone, beside a campaign, beside one as often as live."""
    rows, arrivals = events // 2, events // 4
    alone, beside, control = (live(rows, arrivals, 0.8, every) for every in (None, loop.SPARE_EVERY, 1))
    return {"rows": rows, "live": arrivals, "p99_s": [round(alone, 3), round(beside, 3)],
            "ratio": round(beside / alone, 3), "control_ratio": round(control / alone, 3), "target": 1.2,
            "pass": beside <= 1.2 * alone < control}  # fmt: skip


def compaction(kind: str, events: int) -> dict[str, Any]:
    """Events of 1,000 videos, then a compaction, against a state that holds the newest event of each alone."""
    with tempfile.TemporaryDirectory() as name:
        states = [Path(name) / "long", Path(name) / "fresh"]
        for folder, count in zip(states, (events, 1_000), strict=True):
            folder.mkdir()
            filled(folder / "log.sqlite", count, videos=1_000)
            with open_state(folder) as (log, index):
                index.database.connection.execute("PRAGMA synchronous = OFF")  # bytes are counted, not seconds
                run(log, deployment(null), index, count, queue=False)
        with open_state(states[0]) as (log, index):
            asked = "SELECT video_id, state, source_version, epoch, value FROM served ORDER BY video_id"
            before = index.database.query(asked)
            done = retention.compact(states[0], log, index, datetime.now(UTC) + timedelta(seconds=1), timedelta(0),
                                     timedelta(days=36_500))  # fmt: skip
            same = index.database.query(asked) == before
        with open_state(states[1]) as (log, index):
            live_rows = retention.compact(states[1], log, index, datetime.now(UTC), timedelta(days=1),
                                          timedelta(days=1)).bytes_after  # fmt: skip
        archive = sum(path.stat().st_size for path in (states[0] / "audit").glob("*"))
    kept = done.bytes_after - archive
    ratio = kept / live_rows
    return {"events": events, "mb_before": round(done.bytes_before / 1e6, 1), "mb_after": round(kept / 1e6, 2),
            "archive_mb": round(archive / 1e6, 1), "ratio_to_live_rows": round(ratio, 3), "answers_unchanged": same,
            "target": 2.0, "pass": same and ratio <= 2.0}  # fmt: skip


PARTS: dict[str, Callable[[str, int], dict[str, Any]]] = {
    "throughput": throughput,
    "kafka": kafka_throughput,
    "burst": burst,
    "pending": pending,
    "latency": latency,
    "memory": memory,
    "campaign": campaign,
    "compaction": compaction,
}
EVENTS = {"throughput": 20_000, "kafka": 20_000, "burst": 20_000, "pending": 20_000,
          "latency": 1_000, "memory": 50_000, "campaign": 20_000,
          "compaction": 1_000_000}  # fmt: skip


def main() -> int:
    """Run the parts; one line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=list(PARTS))
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--events", type=int, help="how many; by default what the target asks")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        memory_child(given.events)
        return 0
    passed = True
    for name in given.parts:
        found = PARTS[name](given.store, given.events or EVENTS[name])
        print(json.dumps({"name": f"vmp {name}", "store": given.store, **found}), flush=True)
        passed &= found["pass"]
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
