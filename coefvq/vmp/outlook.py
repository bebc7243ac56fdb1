"""What the MLLM's queue means for readers: how long a verdict waits, and whether the budget sheds any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coefvq.vmp import budget, shares
from coefvq.vmp.database import Database
from coefvq.vmp.escalations import EXPIRED, MLLM
from coefvq.vmp.keys import DEFAULT, within
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
    ``bounded``: there is a budget.
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
    bounded: bool

    @property
    def certificate_holds(self) -> bool:
        """Whether the thresholds that were approved are those in effect."""
        return not self.bounded or (self.effective_threshold is None and not self.shed)


def outlook(database: Database, now: float, tenant: str | None = None) -> Outlook:
    """The queue of one tenant, or of all, at unix time ``now``."""
    waiting, limits = Pending(database).waiting(tenant), _limits(database, tenant)
    mine, names = ("1 = 1", ()) if tenant is None else within(tenant, "video_id")
    rows = database.query(
        "SELECT consumer, outcome, waited FROM effects WHERE consumer IN (?, ?) AND waited IS NOT NULL "  # noqa: S608
        f"AND {mine} ORDER BY number DESC LIMIT ?",
        (MLLM, EXPIRED, *names, LAST),
    )
    answered = [(outcome, waited) for consumer, outcome, waited in rows if consumer == MLLM]
    return Outlook(
        tasks=waiting.tasks,
        audits=waiting.audits,
        outage=waiting.silent,
        oldest_wait=None if waiting.oldest is None else max(0.0, now - waiting.oldest),
        rate=limits.rate,
        expected_wait=_expected(waiting.calls, limits),
        effective_threshold=_effective(database, tenant),
        shed=len(rows) - len(answered),
        answered=_latency([waited for _, waited in answered]),
        takedown=_latency([waited for outcome, waited in answered if outcome == "removed"]),
        bounded=any(one.rate is not None for one in (limits, *_own_limits(database, tenant))),
    )


def _limits(database: Database, tenant: str | None) -> budget.Limits:
    with database.reading() as connection:
        return budget.read(connection)[0].limits if tenant is None else shares.limits_of(connection, tenant)


def _own_limits(database: Database, tenant: str | None) -> list[budget.Limits]:
    with database.reading() as connection:
        return [share.limits for name, share in shares.read(connection).items() if tenant in (None, name)]


def _effective(database: Database, tenant: str | None) -> float | None:
    """The highest of all tenants where none is named."""
    with database.reading() as connection:
        names = list(shares.read(connection)) or [DEFAULT] if tenant is None else [tenant]
        found = [effective_threshold(connection, name) for name in names]
    return max((one for one in found if one is not None), default=None)


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
