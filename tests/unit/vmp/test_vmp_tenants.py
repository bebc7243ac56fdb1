"""Tenants on both stores: a key of its own for every video, rules and budget per tenant, turns in the queue."""

from __future__ import annotations

import bisect
import shutil
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coefvq.cascade.audit_sample import AuditSample
from coefvq.errors import DataError
from coefvq.records import ScoredVideo, VideoInput
from coefvq.vmp import audit_archive, audit_store, feed, loop, served, shares
from coefvq.vmp.budget import Limits, set_limits
from coefvq.vmp.campaigns import Campaigns
from coefvq.vmp.deployment import Deployment, judge
from coefvq.vmp.escalations import Escalations
from coefvq.vmp.index import IndexStore, open_index
from coefvq.vmp.keys import DEFAULT, key, shown, split, tenant_of
from coefvq.vmp.lanes import ends
from coefvq.vmp.log import EventLog, open_log
from coefvq.vmp.outlook import outlook
from coefvq.vmp.overrides import override
from coefvq.vmp.pending import LEASE_SECONDS, Pending, drop, write_task
from coefvq.vmp.records import AUDIT, LIVE, Event, Lane, Task
from coefvq.vmp.retention import forget
from coefvq.vmp.revisions import Reviser
from coefvq.vmp.rule_trial import trial
from coefvq.vmp.rules import parse_rules
from coefvq.vmp.shares import AHEAD, Share, Shares, set_tenants
from coefvq.vmp.state import open_state
from tests.vmp_world import NOW, FixedDeployment, Pair, by_rules, deployment, promote

NO_RULE = parse_rules("rules: []\ndefault: removed\npending: live", "r")


def by_title(video: VideoInput) -> float:
    """Base score: title "7" → 0.7."""
    return int(video.title) / 10


@dataclass
class World:
    """A state, a pair, rules per tenant, and a clock that only the test moves."""

    folder: Path
    log: EventLog
    index: IndexStore
    pair: Pair = field(default_factory=lambda: Pair(base=by_title))
    tenants: tuple[str, ...] = ("acme", "globex")
    seconds: float = 0.0
    epoch: int = 1

    def configure(self, *tenants: str) -> None:
        """As a run does that is started with these tenants."""
        self.tenants = tenants
        set_tenants(self.index.database, dict.fromkeys(tenants, Limits()))

    def deployment(self) -> Deployment:
        whole = deployment(self.pair, self.epoch)
        own = replace(whole, decide=by_rules(NO_RULE), pending=NO_RULE.pending)
        return replace(whole, tenants={name: own if name == "globex" else whole for name in self.tenants})

    def publish(self, tenant: str, *titles: str, **fields: Any) -> None:
        """Videos named v0, v1, ... of a tenant."""
        self.log.publish([Event(key(tenant, f"v{number}"), uri=f"/{tenant}/{number}", title=title, **fields)
                          for number, title in enumerate(titles)])  # fmt: skip

    def run(self, mllm: bool = True) -> None:
        now = lambda: NOW + timedelta(seconds=self.seconds)  # noqa: E731
        asked = [Escalations(self.log, self.index, now, lambda: self.seconds)] if mllm else []
        source, sink = ends(self.log, self.index)
        loop.run(source, FixedDeployment(self.deployment()), sink, stop=threading.Event(), batch_size=4,
                 on_batch=lambda report: None, once=True, clock=now,
                 work=[Reviser(self.log, self.index, now), *asked])  # fmt: skip

    def states(self, tenant: str) -> dict[str, str]:
        return {entry.video_id: entry.state for entry in served.scan(self.index.database, tenant=tenant)}

    def seen_by(self, tenant: str) -> dict[str, Any]:
        """All that a tenant can read."""
        database = self.index.database
        return {
            "get": served.get(database, key(tenant, "v0")),
            "page": served.page(database, "", 99, tenant=tenant),
            "after": served.page(database, "v0", 99, tenant=tenant),
            "live": served.page(database, "", 99, "live", tenant),
            "changes": feed.read(database, 0, 99, tenant).changes,
            "counts": self.index.states(tenant),
            "letters": self.index.dead_letters(tenant),
            "scores": sorted(self.index.scores("icd", tenant=tenant)),
            "places": list(self.log.places(tenant)),
            "queue": Pending(database).waiting(tenant),
            "trial": trial(self.log, self.index, NO_RULE, NOW, tenant),
        }


@pytest.fixture
def world(index_place: Path | str, tmp_path: Path) -> Iterator[World]:
    with open_log(tmp_path / "log.sqlite") as log, open_index(index_place) as index:
        for database in (log.database, index.database) if isinstance(index_place, Path) else (log.database,):
            database.connection.execute("PRAGMA synchronous = OFF")  # order is tested here, not power cuts
        promote(index, 1, "1-ab")
        made = World(tmp_path, log, index)
        made.configure("acme", "globex")
        yield made


def test_the_same_id_in_two_tenants_is_two_videos(world: World) -> None:
    world.publish(DEFAULT, "1", "9")
    world.publish("acme", "9")
    world.publish("globex", "1")
    world.run(mllm=False)
    assert world.states(DEFAULT) == {"v0": "live", "v1": "held"}
    assert world.states("acme") == {"v0": "held"}
    assert world.states("globex") == {"v0": "removed"}  # by its own rules
    world.run()
    assert [world.states(name) for name in (DEFAULT, "acme")] == [{"v0": "live", "v1": "removed"}, {"v0": "removed"}]
    assert world.index.states() == {"live": 1, "removed": 3}
    entry = served.get(world.index.database, key("acme", "v0"))
    assert entry is not None
    assert (entry.video_id, entry.source_version, entry.state) == ("v0", 1, "removed")


ACTS: dict[str, Callable[[World], object]] = {
    "an audit draw": lambda world: audit_store.make(world.index, "icd", 2, 1, (None, None), NOW, "acme"),
    "newer content": lambda world: world.publish("acme", "5", "5", "5"),
    "views": lambda world: world.publish("acme", "9", "1", views=5000),
    "an override": lambda world: override(world.log, world.index, key("acme", "v0"), "live", "ana", "why", NOW),
    "forgetting": lambda world: forget(world.folder, world.log, world.index, [key("acme", "v1")], NOW),
    "a deletion": lambda world: world.log.publish([Event(key("acme", "v0"), "delete")]),
    "a broken clip": lambda world: world.publish("acme", "x"),
    "a budget": lambda world: set_tenants(world.index.database, {"acme": Limits(0.001, 1.0, 5.0)}),
}


def test_nothing_of_a_tenant_is_read_or_changed_by_another(world: World) -> None:
    world.pair.audit = AuditSample(rate=1.0)
    for tenant in (DEFAULT, "acme", "globex"):
        world.publish(tenant, "9", "1")
    world.pair.base = lambda video: 0.9 if video.title == "x" else by_title(video)
    world.pair.mllm = lambda video: float("inf") if video.title == "x" else 0.9
    world.run()
    others = (DEFAULT, "globex")
    for name, act in ACTS.items():
        before, own = [world.seen_by(tenant) for tenant in others], world.seen_by("acme")
        act(world)
        world.run()
        assert [world.seen_by(tenant) for tenant in others] == before, name
        assert (world.seen_by("acme") == own) == (name in ("an audit draw", "a budget")), name
    draw = audit_store.get(world.index, 1, "acme")
    assert (draw.tenant, {tenant_of(row.video_id) for row in draw.drawn}) == ("acme", {"acme"})
    with pytest.raises(DataError, match="no audit draw 1"):
        audit_store.get(world.index, 1, DEFAULT)


def test_an_unknown_tenant_is_a_dead_letter_until_somebody_configures_it(world: World) -> None:
    world.publish("initech", "9", "1")
    world.publish("acme", "1")
    world.run()
    reason = "tenant 'initech' is not configured; name it in the file of --tenants, then retry dead letters"
    assert [(one.tenant, one.video_id, one.reason) for one in world.index.dead_letters()] == [
        ("initech", "v0", reason), ("initech", "v1", reason),
    ]  # fmt: skip
    assert world.pair.scored == [key("acme", "v0")]  # no model is asked
    assert (world.states("initech"), world.states("acme")) == ({}, {"v0": "live"})
    world.configure("acme", "initech")
    letters = world.index.dead_letters("initech")
    world.log.republish({one.key: one.source_version for one in letters})
    world.run()
    assert (world.states("initech"), world.index.dead_letters()) == ({"v0": "removed", "v1": "live"}, [])


def test_a_tenant_that_left_keeps_its_verdicts_and_gets_no_new_ones(world: World) -> None:
    """Newer content, a crossing of views, a campaign and a waiting task: a dead letter each, and no model call."""
    world.publish("acme", "1", "2", "9")
    world.run(mllm=False)
    world.configure("globex")
    calls = list(world.pair.scored)
    world.publish("acme", "3", "2", views=5000)
    world.epoch = promote(world.index, 2, "2-cd")
    world.pair.bundle = "2-cd"
    Campaigns(world.index.database).start(NOW)
    world.run()
    assert world.pair.scored == calls
    assert {one.video_id for one in world.index.dead_letters("acme")} == {"v0", "v1", "v2"}
    assert world.states("acme") == {"v0": "live", "v1": "live", "v2": "held"}
    campaign = Campaigns(world.index.database).last()
    assert campaign is not None
    assert campaign.state == "done"
    world.configure("acme")
    world.log.republish({one.key: one.source_version for one in world.index.dead_letters("acme")})
    world.run()
    assert world.states("acme") == {"v0": "removed", "v1": "removed", "v2": "removed"}


def test_a_tenant_s_deletion_that_nobody_expects_is_said_too(world: World) -> None:
    world.publish("initech", "1")
    world.log.publish([Event(key("initech", "v0"), "delete")])
    world.run()
    assert [(one.source_version, one.tenant) for one in world.index.dead_letters()] == [(2, "initech")]


# --- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tenant", "video_id"), [(DEFAULT, "a"), ("acme", "a"), ("acme", "a/b"), (DEFAULT, "acme/a")])
def test_a_key_is_one_to_one(tenant: str, video_id: str) -> None:
    assert split(key(tenant, video_id)) == (tenant, video_id)


def test_an_id_that_looks_like_a_key_is_refused() -> None:
    with pytest.raises(DataError, match=r"holds the control character U\+001F"):
        key(DEFAULT, key("acme", "a"))
    assert (shown(key("acme", "a")), shown("a")) == ("acme/a", "a")


def test_neighbours_in_the_alphabet_are_not_mixed(world: World) -> None:
    world.configure("a", "a-b", "ab", "a.b")
    for tenant in world.tenants:
        world.publish(tenant, "1", "1")
    world.publish(DEFAULT, "1")
    world.log.publish([Event(name, title="1") for name in ("a", "ab", "a-b/v0", "~", "ö")])
    world.run()
    assert [world.states(tenant) for tenant in world.tenants] == [{"v0": "live", "v1": "live"}] * 4
    assert set(world.states(DEFAULT)) == {"v0", "a", "ab", "a-b/v0", "~", "ö"}


def test_the_archive_of_audit_rows_forgets_one_tenant_s_video(world: World) -> None:
    for tenant in (DEFAULT, "acme"):
        world.publish(tenant, "1")
    world.run()
    archive = world.folder / audit_archive.FOLDER
    assert audit_archive.archive(world.index.database, archive, "9999") == 2
    forget(world.folder, world.log, world.index, [key("acme", "v0")], NOW)
    assert audit_archive.forget(archive, [key("acme", "v0")]) == 0
    assert audit_archive.forget(archive, ["v0"]) == 1
    assert (world.states("acme"), world.states(DEFAULT)) == ({"v0": "deleted"}, {"v0": "live"})


# --- budgets and turns -----------------------------------------------------------------------------------------------


def test_each_tenant_s_budget_is_its_own_and_the_whole_one_bounds_all(world: World) -> None:
    database = world.index.database
    set_tenants(database, {"acme": Limits(0.5, 1.0, 1000.0), "globex": Limits()})
    world.publish("acme", *"99999")
    world.publish("globex", *"9999999999")
    world.run(mllm=False)
    calls: list[list[str]] = []
    pending = Pending(database, "me")
    for second in range(8):
        if second == 4:
            set_limits(database, Limits(1.0, 1.0, 1000.0))
        tasks = pending.lease(1, 2, NOW.timestamp() + second)
        with database.transaction() as connection:
            drop(connection, tasks)
        calls.append([tenant_of(task.video_id) for task in tasks])
    # at first one of acme's own every two seconds; then one of the whole budget a second, in turns
    assert calls[:4] == [["acme", "globex"], ["globex", "globex"], ["acme", "globex"], ["globex", "globex"]]
    assert [len(names) for names in calls[4:]] == [1, 1, 1, 1]
    deadlines = database.query("SELECT DISTINCT tenant, deadline FROM pending ORDER BY tenant")
    assert [(tenant, deadline is not None) for tenant, deadline in deadlines] == [("acme", True), ("globex", True)]
    seen = outlook(database, NOW.timestamp(), "acme")
    assert (seen.rate, seen.bounded, outlook(database, NOW.timestamp()).rate) == (0.5, True, 1.0)


def test_calls_that_asked_nothing_are_given_back_to_their_tenant(world: World) -> None:
    database = world.index.database
    set_tenants(database, {"acme": Limits(0.001, 2.0, 1000.0)})
    world.publish("acme", "9", "9")
    world.run(mllm=False)
    pending = Pending(database, "me")
    tasks = pending.lease(1, 9, NOW.timestamp())
    assert len(tasks) == 2
    before = database.query("SELECT tokens, served, turn FROM tenants WHERE tenant = 'acme'")[0]
    pending.refund(tasks)
    after = database.query("SELECT tokens, served, turn FROM tenants WHERE tenant = 'acme'")[0]
    assert np.subtract(after, before).tolist() == [2.0, -2.0, -2.0]


def parts(**turns: int) -> Shares:
    return {name: Share(Limits(), 0.0, 0, turn, AHEAD + 1) for name, turn in turns.items()}


def test_who_waits_with_less_goes_first_but_not_for_ever() -> None:
    known = parts(large=0, small=0)
    served = []
    for _ in range(3 * AHEAD):  # the small one's tasks come as fast as they are served
        known["small"].waiting = 3
        served.append(shares.first(known, ["large", "small"]))
        shares.take(known[served[-1]], 1)
    assert served[:AHEAD] == ["small"] * AHEAD
    assert served[AHEAD:].count("small") == AHEAD


def test_nobody_saves_up_turns() -> None:
    known = parts(acme=0, globex=0)
    for _ in range(500):
        shares.take(known[shares.first(known, ["globex"])], 1)
    assert known["acme"].turn >= 499
    assert shares.first(known, ["acme", "globex"]) == "acme"  # one call behind at most, not 500


def test_who_comes_later_begins_beside_the_others(world: World) -> None:
    database = world.index.database
    with database.transaction() as connection:
        connection.execute("UPDATE tenants SET turn = 500")
    set_tenants(database, {"initech": Limits()})
    # who is gone keeps its place, so that its tasks are served
    assert {name: share.turn for name, share in shares.read(database.connection).items()} == dict.fromkeys(
        (DEFAULT, "acme", "globex", "initech"), 500
    )


# --- a flood ---------------------------------------------------------------------------------------------------------

PERIOD, BURST, PERIODS, FLOOD = 60, 6, 2, 100


def p99_wait(index: IndexStore, tenants: dict[str, str], flooded: bool, rate: float | None, per_lease: int) -> float:
    """Seconds that a small tenant's tasks wait: a burst a minute, beside another who sends 100 times as many.

    One lease a second, on a clock that is counted. ``tenants`` says under which name each of the two is stored.
    """
    database = index.database
    with database.transaction() as connection:
        connection.execute("DELETE FROM pending")
    set_limits(database, Limits(rate, 1.0, None))
    start, waits = NOW.timestamp(), []
    pending = Pending(database, "me")
    for second in range(PERIODS * PERIOD):
        at = start + second
        with database.transaction() as connection:
            if second % PERIOD == 0:
                enqueue(connection, key(tenants["small"], f"small-{second}"), BURST, at)
            if flooded:
                enqueue(connection, key(tenants["large"], f"large-{second}"), FLOOD * BURST // PERIOD, at - 0.5)
        tasks = pending.lease(1, per_lease, at)
        with database.transaction() as connection:
            drop(connection, tasks)
        waits += [at - task.enqueued for task in tasks if "small" in task.video_id]
    left = database.query("SELECT count(*) FROM pending WHERE video_id LIKE '%small%'")[0][0]
    return float(np.quantile(waits + [float(PERIODS * PERIOD)] * left, 0.99))


def enqueue(connection: Any, name: str, many: int, at: float, lane: Lane = LIVE) -> None:
    for number in range(many):
        write_task(connection, Task(f"{name}-{number}", 1, 1, None, lane, 0.9, 1, {"icd": {"base_score": 0.9}}, at))


@pytest.mark.parametrize("index_place", ["sqlite", pytest.param("postgres", marks=pytest.mark.long)], indirect=True)
@pytest.mark.parametrize(("rate", "per_lease"), [(0.5, 8), (None, 1)], ids=["by budget", "by capacity"])
def test_a_flood_of_one_tenant_delays_another_by_half_at_most(world: World, rate: float | None, per_lease: int) -> None:
    set_tenants(world.index.database, {"small": Limits(), "large": Limits()})
    names = {"small": "small", "large": "large"}
    alone, beside = (p99_wait(world.index, names, flooded, rate, per_lease) for flooded in (False, True))
    print(f"p99 wait alone {alone:.1f} s, beside a flood {beside:.1f} s")
    assert alone > 2
    assert beside <= 1.5 * alone
    # first come, first served: both in one tenant's queue
    control = p99_wait(world.index, dict.fromkeys(names, DEFAULT), True, rate, per_lease)
    assert control > 5 * alone


class Arriving:
    """The log as far as its events have arrived by a counted clock."""

    def __init__(self, log: EventLog, arrivals: Sequence[float]) -> None:
        self.log, self.arrivals, self.clock = log, arrivals, 0.0

    def last_offset(self) -> int:
        return bisect.bisect_right(self.arrivals, self.clock)

    def poll(self, after: int, max_n: int, *lane: Any) -> list[Event]:
        return [event for event in self.log.poll(after, max_n, *lane) if event.offset <= self.last_offset()]

    def waiting(self, after: int, most: int, *lane: Any) -> int:
        return len(self.poll(after, most, *lane))


CLIP_SECONDS, SENT, BATCH, HOUR = 1.0, 40, 4, 400.0


def p99_of_base_verdicts(world: World, flooded: bool, names: dict[str, str], seconds: int) -> float:
    """Seconds from arrival to base verdict of a tenant that sends ``SENT`` clips at once, 100 times fewer than another.

    The other's clips come evenly, ten times as fast as they can be scored.
    """
    sent = [(0.0005 + HOUR / 8, key(names["small"], f"small-{number}")) for number in range(SENT)]
    if flooded:
        every = HOUR / (FLOOD * SENT)
        sent += [(every * number, key(names["large"], f"large-{number}")) for number in range(int(seconds / every))]
    sent.sort()
    world.log.publish([Event(name, title="1") for _, name in sent])
    arriving = Arriving(world.log, [at for at, _ in sent])

    def slow(videos: Sequence[VideoInput]) -> list[ScoredVideo]:
        arriving.clock += CLIP_SECONDS * len(videos)
        return Pair(base=by_title)(videos)

    used = replace(deployment(slow), tenants=dict.fromkeys(("small", "large"), deployment(slow)))
    source, sink = ends(arriving, world.index)  # type: ignore[arg-type]
    waits: list[float] = []
    while len(waits) < SENT:
        events = source.poll(sink.committed("vmp"), BATCH)
        if not events:
            arriving.clock = arriving.arrivals[arriving.last_offset()]
            continue
        sink.apply(judge(events, used, {}, NOW), "vmp", events[-1].offset)
        waits += [arriving.clock - arriving.arrivals[event.offset - 1] for event in events if "small" in event.video_id]
    return float(np.quantile(waits, 0.99))


def test_a_flood_of_one_tenant_holds_up_no_base_verdict_of_another(tmp_path: Path) -> None:
    names, waits = {"small": "small", "large": "large"}, dict[str, float]()
    plans = {"alone": (False, names), "beside": (True, names), "first come": (True, dict.fromkeys(names, DEFAULT))}
    for plan, (flooded, used) in plans.items():
        with open_log(tmp_path / f"{plan}.log") as log, open_index(tmp_path / plan) as index:
            for database in (log.database, index.database):
                database.connection.execute("PRAGMA synchronous = OFF")  # time is counted here, not measured
            promote(index, 1, "1-ab")
            made = World(tmp_path, log, index)
            made.configure(*(name for name in names if used is names))
            waits[plan] = p99_of_base_verdicts(made, flooded, used, 100)
    print("p99 of the base verdict: " + ", ".join(f"{plan} {wait:.1f} s" for plan, wait in waits.items()))
    assert waits["beside"] <= 1.5 * waits["alone"]
    assert waits["first come"] > 5 * waits["alone"]


def test_each_tenant_s_events_are_read_once_and_offsets_end_at_the_end(world: World) -> None:
    for number in range(4):
        for tenant in (DEFAULT, "acme", "globex", "initech"):
            world.publish(tenant, *["1"] * (1 + number))
    world.run()
    seen = Counter(tenant_of(name) for (name,) in world.index.database.query("SELECT video_id FROM effects"))
    assert seen == {DEFAULT: 4, "acme": 4, "globex": 4, "initech": 4}
    last = world.log.last_offset()
    assert world.index.consumers() == {"vmp": last, key("vmp", "acme"): last, key("vmp", "globex"): last}
    world.run()
    assert world.index.database.query("SELECT count(*) FROM effects") == [(16,)]


def test_who_is_configured_late_gets_what_was_published_before(world: World) -> None:
    world.publish("initech", "1", "9")
    world.run()
    assert len(world.index.dead_letters("initech")) == 2
    world.configure("acme", "initech")
    world.run()
    assert (world.states("initech"), world.index.dead_letters()) == ({"v0": "live", "v1": "removed"}, [])
    # and when nobody is configured any more, nothing is passed over in silence
    world.publish("initech", "3")
    world.configure()
    world.run()
    assert [letter.video_id for letter in world.index.dead_letters("initech")] == ["v0"]


def test_audits_of_a_flood_do_not_come_before_another_s_tasks(world: World) -> None:
    database = world.index.database
    set_tenants(database, {"small": Limits(), "large": Limits()})
    with database.transaction() as connection:
        enqueue(connection, key("large", "x"), 50, 0.0, AUDIT)
        enqueue(connection, key("small", "x"), 3, 1.0)
    tasks = Pending(database, "me").lease(1, 8, 2.0)
    assert [tenant_of(task.video_id) for task in tasks].count("small") == 3


def test_while_the_mllm_is_down_stand_ins_come_in_turns(world: World) -> None:
    database = world.index.database
    set_tenants(database, {"small": Limits(), "large": Limits()})
    with database.transaction() as connection:
        enqueue(connection, key("large", "x"), 50, 0.0)
        enqueue(connection, key("small", "x"), 2, 1.0)
    tasks = Pending(database).unsilenced(1, 5)
    assert sorted(tenant_of(task.video_id) for task in tasks) == ["large"] * 3 + ["small"] * 2


def test_few_events_behind_a_long_log_are_found_window_by_window(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("coefvq.vmp.log.WINDOW", "coefvq.vmp.lanes.WINDOW"):
        monkeypatch.setattr(module, 5)
    world.publish("acme", *["1"] * 23)
    world.publish("globex", "1")
    world.publish(DEFAULT, "1")
    world.run()
    assert world.index.database.query("SELECT count(*) FROM effects") == [(25,)]
    assert set(world.index.consumers().values()) == {25}


def test_a_crash_at_any_statement_ends_in_the_same_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def publish(folder: Path) -> None:
        with open_state(folder) as (log, index):
            made = World(folder, log, index)
            promote(index, 1, "1-ab")
            made.configure("acme", "globex")
            for tenant in (DEFAULT, "acme", "globex", "initech"):
                made.publish(tenant, "1", "9", "4")
                log.publish([Event(key(tenant, "v0"), "delete")])

    def live(folder: Path, seconds: float = 0.0) -> None:
        with open_state(folder) as (log, index):
            for database in (log.database, index.database):
                database.connection.execute("PRAGMA synchronous = OFF")  # a dying process, not a power cut
            World(folder, log, index, seconds=seconds).run()

    def contents(folder: Path) -> list[Any]:
        columns = "video_id, state, rule, source_version, epoch, rank, value, held"
        with open_state(folder) as (_, index):
            assert len(index.dead_letters("initech")) == 3
            effects = index.database.query("SELECT offset FROM effects WHERE consumer LIKE 'vmp%'")
            assert sorted(effects) == [(number,) for number in range(1, 17)]
            return [index.database.query(f"SELECT {columns} FROM entries ORDER BY 1"), index.consumers()]  # noqa: S608

    publish(tmp_path / "published")
    shutil.copytree(tmp_path / "published", tmp_path / "whole")
    live(tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    original, left = sqlite3.connect, [0]

    class Dying(sqlite3.Connection):
        def execute(self, sql: str, *rest: object) -> sqlite3.Cursor:
            left[0] -= sql.split()[0] not in ("SELECT", "PRAGMA")
            if left[0] < 0:
                raise KeyboardInterrupt
            return super().execute(sql, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(sqlite3, "connect", lambda *args, **named: original(*args, factory=Dying, **named))
    for lives in range(0, 2000, 23):
        folder, left[0] = tmp_path / f"torn {lives}", lives
        shutil.copytree(tmp_path / "published", folder)
        try:
            live(folder)
        except KeyboardInterrupt:
            left[0] = 10**9
            live(folder, LEASE_SECONDS + 1)  # this process lives on, so the lease has to end
            assert contents(folder) == expected
        else:
            break
    assert lives > 100  # it died at many places, and at last at none
