"""What the MLLM may cost: so many calls per second, from a bucket that all workers of an index share.

The bucket bounds bursts only; the queue (:mod:`coefvq.vmp.pending`) is served by score at the bucket's rate. Waiting is
counted in seconds of service: time in which no worker looked, or the MLLM was down, makes nobody wait too long, and
neither does a clock that is set.
"""

from __future__ import annotations

from dataclasses import dataclass

from coefvq.errors import ConfigError
from coefvq.vmp.database import Connection, Database

#: a longer time between two looks is no service
LONGEST_STEP = 60.0
_IDLE_STEP = 10.0
_UNITS = {"s": 1.0, "second": 1.0, "h": 3600.0, "hour": 3600.0, "day": 86_400.0}


@dataclass(frozen=True)
class Limits:
    """What an operator allows: calls per second (None: any), calls at once, and the seconds that a task may wait."""

    rate: float | None = None
    burst: float = 1.0
    max_wait: float | None = None


@dataclass(frozen=True)
class Budget:
    """The bucket as it is; ``served`` counts all calls, ``step`` are the seconds since the look before."""

    limits: Limits
    tokens: float
    clock: float
    served: int
    step: float = 0.0

    def allows(self, spent: int, calls: int) -> bool:
        """Whether so many calls more fit; a task of more calls than the bucket holds waits for a full one."""
        return self.limits.rate is None or self.tokens - spent >= min(float(calls), self.limits.burst)


def parse_rate(text: str) -> float:
    """``0.5/s``, ``100/hour`` or ``5000/day`` as calls per second.

    Raises:
        ConfigError: it is none of them.
    """
    number, _, unit = text.partition("/")
    try:
        rate = float(number) / _UNITS[unit.strip()]
    except (ValueError, KeyError):
        rate = 0.0
    if not 0.0 < rate < 1e9:  # also refuses nan
        raise ConfigError(
            f"MLLM budget {text!r:.40}: expected calls per time above 0, such as 0.5/s, 100/hour or 5000/day"
        )
    return rate


def set_limits(database: Database, limits: Limits) -> None:
    """Make these the limits of the index; they hold for all its workers and for the tasks that wait."""
    with database.transaction() as connection:
        known, at = read(connection)
        _write(connection, Budget(limits, min(known.tokens, limits.burst), known.clock, known.served), at)
        renew_deadlines(connection)


def renew_deadlines(connection: Connection) -> None:
    """Give the tasks that wait the limits of now: those of their tenant, else those of all."""
    wait = "coalesce((SELECT t.max_wait FROM tenants t WHERE t.tenant = pending.tenant), (SELECT max_wait FROM budget))"
    connection.execute(f"UPDATE pending SET deadline = NULL WHERE {wait} IS NULL")  # noqa: S608
    connection.execute(
        f"UPDATE pending SET deadline = coalesce((SELECT clock FROM budget), 0) + {wait} "  # noqa: S608
        f"WHERE deadline IS NULL AND {wait} IS NOT NULL"
    )


def get(database: Database) -> Budget:
    """The budget as of the last look."""
    return read(database.connection)[0]


def has_passed(now: float, at: float) -> bool:
    """Whether the last look was so long ago that the next task would lose time for which nobody waited."""
    return not 0.0 <= now - at < _IDLE_STEP


def look(connection: Connection, now: float) -> Budget:
    """Fill the bucket up to ``now`` (unix time) and move the clock of waiting; call inside a transaction."""
    known, at = read(connection)
    step = max(0.0, now - at)  # a clock that was set back fills nothing
    tokens = min(known.limits.burst, known.tokens + step * (known.limits.rate or 0.0))
    found = Budget(known.limits, tokens, known.clock + min(step, LONGEST_STEP), known.served, step)
    _write(connection, found, now)
    return found


def spend(connection: Connection, calls: int) -> None:
    """Take calls from the bucket; below 0 they are put back."""
    known, at = read(connection)
    tokens = known.tokens if known.limits.rate is None else known.tokens - calls
    _write(connection, Budget(known.limits, tokens, known.clock, known.served + calls), at)


def stop_the_clock(database: Database, now: float) -> None:
    """The MLLM is down: what passes until ``now`` makes no task wait too long."""
    with database.transaction() as connection:
        _write(connection, read(connection)[0], now)


def read(connection: Connection) -> tuple[Budget, float]:
    """The budget and the time of the last look; an index that never had one is free."""
    row = connection.execute("SELECT rate, burst, max_wait, tokens, clock, served, at FROM budget").fetchone()
    if row is None:
        return Budget(Limits(), 0.0, 0.0, 0), 0.0
    rate, burst, max_wait, tokens, clock, served, at = row
    return Budget(Limits(rate, burst, max_wait), tokens, clock, served), at


def _write(connection: Connection, found: Budget, at: float) -> None:
    limits = found.limits
    connection.execute(
        "INSERT INTO budget (one, rate, burst, max_wait, tokens, clock, served, at) VALUES (1, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (one) DO UPDATE SET rate = excluded.rate, burst = excluded.burst, max_wait = excluded.max_wait, "
        "tokens = excluded.tokens, clock = excluded.clock, served = excluded.served, at = excluded.at",
        (limits.rate, limits.burst, limits.max_wait, found.tokens, found.clock, found.served, at),
    )
