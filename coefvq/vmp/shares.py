"""How tenants share the MLLM: a bucket of its own for each that has a budget, and turns for all.

The next task is that of the tenant which was served least. One that was idle catches up at most ``CREDIT`` calls, so
nobody saves up turns, and one that floods the queue delays the others by the batch in hand only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from coefvq.vmp import budget
from coefvq.vmp.budget import Limits
from coefvq.vmp.database import Connection, Database
from coefvq.vmp.keys import DEFAULT

#: calls that a tenant which was idle goes before the others
CREDIT = 64


@dataclass
class Share:
    """One tenant's part: its own limits and bucket, the calls that it was given in all, and its turn."""

    limits: Limits
    tokens: float
    served: int
    turn: int

    def allows(self, calls: int) -> bool:
        """Whether its own budget has so many calls; a task of more than the bucket holds waits for a full one."""
        return self.limits.rate is None or self.tokens >= min(float(calls), self.limits.burst)


Shares = dict[str, Share]


def read(connection: Connection) -> Shares:
    """The tenants that were ever configured, by name; empty where nobody configured any."""
    rows = connection.execute("SELECT tenant, rate, burst, max_wait, tokens, served, turn FROM tenants")
    return {name: Share(Limits(rate, burst, wait), tokens, served, turn)
            for name, rate, burst, wait, tokens, served, turn in rows.fetchall()}  # fmt: skip


def filled(connection: Connection, step: float) -> Shares:
    """The tenants, their buckets filled by ``step`` seconds; ``write`` keeps it."""
    found = read(connection)
    for share in found.values():
        share.tokens = min(share.limits.burst, share.tokens + step * (share.limits.rate or 0.0))
    return found


def take(shares: Shares, tenant: str, calls: int) -> None:
    """Give a tenant calls; below 0 they are put back."""
    share = shares[tenant]
    share.served, share.turn = share.served + calls, share.turn + calls
    if share.limits.rate is not None:
        share.tokens -= calls
    lead = max(other.turn for other in shares.values())
    for other in shares.values():
        other.turn = max(other.turn, lead - CREDIT)


def refund(connection: Connection, calls: Iterable[tuple[str, int]]) -> None:
    """Put back calls of tenants."""
    if found := read(connection):
        for tenant, number in calls:
            take(found, tenant, -number)
        write(connection, found)


def write(connection: Connection, shares: Mapping[str, Share]) -> None:
    """Store buckets and turns."""
    connection.executemany(
        "UPDATE tenants SET tokens = ?, served = ?, turn = ? WHERE tenant = ?",
        [(share.tokens, share.served, share.turn, name) for name, share in shares.items()],
    )


def set_tenants(database: Database, limits: Mapping[str, Limits]) -> None:
    """Make these the tenants of the index, with the default one; whoever is missing keeps its place but no budget.

    The limits hold for all workers and for the tasks that wait.
    """
    with database.transaction() as connection:
        known = read(connection)
        if not known and not limits:
            return
        names = dict.fromkeys([DEFAULT, *known, *limits])
        lead = max((share.turn for share in known.values()), default=0)
        for name in names:
            new = limits.get(name, Limits())
            before = known.get(name, Share(new, 0.0, 0, max(0, lead - CREDIT)))
            connection.execute(
                "INSERT INTO tenants (tenant, rate, burst, max_wait, tokens, served, turn) VALUES (?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (tenant) DO UPDATE SET rate = excluded.rate, burst = excluded.burst, "
                "max_wait = excluded.max_wait, tokens = excluded.tokens",
                (name, new.rate, new.burst, new.max_wait, min(before.tokens, new.burst), before.served, before.turn),
            )
        budget.renew_deadlines(connection)


def limits_of(connection: Connection, tenant: str) -> Limits:
    """What bounds a tenant: its own budget and an even part of the whole one among those that wait.

    ``rate`` and ``max_wait`` are None where nothing bounds them.
    """
    whole, own = budget.read(connection)[0].limits, read(connection).get(tenant)
    if own is None:
        return whole
    waiting = connection.execute(
        "SELECT count(*) FROM tenants t WHERE t.tenant != ? "
        "AND EXISTS (SELECT 1 FROM pending p WHERE p.tenant = t.tenant AND p.lane = 1)",
        (tenant,),
    ).fetchone()[0]
    rates = [own.limits.rate, None if whole.rate is None else whole.rate / (1 + waiting)]
    wait = whole.max_wait if own.limits.max_wait is None else own.limits.max_wait
    return Limits(min((rate for rate in rates if rate is not None), default=None), whole.burst, wait)
