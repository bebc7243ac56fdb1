"""The queue of the MLLM: one task per video, stored with the base verdict that waits for it.

Audit draws come first and are never given up. Then come events and views, the highest base score first; every 20th
call is a campaign's. With a budget (:mod:`coefvq.vmp.budget`) tasks are handed out at its rate, and one that waits
longer than its limit expires. Tenants take turns (:mod:`coefvq.vmp.shares`). A worker leases what it takes. The lease
of a process that is gone ends at once, that of one that hangs after a while; then two may ask the same, and the guard
of the index keeps one answer.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from coefvq.documents import parse_json
from coefvq.vmp import budget, schema, shares
from coefvq.vmp.budget import Limits
from coefvq.vmp.database import Connection, Database
from coefvq.vmp.keys import DEFAULT, shown, tenant_of
from coefvq.vmp.leases import alive
from coefvq.vmp.records import AUDIT, AUDITED, CAMPAIGN, FULL, LIVE, Lane, Task
from coefvq.vmp.shares import Share, Shares

#: a worker that hangs keeps its tasks so many seconds
LEASE_SECONDS = 300.0
#: every so many calls one is a campaign's, if it has a task
CAMPAIGN_EVERY = 20
_COLUMNS = "video_id, source_version, epoch, views, lane, priority, calls, scores, enqueued, drawn, shed, silent"
_LOOK = (
    "SELECT EXISTS (SELECT 1 FROM pending), EXISTS (SELECT 1 FROM budget WHERE rate IS NOT NULL) "
    "OR EXISTS (SELECT 1 FROM tenants WHERE rate IS NOT NULL), coalesce((SELECT max(at) FROM budget), 0)"
)
_LANES: tuple[Lane, ...] = (AUDIT, LIVE, CAMPAIGN)
#: a tenant's next tasks, by lane
Queues = Mapping[Lane, deque[Task]]
#: a lease that ends too far ahead was made before the clock was set back
_FREE = "(owner IS NULL OR leased_until <= :now OR leased_until > :now + :lease)"


@dataclass(frozen=True)
class Waiting:
    """The queue at a glance: tasks and calls per lane, and unix time at which the oldest came."""

    tasks: int
    calls: int
    audits: int
    silent: int
    oldest: float | None


@dataclass(frozen=True)
class Pending:
    """The tasks of an index, as the worker ``owner`` sees them."""

    database: Database
    owner: str = ""

    def is_idle(self, now: float) -> bool:
        """Whether there is nothing to lease and nothing that could expire, and the clock of waiting may stand still."""
        # one question after each batch: where nothing waits, a worker asks and writes next to nothing
        tasks, rated, at = self.database.query(_LOOK)[0]
        return not tasks and not (rated and budget.has_passed(now, at))

    def lease(self, epoch: int, limit: int, now: float) -> list[Task]:
        """The next tasks that a worker of ``epoch`` may ask the MLLM about, as many as the budget gives; now taken."""
        with self.database.transaction() as connection:
            self._free_the_dead(connection)
            known = budget.look(connection, now)
            parts = shares.filled(connection, known.step)
            queues: dict[str, Queues] = {
                tenant: {lane: self._next(connection, tenant, lane, epoch, limit, now) for lane in _LANES}
                for tenant in parts or (DEFAULT,)
            }
            chosen = _choose(queues, limit, known, parts or {DEFAULT: Share(Limits(), 0.0, known.served, 0)})
            budget.spend(connection, sum(task.calls for task in chosen))
            shares.write(connection, parts)
            connection.executemany(
                "UPDATE pending SET owner = ?, leased_until = ? WHERE video_id = ?",
                [(self.owner, now + LEASE_SECONDS, task.video_id) for task in chosen],
            )
        return chosen

    def release(self) -> None:
        """Give back what this worker took."""
        with self.database.transaction() as connection:
            connection.execute("UPDATE pending SET owner = NULL, leased_until = NULL WHERE owner = ?", (self.owner,))

    def refund(self, tasks: Iterable[Task]) -> None:
        """Put back the calls of leased tasks that asked nothing."""
        with self.database.transaction() as connection:
            back = [(tenant_of(task.video_id), task.calls) for task in tasks]
            budget.spend(connection, -sum(calls for _, calls in back))
            shares.refund(connection, back)

    def expired(self, epoch: int, limit: int, now: float) -> list[Task]:
        """Tasks that nobody holds and that waited longer than the budget's limit."""
        late = "deadline < (SELECT clock FROM budget) AND lane > 0 AND scores != '' AND epoch <= :epoch"
        # one question in place of a transaction: after most batches there is none
        if not self.database.query(f"SELECT 1 FROM pending WHERE {late} LIMIT 1", {"epoch": epoch}):  # noqa: S608
            return []
        where = f"{late} AND {_FREE} ORDER BY deadline"
        return self._by_turns(where, {"epoch": epoch, "limit": limit, "now": now, "lease": LEASE_SECONDS})

    def unsilenced(self, epoch: int, limit: int) -> list[Task]:
        """Tasks whose video does not know yet that the MLLM is down."""
        where = "silent = 0 AND epoch <= :epoch ORDER BY lane, priority DESC, enqueued"
        return self._by_turns(where, {"epoch": epoch, "limit": limit})

    def waiting(self, tenant: str | None = None) -> Waiting:
        """How much there is to do, for one tenant or for all."""
        sql = (
            "SELECT count(*), coalesce(sum(calls), 0), coalesce(sum(CASE WHEN lane = 0 THEN 1 ELSE 0 END), 0), "
            "coalesce(sum(silent), 0), "
            "min(CASE WHEN enqueued > 0 THEN enqueued END) FROM pending"
        )
        chosen, values = ("", ()) if tenant is None else (" WHERE tenant = ?", (tenant,))
        return Waiting(*self.database.query(sql + chosen, values)[0])

    def _next(self, connection: Connection, tenant: str, lane: Lane, epoch: int, limit: int, now: float) -> deque[Task]:
        where = (
            f"tenant = :tenant AND lane = :lane AND epoch <= :epoch AND {_FREE} "
            "ORDER BY priority DESC, enqueued, video_id"
        )
        values = {"tenant": tenant, "lane": lane, "epoch": epoch, "limit": limit, "now": now, "lease": LEASE_SECONDS}
        return deque(self._tasks(connection, where, values))

    def _by_turns(self, where: str, values: dict[str, Any]) -> list[Task]:
        """Up to ``limit`` tasks, one of each tenant in turn."""
        with self.database.reading() as connection:
            tenants = shares.read(connection)
            if not tenants:
                return self._tasks(connection, where, values)
            queues = [self._tasks(connection, f"tenant = :tenant AND {where}", {**values, "tenant": tenant})
                      for tenant in tenants]  # fmt: skip
        turns = zip_longest(*queues)
        return [task for turn in turns for task in turn if task is not None][: values["limit"]]

    def _tasks(self, connection: Connection, where: str, values: dict[str, Any]) -> list[Task]:
        rows = connection.execute(f"SELECT {_COLUMNS} FROM pending WHERE {where} LIMIT :limit", values)  # noqa: S608
        return [self._task(*row) for row in rows.fetchall()]

    def _task(self, *cells: Any) -> Task:
        video_id, version, epoch, views, lane, priority, calls, scores, enqueued, *flags = cells
        place = f"the index's MLLM task of video {shown(video_id)}"
        found = parse_json(scores, place, "restore the index from a copy") if scores else {}
        return Task(video_id, version, epoch, views, lane, priority, calls, found, enqueued, *map(bool, flags))

    def _free_the_dead(self, connection: Connection) -> None:
        owners = connection.execute("SELECT DISTINCT owner FROM pending WHERE owner IS NOT NULL").fetchall()
        gone = [owner for (owner,) in owners if not alive(owner)]
        connection.executemany(
            "UPDATE pending SET owner = NULL, leased_until = NULL WHERE owner = ?", [(owner,) for owner in gone]
        )


def _choose(queues: dict[str, Queues], limit: int, known: budget.Budget, parts: Shares) -> list[Task]:
    """Task by task: the tenant whose turn it is; of its tasks audits, the campaign's share, then the highest score.

    ``parts`` is changed by what is chosen.
    """
    chosen: list[Task] = []
    spent = 0
    while len(chosen) < limit:
        heads = {tenant: head for tenant in queues if (head := _head(queues[tenant], parts[tenant])) is not None}
        ready = [tenant for tenant, head in heads.items() if parts[tenant].allows(head[0].calls)]
        if not ready:
            break
        tenant = shares.first(parts, ready)
        # not another one's smaller task instead: that could go on for ever
        if not known.allows(spent, heads[tenant][0].calls):
            break
        task = heads[tenant].popleft()
        chosen.append(task)
        spent += task.calls
        shares.take(parts[tenant], task.calls)
    return chosen


def _head(lanes: Queues, part: Share) -> deque[Task] | None:
    """The lane that a tenant's next task comes from."""
    turn = part.served % CAMPAIGN_EVERY == CAMPAIGN_EVERY - 1
    order = (AUDIT, CAMPAIGN, LIVE) if turn else (AUDIT, LIVE, CAMPAIGN)
    return next((lanes[lane] for lane in order if lanes[lane]), None)


def write_task(connection: Connection, task: Task) -> None:
    """Store a task, unless it is already answered or a newer one is there."""
    scores = json.dumps(task.scores, sort_keys=True, ensure_ascii=False, allow_nan=False) if task.scores else ""
    worth = AUDITED if any(score.get("awaits") == "audit" for score in task.scores.values()) else FULL
    connection.execute(
        schema.WRITE_TASK,
        (task.video_id, task.source_version, task.epoch, task.views, task.lane, task.priority, task.calls,
         task.drawn, task.shed, scores, task.enqueued, worth, tenant_of(task.video_id)),
    )  # fmt: skip
    connection.execute(schema.OVERTAKEN_TASK, _identity(task))


def drop(connection: Connection, tasks: Iterable[Task]) -> None:
    """Delete these very tasks; a newer one of the same video stays."""
    connection.executemany(schema.DROP_TASK, [_identity(task) for task in tasks])


def silence(connection: Connection, tasks: Sequence[Task]) -> None:
    """Note that the videos of these tasks got the verdict of an MLLM that is down."""
    connection.executemany(schema.SILENCE_TASK, [_identity(task) for task in tasks])


def shed_to_audit(connection: Connection, tasks: Sequence[Task]) -> None:
    """Expired tasks that the audit drew: the budget lets them go, the audit's reserve does not."""
    connection.executemany(schema.SHED_TASK, [_identity(task) for task in tasks])


def _identity(task: Task) -> tuple[str, int, int, int | None]:
    return task.video_id, task.source_version, task.epoch, task.views


def effective_threshold(connection: Connection, tenant: str = DEFAULT) -> float | None:
    """The base score from which a tenant's task is served in time, by the queue of now; None while all are.

    It is the score at that place in the queue that the budget reaches within its limit of waiting.
    """
    limits = shares.limits_of(connection, tenant)
    if limits.rate is None or limits.max_wait is None:
        return None
    found = connection.execute(
        "SELECT priority FROM pending WHERE tenant = ? AND lane = 1 ORDER BY priority DESC LIMIT 1 OFFSET ?",
        (tenant, int(limits.rate * limits.max_wait)),
    ).fetchone()
    return None if found is None else float(found[0])
