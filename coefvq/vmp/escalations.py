"""The second stage: the MLLM's tasks, served from the queue (docs/vmp.md, "Two stages").

`coefvq vmp run` serves them after each batch; `coefvq vmp mllm` serves nothing else. While the MLLM is down the tasks
stay: their videos get the verdict that the policy's ``mllm_down`` gives, one batch is tried after 1, 2, 4, ... 60 s,
and nobody's time runs out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from coefvq.inference.pairs import GROUP
from coefvq.vmp import budget, pending
from coefvq.vmp.cases import (
    Case,
    Cases,
    answered_row,
    ask,
    expired_row,
    silent_row,
    sort_cases,
    with_draw,
    with_features,
)
from coefvq.vmp.database import Connection
from coefvq.vmp.deployment import Deployment, decided
from coefvq.vmp.features.values import HeldError
from coefvq.vmp.index import IndexStore
from coefvq.vmp.leases import owner
from coefvq.vmp.pending import Pending
from coefvq.vmp.records import AUDIT, LIVE, BatchReport, SinkRow, Task
from coefvq.vmp.retriever import retrieve
from coefvq.vmp.revisions import Contents, ignored_at
from coefvq.vmp.rows import How

#: who wrote an audit row: an answer, a stand-in while the MLLM was down, the end of a task's time, a new base score
MLLM, OUTAGE, EXPIRED, BASE = "mllm", "outage", "expired", "base"
#: while the MLLM is down, one batch is tried after so many seconds, then after twice as many, up to the second number
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 1.0, 60.0


class Escalations:
    """Serves the queue of an index, in batches; ``counts`` says how many videos were answered, or given up."""

    def __init__(
        self,
        contents: Contents,
        index: IndexStore,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._contents, self._index, self._now, self._monotonic = contents, index, now, monotonic
        self._pending = Pending(index.database, owner())
        self.counts = {"answered": 0, "expired": 0, "stand_ins": 0}
        self._silence, self._delay, self._not_before = "", FIRST_RETRY_SECONDS, float("-inf")
        self._asked_at = float("-inf")

    def urgent(self, deployment: Deployment, limit: int, report: BatchReport | None = None) -> int:
        """One batch of tasks; return how many of them moved on."""
        if deployment.second is None or (not self._silence and self._is_idle(report)):
            return 0
        limit = min(limit, GROUP)
        moved = self._serve(deployment, limit) if self._monotonic() >= self._not_before else 0
        if self._silence:
            budget.stop_the_clock(self._index.database, self._now().timestamp())
            return moved + self._stand_in(deployment, limit)
        return moved + self._expire(deployment, limit)

    def _is_idle(self, report: BatchReport | None) -> bool:
        """Whether no task waits, and the clock of waiting may stand still."""
        now = self._now().timestamp()
        # of the clock a batch says nothing; to ask now and then is enough
        if report is not None and not report.queued and not budget.has_passed(now, self._asked_at):
            return True
        self._asked_at = now
        return self._pending.is_idle(now)

    def spare(self, deployment: Deployment, limit: int) -> int:
        """Nothing waits for idle time: the lanes of the queue order the work."""
        return 0

    def _serve(self, deployment: Deployment, limit: int) -> int:
        """Ask the MLLM about the next tasks."""
        tasks = self._pending.lease(deployment.epoch, limit, self._now().timestamp())
        if not tasks:
            return 0
        try:
            try:
                cases = self._sort(tasks, deployment)
            except HeldError:
                self._pending.refund(tasks)
                raise
            if cases.old or cases.void:
                self._pending.refund([*cases.void, *(case.task for case in cases.old)])
            self._score_again(cases, deployment)
            return len(cases.old) + self._answer(cases, deployment)
        finally:
            self._pending.release()

    def _answer(self, cases: Cases, deployment: Deployment) -> int:
        assert deployment.second is not None  # noqa: S101
        replies = ask(deployment.second, cases.ready)
        now = self._now()
        rows: list[SinkRow] = []
        mute: list[Task] = []
        for case in cases.ready:
            row, down = answered_row(case, replies, deployment, now)
            rows += [] if row is None else [row]
            mute += [case.task] if down else []

        def also(connection: Connection, written: Sequence[bool]) -> None:
            pending.drop(connection, cases.void)
            pending.silence(connection, mute)

        if rows or cases.void or mute:
            self._index.revise(rows, MLLM, ignored_at(rows), also=also)
        self.counts["answered"] += len(cases.ready) - len(mute)
        if replies:
            self._note(next((reply.silence for reply in replies.values() if reply.silence), ""))
        return len(cases.void) + len(cases.ready) - len(mute)

    def _score_again(self, cases: Cases, deployment: Deployment) -> None:
        """Another pair, or none that is known, gave the base score: the first stage once more, and a new task."""
        if not cases.old:
            return
        assert deployment.second is not None  # noqa: S101
        scored = retrieve([case.event for case in cases.old], deployment.scorer)
        now = self._now()
        rows = [
            decided(
                with_draw(candidate, case.task, deployment.second).with_features(case.features),
                deployment,
                case.known,
                now,
                How(lane=LIVE if case.task.lane == AUDIT else case.task.lane),
            )
            for case, candidate in zip(cases.old, scored, strict=True)
        ]
        self._index.revise(rows, BASE)

    def _stand_in(self, deployment: Deployment, limit: int) -> int:
        """The MLLM is down: verdicts of the policy's ``mllm_down`` for tasks that have none yet."""
        tasks = self._pending.unsilenced(deployment.epoch, limit)
        if not tasks:
            return 0
        cases, now = self._sort(tasks, deployment), self._now()
        self._score_again(cases, deployment)
        rows = [silent_row(case, self._silence, deployment, now) for case in cases.ready]

        def also(connection: Connection, written: Sequence[bool]) -> None:
            pending.drop(connection, cases.void)
            pending.silence(connection, [case.task for case in cases.ready])

        self._index.revise([row for row in rows if row is not None], OUTAGE, also=also)
        self.counts["stand_ins"] += len(rows)
        return len(tasks)

    def _expire(self, deployment: Deployment, limit: int) -> int:
        """Tasks whose time is over: those that the audit drew go on in its lane, the others are given up."""
        tasks = self._pending.expired(deployment.epoch, limit, self._now().timestamp())
        if not tasks:
            return 0
        cases, now = self._sort(tasks, deployment), self._now()
        self._score_again(cases, deployment)
        drawn: list[Case] = [case for case in cases.ready if case.task.drawn]
        rows = [expired_row(case, deployment, now) for case in cases.ready if not case.task.drawn]

        def also(connection: Connection, written: Sequence[bool]) -> None:
            pending.drop(connection, cases.void)
            pending.shed_to_audit(connection, [case.task for case in drawn])

        self._index.revise([row for row in rows if row is not None], EXPIRED, also=also)
        self.counts["expired"] += len(rows)
        return len(tasks)

    def _sort(self, tasks: Sequence[Task], deployment: Deployment) -> Cases:
        ids = [task.video_id for task in tasks]
        known = self._index.known(ids)
        cases = sort_cases(tasks, self._contents.newest(ids), known, self._index.models(), deployment)
        return with_features(cases, deployment, known)

    def _note(self, silence: str) -> None:
        self._silence = silence
        if not silence:
            self._delay, self._not_before = FIRST_RETRY_SECONDS, float("-inf")
        else:
            self._not_before = self._monotonic() + self._delay
            self._delay = min(2 * self._delay, LONGEST_RETRY_SECONDS)
