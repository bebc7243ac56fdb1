"""What `coefvq vmp run` is made of: the decision record, the registry's pairs, the rules, one index."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from coefvq.cascade.audit_sample import AuditSample
from coefvq.files import sha256_json
from coefvq.vmp import epochs, loop
from coefvq.vmp.campaigns import Campaigns
from coefvq.vmp.deployment import Deployment, Lookup, SecondStage, stored_features
from coefvq.vmp.epochs import Order
from coefvq.vmp.escalations import Escalations
from coefvq.vmp.follow import Follower, Parts
from coefvq.vmp.index import IndexStore
from coefvq.vmp.log import EventLog
from coefvq.vmp.loop import Stop
from coefvq.vmp.records import Candidate, Decision, Event
from coefvq.vmp.redecide import redecider
from coefvq.vmp.revisions import Reviser, changes, plan, rows_of
from coefvq.vmp.rules import Rules
from coefvq.vmp.ruling import changes_at, decide
from coefvq.vmp.tenants import NOBODY, Named, own_rules

if TYPE_CHECKING:
    from coefvq.registry.champions import Head


def order_of(head: Head, rules: Rules, tenants: Named = NOBODY) -> Order:
    """The order that a decision record, a rules file and the rules of tenants make together.

    Raises:
        RegistryError: a pair's record is gone or was changed.
    """
    from coefvq.registry import champions

    own = {name: one.model_dump(mode="json") for name, one in own_rules(tenants, rules).items()}
    whole = rules.model_dump(mode="json")
    return Order(
        decision=head.decision,
        bundles=head.bundles,
        models=champions.models_of(head),
        rules=sha256_json([whole, own] if own else whole),
        withdrawn=head.withdrawn,
    )


def follower(
    index: IndexStore,
    rules: Rules,
    issues: Sequence[str] | None,
    audit: AuditSample | None,
    *,
    stop: Stop,
    say: Callable[[str], None],
    interval: float,
    patient: bool,
    tenants: Named = NOBODY,
    lookup: Lookup = stored_features,
) -> Follower:
    """Follow the champions of ``issues``; the tracking store has to be configured before.

    ``lookup`` gives the features that the rules see.

    Raises:
        CoefVQError: an issue has no champion, or a pair does not load.
    """
    from coefvq.registry import champions

    def load(order: Order) -> Callable[[int], Deployment]:
        head = champions.Head(order.decision, dict(order.bundles), order.withdrawn)
        scorer = champions.load_head(head, audit=audit)
        policies = champions.policies_of(head)
        second = SecondStage(policies, order.bundles, scorer.ask)

        def made(epoch: int) -> Deployment:
            again = redecider(policies, order.bundles)
            bare = Deployment(epoch, scorer.base, partial(_decide, rules), order.models, again, second, lookup=lookup)
            return _ruled(bare, rules, tenants)

        return made

    parts = Parts(
        order=lambda: order_of(champions.head(issues), rules, tenants),
        load=load,
        issue=partial(epochs.issue, index.database),
        say=say,
    )
    return Follower(parts, stop, interval, patient)


@dataclass(frozen=True)
class Preview:
    """What a campaign would do: ``stored`` rows need no model, ``changed`` of them would read otherwise."""

    rows: int
    withdrawn: int
    stored: int
    changed: int
    asked: int


def preview(log: EventLog, index: IndexStore, head: Head, rules: Rules, tenants: Named = NOBODY) -> Preview:
    """Count what a campaign towards ``head`` and these rules would do; nothing is written and no model is loaded.

    Raises:
        RegistryError: a pair's record is gone or was changed.
    """
    from coefvq.registry import champions

    order = order_of(head, rules, tenants)
    issued = epochs.issued(index.database)
    newest = issued[-1].epoch if issued else 0
    epoch = newest if issued and epochs.asks_for(order, issued[-1]) else newest + 1
    gone = {item.epoch for item in issued if item.withdrawn or order.withdraws(item.bundles)}
    policies = champions.policies_of(head)
    again = redecider(policies, order.bundles)
    second = SecondStage(policies, order.bundles, lambda wanted: {})
    bare = Deployment(epoch, lambda videos: [], partial(_decide, rules), order.models, again, second)
    deployment = _ruled(bare, rules, tenants)
    counts: Counter[str] = Counter()
    waiting = iter(Campaigns(index.database).video_ids(epoch))
    while batch := list(islice(waiting, 500)):
        made, known = plan(batch, log, index, deployment)
        rows = rows_of(replace(made, asked=[]), known, deployment, loop.now())
        counts["rows"] += len(made.stored) + len(made.asked)
        counts["withdrawn"] += sum(
            found.verdict is not None and found.verdict.epoch in gone for found in known.values()
        )
        counts["changed"] += sum(changes(row, known) for row in rows if row.task is None)
        counts["asked"] += len(made.asked) + sum(row.task is not None for row in rows)
    return Preview(
        counts["rows"], counts["withdrawn"], counts["rows"] - counts["asked"], counts["changed"], counts["asked"]
    )


def work(log: EventLog, index: IndexStore, mllm: bool) -> tuple[loop.Work, ...]:
    """What a run does between events, by the clocks of this machine; ``mllm``: it serves the MLLM's tasks itself."""
    served = (mllm_work(log, index),) if mllm else ()
    return (Reviser(log, index, loop.now), *served)


def mllm_work(log: EventLog, index: IndexStore) -> Escalations:
    """The MLLM's tasks of a state."""
    return Escalations(log, index, loop.now, time.monotonic)


class NoEvents:
    """The source of a worker that only serves the MLLM's tasks."""

    def poll(self, after: int, max_n: int) -> list[Event]:
        """Nothing."""
        return []


def _ruled(bare: Deployment, rules: Rules, tenants: Named) -> Deployment:
    """The same models under these rules, and under those of each tenant but the default one."""
    own = {name: _by(bare, one) for name, one in own_rules(tenants, rules).items()}
    return replace(_by(bare, rules), tenants=own)


def _by(deployment: Deployment, rules: Rules) -> Deployment:
    """The same models under these rules."""
    return replace(
        deployment, decide=partial(_decide, rules), pending=rules.pending, changes_at=partial(changes_at, rules)
    )


def _decide(rules: Rules, candidate: Candidate, now: datetime) -> Decision:
    return decide(candidate, rules, now)
