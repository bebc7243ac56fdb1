"""Workers of one state over releases, for tests that kill or stop several of them at once (SQLite and PostgreSQL).

A worker follows a decision record that moves with the committed offset. Its plan names a kind of step and how many of
them pass before the process sends itself a signal: SIGKILL, or SIGSTOP. The scores follow from pair, id and title, so
the index that must come out can be computed without the platform.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from coefvq.errors import CoefVQError
from coefvq.inference.decisions import Answers
from coefvq.inference.stages import error_row, first_stage
from coefvq.records import ScoredVideo, VideoInput
from coefvq.vmp import effects, epochs, loop, postgres, retention
from coefvq.vmp.database import Connection
from coefvq.vmp.deployment import Deployment, SecondStage
from coefvq.vmp.epochs import Order
from coefvq.vmp.follow import Follower, Parts
from coefvq.vmp.index import IndexStore
from coefvq.vmp.log import EventLog
from coefvq.vmp.records import BatchReport, Event, SinkRow
from coefvq.vmp.redecide import redecider
from coefvq.vmp.state import open_state
from tests.vmp_world import NOW, POLICY, by_rules, work

ISSUES = ("icd", "ucc")
POLICIES = {
    issue: POLICY.model_copy(update={"issue": issue, "base_threshold": 0.8, "views_trigger": 1000}) for issue in ISSUES
}
BATCH_SIZE = 32
#: exit code of a compaction that met a reader: it may be run again
BUSY = 3
#: offset from which an order is what the record says
Record = Sequence[tuple[int, Order]]


@dataclass(frozen=True)
class Plan:
    """At the ``times``-th ``step`` the process sends itself ``number``; without a step never."""

    step: str = ""
    times: int = 1
    number: int = signal.SIGKILL


@dataclass
class Steps:
    """Counts the steps of this process."""

    plan: Plan
    passed: int = 0

    def __call__(self, name: str) -> None:
        if name == self.plan.step:
            self.passed += 1
            if self.passed == self.plan.times:
                os.kill(os.getpid(), self.plan.number)

    def statement(self, sql: str) -> None:
        """A statement that changes something, before it runs."""
        words = sql.split()
        if words[0] in ("BEGIN", "COMMIT", "CREATE", "ALTER", "DROP", "VACUUM"):
            self(words[0])
        elif words[0] in ("INSERT", "DELETE", "UPDATE"):
            place = {"INSERT": "INTO", "DELETE": "FROM", "UPDATE": "UPDATE"}[words[0]]
            self(f"{words[0]} {words[words.index(place) + 1]}")

    def listen(self) -> None:
        """Hear of the statements of all connections that this process opens from now on."""
        connect = sqlite3.connect

        def traced(*place: Any, **options: Any) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(*place, **options)
            connection.set_trace_callback(self.statement)
            return connection

        def heard(run: Callable[..., Any]) -> Callable[..., Any]:
            def heard_run(connection: Any, sql: str, *parameters: Any) -> Any:
                self.statement(sql)
                return run(connection, sql, *parameters)

            return heard_run

        sqlite3.connect = traced  # type: ignore[assignment]
        for name in ("execute", "executemany"):
            setattr(postgres._Translated, name, heard(getattr(postgres._Translated, name)))


def score(kind: str, bundle: str, video_id: str, title: str) -> float:
    """A score in (0, 1) by hash."""
    return (hashlib.sha256(f"{kind} {bundle} {video_id} {title}".encode()).digest()[0] + 0.5) / 256


def poisoned(issue: str, title: str) -> bool:
    """Whether nobody can score this content for an issue: the first word names what is spoilt."""
    return title.split()[0] in ("poison", f"poison-{issue}")


@dataclass(frozen=True)
class Pairs:
    """The pairs of one release; ``asked`` hears of each video that a model looks at, ``step`` of each answer."""

    bundles: Mapping[str, str]
    asked: Callable[[Sequence[VideoInput]], None] = lambda videos: None
    step: Callable[[str], None] = lambda name: None

    def base(self, videos: Sequence[VideoInput]) -> list[ScoredVideo]:
        """The first stage."""
        self.asked(videos)
        return [row for issue in ISSUES for row in self._base(issue, videos)]

    def _base(self, issue: str, videos: Sequence[VideoInput]) -> list[ScoredVideo]:
        bundle, ids = self.bundles[issue], [video.video_id for video in videos]
        scores = np.array([score("base", bundle, video.video_id, video.title) for video in videos])
        views = np.array([np.nan if video.views is None else video.views for video in videos], np.float64)
        rows = first_stage(POLICIES[issue], bundle, ids, scores, views, np.zeros(len(ids), bool), None)
        return [
            error_row(video.video_id, issue, bundle, "undecodable") if poisoned(issue, video.title) else row
            for video, row in zip(videos, rows, strict=True)
        ]

    def ask(self, wanted: Mapping[str, Sequence[VideoInput]]) -> dict[str, Answers]:
        """The second stage."""
        made = {
            issue: Answers(np.array([score("mllm", self.bundles[issue], v.video_id, v.title) for v in videos]), {})
            for issue, videos in wanted.items()
        }
        self.step("answered")
        return made

    def deployment(self, order: Order, epoch: int) -> Deployment:
        """What the loop takes."""
        second = SecondStage(POLICIES, order.bundles, self.ask)
        again = redecider(POLICIES, order.bundles)
        return Deployment(epoch, self.base, by_rules(), order.models, again, second)


@dataclass(frozen=True)
class SteppedLog:
    """The log, which delivers the last events before the offset once more; ``poll`` comes right after a swap."""

    log: EventLog
    step: Callable[[str], None]
    swapped: Callable[[], None] = lambda: None

    def poll(self, after: int, max_n: int) -> list[Event]:
        self.step("poll")
        self.swapped()
        events = self.log.poll(max(0, after - 3), max_n)
        return events if events and events[-1].offset > after else []


@dataclass(frozen=True)
class SteppedIndex:
    """The Sink, which reports a judged batch before it is stored, and after."""

    index: Any
    step: Callable[[str], None]
    diary: Callable[..., None] = lambda **facts: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.index, name)

    def apply(self, rows: Sequence[SinkRow], consumer: str, offset: int) -> BatchReport:
        self.step("judged")
        report: BatchReport = self.index.apply(rows, consumer, offset)
        self.step("applied")
        self.diary(epoch=rows[0].epoch)
        return report


@dataclass(frozen=True)
class CommitFirst:
    """Test-only: a Sink that moves the offset before it stores the rows. The harness must see it lose some."""

    index: IndexStore
    step: Callable[[str], None]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.index, name)

    def apply(self, rows: Sequence[SinkRow], consumer: str, offset: int) -> BatchReport:
        fresh = [row for row in rows if row.offset > self.index.committed(consumer)]
        self.index.apply((), consumer, offset)
        self.step("between")
        return self.index.revise(fresh, "rows")


@dataclass(frozen=True)
class Job:
    """What a worker is to do.

    It stops before the decisions ``stop_before``. ``fenced`` off takes the fence away. ``diary`` and ``asked`` are
    files for what it did, and for how many videos the base model was asked about.
    """

    state: Path
    record: Record
    kind: Literal["run", "compact", "migrate", "commit first"] = "run"
    plan: Plan = field(default_factory=Plan)
    stop_before: tuple[int, ...] = ()
    fenced: bool = True
    load_seconds: float = 0.0
    diary: Path | None = None
    asked: Path | None = None


def main(job: Job) -> None:
    """The process's life; see ``Job``."""
    step = Steps(job.plan)
    step.listen()
    _note_fences()
    if not job.fenced:
        effects.check_fence = lambda fence, epoch: None  # type: ignore[attr-defined]
    try:
        {"run": _run, "commit first": _run, "compact": _compact, "migrate": _migrate}[job.kind](job, step)
    except CoefVQError as error:
        print(f"{job.kind}: {error}", file=sys.stderr, flush=True)
        sys.exit(BUSY)


def _migrate(job: Job, step: Steps) -> None:
    with open_state(job.state):
        pass


def _compact(job: Job, step: Steps) -> None:
    with open_state(job.state) as (log, index):
        now = datetime.now(UTC)
        retention.compact(job.state, log, index, now, timedelta(0), timedelta(days=36_500))


def _run(job: Job, step: Steps) -> None:
    with open_state(job.state) as (log, index):
        stopping = _Stopping(job, step)
        parts = Parts(
            order=lambda: stopping.look(order_at(job.record, index)),
            load=partial(_load, job, stopping),
            issue=partial(epochs.issue, index.database),
        )
        store = CommitFirst(index, step) if job.kind == "commit first" else index
        sink = SteppedIndex(store, stopping.step, partial(note, job.diary))
        with Follower(parts, threading.Event(), 0.0) as follower:
            source = SteppedLog(log, step, partial(_note_ready, job.diary, follower))
            loop.run(source, follower, sink, stop=threading.Event(), on_batch=lambda report: None,
                     batch_size=BATCH_SIZE, once=True, work=work(log, index), clock=lambda: NOW)  # fmt: skip


def _note_ready(diary: Path | None, follower: Follower) -> None:
    """A batch begins although the next deployment is loaded: it became ready since the loop asked for one."""
    loading = follower._loading
    if diary is not None and loading is not None and loading.future.done():
        note(diary, ready=loading.order.decision)


@dataclass
class _Stopping:
    """Stops the process once before each of some decisions, with work of the deployment before in its hands."""

    job: Job
    steps: Steps
    decision: int = 0
    stopped: set[int] = field(default_factory=set)

    def look(self, order: Order) -> Order:
        self.decision = order.decision
        return order

    def step(self, name: str) -> None:
        self.steps(name)
        after = self.decision + 1
        wanted = "answered" if after % 2 else "judged"
        if name == wanted and after in self.job.stop_before and after not in self.stopped:
            self.stopped.add(after)
            note(self.job.diary, stopped=after, at_step=name)
            os.kill(os.getpid(), signal.SIGSTOP)


def _load(job: Job, stopping: _Stopping, order: Order) -> Callable[[int], Deployment]:
    threading.Event().wait(job.load_seconds)  # a load takes its time; nothing waits for it
    pairs = Pairs(order.bundles, lambda videos: note(job.asked, asked=len(videos)), stopping.step)
    return partial(pairs.deployment, order)


def order_at(record: Record, index: IndexStore) -> Order:
    """What the record says when the index has read so far; no decision before the one below it was carried out."""
    committed = index.committed(loop.CONSUMER)
    head = index.database.query("SELECT coalesce(max(decision), 0) FROM deployments")[0][0]
    return [order for start, order in record if start <= committed][: head + 1][-1]


def note(diary: Path | None, **facts: object) -> None:
    """One line of what this worker did."""
    if diary is not None:
        with diary.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"at": time.monotonic(), "worker": os.getpid(), **facts}) + "\n")


def _note_fences() -> None:
    """Keep, with each fence, the number of the last audit row before it, in the fence's own transaction."""
    withdraw = epochs._withdraw

    def noted(connection: Connection, order: Order) -> bool:
        fence = withdraw(connection, order)
        if fence:
            connection.execute("CREATE TABLE IF NOT EXISTS test_fences (epoch BIGINT, last BIGINT)")
            connection.execute("INSERT INTO test_fences SELECT (SELECT max(epoch) + 1 FROM deployments), "
                               "(SELECT coalesce(max(number), 0) FROM effects)")  # fmt: skip
        return fence

    epochs._withdraw = noted
