"""What the MLLM's queue means for readers: how long a verdict waits, and whether the budget sheds any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coefvq.vmp import budget
from coefvq.vmp.database import Database
from coefvq.vmp.escalations import EXPIRED, MLLM
from coefvq.vmp.pending import Pending, effective_threshold

#: latencies and shares are of so many of the newest answers
LAST = 1000


@dataclass(frozen=True)
class Latency:
    """Seconds from base verdict to full verdict."""

    p50: float
    p99: float
    videos: int


@dataclass(frozen=True)
class Outlook:
    """The queue of the MLLM.

    ``expected_wait`` is the time until a task at the queue's end is served or given up, None without a budget.
    ``takedown`` is the latency of the newest removals, ``answered`` that of all verdicts. ``effective_threshold`` is
    the base score from which a task is served in time, None while all are. ``shed`` of the newest tasks were given up.
    """

    tasks: int
    audits: int
    outage: int
    oldest_wait: float | None
    rate: float | None
    expected_wait: float | None
    effective_threshold: float | None
    shed: int
    answered: Latency | None
    takedown: Latency | None

    @property
    def certificate_holds(self) -> bool:
        """Whether the thresholds that were approved are those in effect."""
        return self.rate is None or (self.effective_threshold is None and not self.shed)


def outlook(database: Database, now: float) -> Outlook:
    """The queue at unix time ``now``."""
    waiting, limits = Pending(database).waiting(), budget.get(database).limits
    rows = database.query(
        "SELECT consumer, outcome, waited FROM effects WHERE consumer IN (?, ?) AND waited IS NOT NULL "
        "ORDER BY number DESC LIMIT ?",
        (MLLM, EXPIRED, LAST),
    )
    answered = [(outcome, waited) for consumer, outcome, waited in rows if consumer == MLLM]
    return Outlook(
        tasks=waiting.tasks,
        audits=waiting.audits,
        outage=waiting.silent,
        oldest_wait=None if waiting.oldest is None else max(0.0, now - waiting.oldest),
        rate=limits.rate,
        expected_wait=_expected(waiting.calls, limits),
        effective_threshold=effective_threshold(database.connection),
        shed=len(rows) - len(answered),
        answered=_latency([waited for _, waited in answered]),
        takedown=_latency([waited for outcome, waited in answered if outcome == "removed"]),
    )


def _expected(calls: int, limits: budget.Limits) -> float | None:
    if limits.rate is None:
        return None
    wait = calls / limits.rate
    return wait if limits.max_wait is None else min(wait, limits.max_wait)


def _latency(seconds: Sequence[float]) -> Latency | None:
    if not seconds:
        return None
    p50, p99 = np.quantile(np.array(seconds, np.float64), (0.5, 0.99))
    return Latency(float(p50), float(p99), len(seconds))
