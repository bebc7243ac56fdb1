"""How tenants share the MLLM: a bucket of its own for each that has a budget, and turns for all.

Who has fewer tasks waiting goes first, by at most ``AHEAD`` calls before any other that waits; beyond that they take
turns. So one that floods the queue delays the others by the calls in hand only, and is never kept from its part itself.
Nobody saves up turns: one that was idle, or had spent its own budget, begins where the others are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from coefvq.vmp import budget
from coefvq.vmp.budget import Limits
from coefvq.vmp.database import Connection, Database
from coefvq.vmp.keys import DEFAULT

#: calls that a tenant with few tasks may get before the others get theirs
AHEAD = 64


@dataclass
class Share:
    """One tenant's part: its own limits and bucket, the calls that it was given in all, and its turn in calls.

    ``waiting`` are its tasks, counted up to one above ``AHEAD``.
    """

    limits: Limits
    tokens: float
    served: int
    turn: int
    waiting: int = 0

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
    """The tenants with what waits, their buckets filled by ``step`` seconds; ``write`` keeps it."""
    found = read(connection)
    sql = "SELECT count(*) FROM (SELECT 1 FROM pending WHERE tenant = ? LIMIT ?) AS counted"
    for tenant, share in found.items():
        share.tokens = min(share.limits.burst, share.tokens + step * (share.limits.rate or 0.0))
        share.waiting = connection.execute(sql, (tenant, AHEAD + 1)).fetchone()[0]
    return found


def first(shares: Shares, ready: Collection[str]) -> str:
    """The tenant whose task is next, of those that are ``ready``; the others are brought up to them."""
    least = min(shares[name].turn for name in ready)
    for name, share in shares.items():
        if name not in ready:
            share.turn = max(share.turn, least)
    near = [name for name in ready if shares[name].turn < least + AHEAD]
    return min(near, key=lambda name: (shares[name].waiting, shares[name].turn, name))


def take(share: Share, calls: int, tasks: int = 1) -> None:
    """Give a tenant the calls of so many tasks; below 0 they are put back."""
    share.served, share.turn = share.served + calls, share.turn + calls
    if share.waiting <= AHEAD:  # else there are more than were counted
        share.waiting -= tasks
    if share.limits.rate is not None:
        share.tokens -= calls


def refund(connection: Connection, calls: Iterable[tuple[str, int]]) -> None:
    """Put back calls of tenants."""
    if found := read(connection):
        for tenant, number in calls:
            take(found[tenant], -number, -1)
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
    if not limits and not database.query("SELECT 1 FROM tenants LIMIT 1"):
        return
    with database.transaction() as connection:
        known = read(connection)
        names = dict.fromkeys([DEFAULT, *known, *limits])
        least = min((share.turn for share in known.values()), default=0)
        for name in names:
            new = limits.get(name, Limits())
            before = known.get(name, Share(new, 0.0, 0, least))
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
