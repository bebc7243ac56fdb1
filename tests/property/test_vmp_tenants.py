"""Two tenants in one state are two states: any interleaving of their histories ends as if each had been alone."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coefvq.errors import DataError
from coefvq.vmp import feed, loop, served
from coefvq.vmp.budget import Limits
from coefvq.vmp.campaigns import Campaigns
from coefvq.vmp.deployment import Deployment
from coefvq.vmp.keys import DEFAULT, key, split
from coefvq.vmp.lanes import ends
from coefvq.vmp.overrides import override
from coefvq.vmp.records import Event
from coefvq.vmp.retention import forget
from coefvq.vmp.rules import Rules, parse_rules
from coefvq.vmp.ruling import changes_at, decide
from coefvq.vmp.shares import set_tenants
from coefvq.vmp.state import open_state
from tests.vmp_world import NOW, SHIPPED, FixedDeployment, Pair, deployment, promote, work

TENANTS = ("acme", "globex")
OWN = parse_rules(
    'rules: [{name: seen, when: [{field: views, op: ">", value: 50}], then: removed}]\ndefault: live\npending: live',
    "own",
)
RULES = {"acme": SHIPPED, "globex": OWN}


@dataclass(frozen=True)
class Act:
    """What happens: to a tenant's video, or, without a tenant, to all at once."""

    kind: Literal["publish", "watch", "delete", "pin", "forget", "run", "outage", "promote", "campaign"]
    tenant: str = ""
    video: str = ""
    number: int = 0


mine = st.builds(Act, st.sampled_from(["publish", "publish", "watch", "delete", "pin", "forget"]),
                 st.sampled_from(TENANTS), st.sampled_from("ab"), st.integers(0, 9))  # fmt: skip
everybody_s = st.builds(Act, st.sampled_from(["run", "run", "outage", "promote", "campaign"]))
histories = st.lists(mine | mine | everybody_s, min_size=1, max_size=14)


def ruled(whole: Deployment, rules: Rules) -> Deployment:
    return replace(whole, decide=lambda one, now: decide(one, rules, now), pending=rules.pending,
                   changes_at=lambda event, now: changes_at(rules, event, now))  # fmt: skip


class State:
    """One state; alone, a tenant's videos are those of the default tenant, under the tenant's rules."""

    def __init__(self, folder: Path, alone: str | None) -> None:
        self.alone, self.folder = alone, folder
        self.opened = open_state(folder)
        self.log, self.index = self.opened.__enter__()
        for database in (self.log.database, self.index.database):
            database.connection.execute("PRAGMA synchronous = OFF")  # order is tested here, not power cuts
        if alone is None:
            set_tenants(self.index.database, dict.fromkeys(TENANTS, Limits()))
        self.pair = Pair(base=lambda video: int(video.title or 0) / 10)
        self.epoch = promote(self.index, 1, "1-ab")

    def name(self, tenant: str, video: str) -> str:
        return key(tenant if self.alone is None else DEFAULT, video)

    def do(self, act: Act) -> None:
        if act.tenant and self.alone not in (None, act.tenant):
            return
        with suppress(DataError):  # such as the deletion of a video that nobody published
            getattr(self, act.kind)(self.name(act.tenant, act.video), act.number)

    def publish(self, name: str, number: int) -> None:
        self.log.publish([Event(name, title=f"{number}", views=number)])

    def watch(self, name: str, number: int) -> None:
        newest = self.log.newest([name]).get(name)
        if newest is not None and newest.kind == "upsert":
            self.log.publish([replace(newest, views=number * 20)])

    def delete(self, name: str, number: int) -> None:
        self.log.publish([Event(name, "delete")])

    def pin(self, name: str, number: int) -> None:
        override(self.log, self.index, name, ("live", "removed", "model")[number % 3], "ana", "why", NOW)  # type: ignore[arg-type]

    def forget(self, name: str, number: int) -> None:
        forget(self.folder, self.log, self.index, [name], NOW)

    def run(self, name: str = "", number: int = 0) -> None:
        whole = deployment(self.pair, self.epoch, bundle=self.pair.bundle)
        own = {tenant: ruled(whole, rules) for tenant, rules in RULES.items()}
        used = replace(whole, tenants=own) if self.alone is None else own[self.alone]
        source, sink = ends(self.log, self.index)
        loop.run(source, FixedDeployment(used), sink, stop=threading.Event(), on_batch=lambda report: None,
                 batch_size=3, once=True, clock=lambda: NOW, work=work(self.log, self.index))  # fmt: skip

    def outage(self, name: str, number: int) -> None:
        self.pair.down = not self.pair.down

    def promote(self, name: str, number: int) -> None:
        decision = self.epoch + 1
        self.pair.bundle = f"{decision}-ab"
        self.epoch = promote(self.index, decision, self.pair.bundle)

    def campaign(self, name: str, number: int) -> None:
        # an index of two tenants is empty later than one of one: the campaign itself is everybody's
        if self.index.states():
            Campaigns(self.index.database).start(NOW)

    def end(self) -> None:
        """The MLLM is back, and a last campaign."""
        self.pair.down = False
        self.run()
        self.campaign("", 0)
        self.run()

    def seen(self, tenant: str) -> dict[str, Any]:
        database, whose = self.index.database, tenant if self.alone is None else DEFAULT
        entries = list(served.scan(database, tenant=whose))
        calls = [split(name)[1] for name in self.pair.mllm_calls if split(name)[0] == whose]
        return {
            "entries": entries,
            "feed": sorted(change.entry.video_id for change in feed.read(database, 0, 99, whose).changes),
            "letters": [(one.video_id, one.source_version, one.reason) for one in self.index.dead_letters(whose)],
            "states": self.index.states(whose),
            "asked": sorted(calls),
        }


@settings(max_examples=10, deadline=None)
@given(histories)
def test_interleaved_histories_of_two_tenants_are_two_runs(acts: Sequence[Act]) -> None:
    check(acts)


@pytest.mark.long
@settings(max_examples=300, deadline=None)
@given(histories)
def test_many_interleaved_histories(acts: Sequence[Act]) -> None:
    check(acts)


def check(acts: Sequence[Act]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        together, *alone = (State(Path(folder) / str(name), name) for name in (None, *TENANTS))
        for state in (together, *alone):
            for act in acts:
                state.do(act)
            state.end()
        try:
            for state in alone:
                assert state.alone is not None
                assert together.seen(state.alone) == state.seen(state.alone)
            assert together.seen(DEFAULT)["entries"] == []
        finally:
            for state in (together, *alone):
                state.opened.__exit__(None, None, None)
