"""What `coefvq vmp run` and `coefvq vmp mllm` work with: a state, the deployments that it follows, a stop flag."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coefvq.cli.vmp_state import state_folder
from coefvq.cli.workspace import given, open_workspace
from coefvq.terminal import say
from coefvq.vmp.state import open_state

if TYPE_CHECKING:
    from coefvq.cascade.audit_sample import AuditSample
    from coefvq.vmp.budget import Limits
    from coefvq.vmp.deployment import Lookup
    from coefvq.vmp.features.settings import FeatureSettings
    from coefvq.vmp.follow import Follower
    from coefvq.vmp.index import IndexStore
    from coefvq.vmp.log import EventLog
    from coefvq.vmp.loop import SignalStop
    from coefvq.vmp.tenants import Named


@dataclass(frozen=True)
class Stream:
    """An open state whose champions are loaded."""

    stop: SignalStop
    log: EventLog
    index: IndexStore
    deployments: Follower


@contextmanager
def open_stream(
    state: Path | None,
    params: Path,
    rules: Path | None,
    tenants: Path | Named | None,
    issues: Sequence[str] | None,
    *,
    interval: float,
    patient: bool,
    audit: AuditSample | None = None,
    limits: Limits | None = None,
    features: Path | FeatureSettings | None = None,
    tell: Callable[[str], None] = say,
    create: bool = True,
) -> Iterator[Stream]:
    """Load the champions of ``issues`` (all by default) and open the state; ``limits`` are a new budget.

    ``features`` names the stores that rules see; ``tell`` gets lines for a person.

    Rules and tenants that are given are kept with the state where ``create`` is on; without any the kept ones hold.

    Raises:
        CoefVQError: a file does not fit, there is no champion, or a pair does not load.
    """
    from coefvq.registry.tracking import configure
    from coefvq.vmp import loop, worker
    from coefvq.vmp.budget import set_limits
    from coefvq.vmp.features.settings import check_rules, load_features
    from coefvq.vmp.kept_rules import SHIPPED, kept_rules, next_rules
    from coefvq.vmp.shares import set_tenants
    from coefvq.vmp.tenants import NONE, kept_tenants, next_tenants, own_rules

    folder = given(state_folder(state, params), params)
    asked = rules if rules in (None, SHIPPED) else given(rules, params)
    stores = load_features(given(features, params)) if isinstance(features, Path) else features
    named = given(tenants, params) if isinstance(tenants, Path) and tenants != NONE else tenants
    filter_rules = next_rules(folder, asked)
    for one in (filter_rules, *own_rules(next_tenants(folder, named), filter_rules).values()):
        check_rules(one, stores)  # before they are kept
    if create:
        filter_rules = kept_rules(folder, asked, tell)
    known = kept_tenants(folder, named) if create else next_tenants(folder, named)
    settings = open_workspace(params)
    chosen = [settings.check_issue(name) for name in issues or ()]
    configure(settings.tracking.uri, settings.tracking.experiment, create=False)
    with (
        loop.stop_on_signals() as stop,
        open_state(folder, create=create) as (log, index),
        _lookup(stores) as lookup,
        worker.follower(
            index, filter_rules, chosen or None, audit, stop=stop, say=tell, interval=interval, patient=patient,
            tenants=known, lookup=lookup,
        ) as deployments,
    ):  # fmt: skip
        if limits is not None:
            set_limits(index.database, limits)
        set_tenants(index.database, {name: one.limits for name, one in known.items()})
        yield Stream(stop, log, index, deployments)


@contextmanager
def _lookup(stores: FeatureSettings | None) -> Iterator[Lookup]:
    """What asks the stores; without any, what the index keeps."""
    from coefvq.vmp.deployment import stored_features

    if stores is None:
        yield stored_features
        return
    from coefvq.vmp.features.lookup import open_lookup

    with open_lookup(stores) as lookup:
        yield lookup
