"""Traffic, and workers that come and go, for the tests that kill or stop several workers of one state."""

from __future__ import annotations

import json
import multiprocessing.context
import random
import signal
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pandas as pd

from coefvq.vmp.epochs import Order, issued
from coefvq.vmp.index import IndexStore
from coefvq.vmp.log import EventLog
from coefvq.vmp.loop import CONSUMER
from coefvq.vmp.records import Event
from coefvq.vmp.state import open_state
from tests.reliability import vmp_soak_child as child
from tests.reliability.vmp_soak_child import BUSY, Job, Plan

EVENTS, VIDEOS = 20_000, 1_500


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
        job = replace(self.job, kind=kind, plan=plan, **more)
        process = self.context.Process(target=child.main, args=(job,))
        process.start()
        return process

    def _note(self, process: ForkServerProcess, plan: Plan | None) -> None:
        assert process.exitcode in (0, BUSY, -signal.SIGKILL), (process.exitcode, plan)
        if process.exitcode == -signal.SIGKILL:
            self.kills["any moment" if plan is None else plan.step] += 1
        self.busy += process.exitcode == BUSY


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


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
    contents = newest(traffic.events)
    for video_id, (event, views) in contents.items():
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
            state, answers = wanted(event, views, bundles)
            assert entry is not None
            assert (entry.state, entry.source_version, entry.epoch) == (state, event.source_version, head), video_id
            found = {issue: one["mllm_score"] for issue, one in entry.value["scores"].items()}
            assert found == answers, video_id
            assert video_id not in letters
            kinds[state] += 1
    assert index.database.query("SELECT count(*) FROM pending") == [(0,)]
    assert index.database.query("SELECT count(*) FROM entries")[0][0] <= len(contents)
    return kinds


def wanted(event: Event, views: int | None, bundles: Mapping[str, str]) -> tuple[str, dict[str, float | None]]:
    """State and MLLM scores that the pairs give a video which can be scored, computed without the platform."""
    answers: dict[str, float | None] = {}
    for issue in child.ISSUES:
        base = child.score("base", bundles[issue], event.video_id, event.title)
        shown = base >= 0.8 or (views is not None and views >= 1000)
        answers[issue] = child.score("mllm", bundles[issue], event.video_id, event.title) if shown else None
    positive = any(answer is not None and answer >= 0.5 for answer in answers.values())
    return "removed" if positive else "live", answers


def decisions(promotions: int, rollbacks: int, events: int) -> list[tuple[int, Order]]:
    """A record that changes one issue's pair at a time, evenly over the events; rollbacks come after promotions."""
    stack: list[dict[str, str]] = [dict.fromkeys(child.ISSUES, "1-a")]
    gone, number, record = set[str](), 1, list[tuple[int, Order]]()
    changes = promotions + rollbacks
    every = changes // rollbacks if rollbacks else changes + 1

    def decided(offset: int) -> tuple[int, Order]:
        models = {issue: f"models of {version}" for issue, version in stack[-1].items()}
        return offset, Order(number, dict(stack[-1]), models, "rules", frozenset(gone))

    record.append(decided(0))
    for change in range(1, changes + 1):
        number += 1
        if rollbacks and change % every == 0:
            before, after = stack.pop(), stack[-1]
            gone |= {f"{issue}={before[issue]}" for issue in child.ISSUES if before[issue] != after[issue]}
        else:
            issue = child.ISSUES[change % 2]
            stack.append({**stack[-1], issue: f"{number}-{issue[0]}"})
        record.append(decided(events * change // (changes + 1)))
    return record


def known_bundles(index: IndexStore) -> dict[int, str]:
    """Epoch → pairs."""
    return {item.epoch: item.bundles for item in issued(index.database)}


def newest(events: Iterable[Event]) -> dict[str, tuple[Event, int | None]]:
    """Per video its newest content and the highest view count that anybody saw."""
    found: dict[str, tuple[Event, int | None]] = {}
    for event in events:
        before, views = found.get(event.video_id, (event, None))
        counts = [count for count in (views, event.views) if count is not None]
        content = before if event.kind == "views" else event
        found[event.video_id] = replace(content, views=None), max(counts, default=None)
    return found
