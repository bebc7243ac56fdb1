"""The base verdict and the MLLM's task: one transaction, one queue, served by score within a budget."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event as Flag
from typing import Any

import pytest

from coefvq.cascade.audit_sample import AuditSample
from coefvq.errors import ConfigError
from coefvq.records import VideoInput
from coefvq.vmp import budget, leases, loop
from coefvq.vmp.budget import Limits, parse_rate, set_limits
from coefvq.vmp.deployment import judge
from coefvq.vmp.escalations import Escalations
from coefvq.vmp.index import IndexStore
from coefvq.vmp.log import EventLog
from coefvq.vmp.outlook import outlook
from coefvq.vmp.pending import CAMPAIGN_EVERY, LEASE_SECONDS, Pending
from coefvq.vmp.records import Event
from coefvq.vmp.revisions import Reviser
from coefvq.vmp.rules import parse_rules
from coefvq.vmp.state import open_state
from tests.postgres import schema_of
from tests.vmp_world import NOW, POLICY, FixedDeployment, Pair, by_rules, deployment, promote


def by_id(video: VideoInput) -> float:
    """Base score: v7 → 0.7."""
    return int(video.video_id[1:]) / 10


@dataclass
class World:
    """A state, a pair and a clock that only the test moves."""

    log: EventLog
    index: IndexStore
    pair: Pair = field(default_factory=lambda: Pair(base=by_id))
    seconds: float = 0.0
    epoch: int = 1

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds)

    def base(self, *names: str, **fields: object) -> None:
        """Publish videos and give them their base verdicts only."""
        self.log.publish([Event(name, uri=f"/{name}", **fields) for name in names])  # type: ignore[arg-type]
        self.run()

    def run(self, *work: loop.Work, once: bool = True, **parts: object) -> None:
        used = deployment(self.pair, self.epoch, **parts)  # type: ignore[arg-type]
        loop.run(self.log, FixedDeployment(used), self.index, stop=Flag(), on_batch=lambda report: None,
                 batch_size=4, once=once, clock=self.now, work=work)  # fmt: skip

    def mllm(self) -> Escalations:
        return Escalations(self.log, self.index, self.now, lambda: self.seconds)

    def serve(self, worker: Escalations | None = None, limit: int = 4, **parts: object) -> int:
        return (worker or self.mllm()).urgent(deployment(self.pair, self.epoch, **parts), limit)  # type: ignore[arg-type]

    def tasks(self) -> list[tuple[object, ...]]:
        return self.index.database.query("SELECT video_id, source_version, epoch, lane FROM pending ORDER BY video_id")

    def state(self, name: str) -> tuple[str, int] | None:
        entry = self.index.get(name)
        return None if entry is None else (entry.state, entry.rank)


@contextmanager
def opened(folder: Path, **parts: Any) -> Iterator[World]:
    with open_state(folder) as (log, index):
        for database in (log.database, index.database):
            if isinstance(database.connection, sqlite3.Connection):
                database.connection.execute("PRAGMA synchronous = OFF")  # order is tested here, not power cuts
        yield World(log, index, **parts)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.long)])
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "postgres":
        url = schema_of(request.getfixturevalue("postgres_url"), "queue")
        (tmp_path / "vmp").mkdir()
        (tmp_path / "vmp" / "state.yaml").write_text(f"index: {url}")
    with opened(tmp_path / "vmp") as made:
        yield made


@pytest.mark.parametrize(("pending", "state"), [("hold", "held"), ("live", "live")])
def test_an_undecided_video_is_what_the_rules_say(world: World, pending: str, state: str) -> None:
    world.log.publish([Event("v1"), Event("v9")])
    world.run(pending=pending)
    assert (world.state("v1"), world.state("v9")) == (("live", 2), (state, -1))
    assert world.tasks() == [("v9", 1, 1, 1)]
    assert world.index.states() == ({"held": 1, "live": 1} if pending == "hold" else {"live": 2})
    world.run(world.mllm(), pending=pending)
    assert (world.state("v9"), world.tasks()) == (("removed", 2), [])
    assert world.pair.mllm_calls == ["v9"]


def test_verdict_and_task_are_one_transaction(world: World) -> None:
    used = deployment(world.pair)
    (event,) = world.log.publish([Event("v9")])
    rows = judge([event], used, {}, NOW)
    assert rows[0].task is not None
    torn = rows[0]._replace(task=replace(rows[0].task, lane=9))  # type: ignore[arg-type]
    with pytest.raises(Exception, match=r"CHECK constraint failed|violates check constraint"):
        world.index.apply([torn], "vmp", 1)
    assert (world.state("v9"), world.tasks(), world.index.committed("vmp")) == (None, [], 0)


def test_a_deletion_in_the_batch_of_its_video_leaves_no_task(world: World) -> None:
    world.log.publish([Event("v9"), Event("v9", "delete"), Event("v8"), Event("v8", title="below")])
    world.pair.base = lambda video: 0.1 if video.title else by_id(video)
    world.run()  # all four are one batch
    assert world.tasks() == []
    assert (world.state("v9"), world.state("v8")) == (("deleted", 2), ("live", 2))


def test_the_highest_score_comes_first(world: World) -> None:
    world.base("v5", "v9", "v7", "v8", "v6")
    worker = world.mllm()
    while world.serve(worker, 2):
        pass
    assert world.pair.mllm_calls == ["v9", "v8", "v7", "v6", "v5"]


def test_newer_content_cancels_and_a_deletion_too(world: World) -> None:
    world.base("v8", "v9")
    world.base("v8", title="new")
    world.log.publish([Event("v9", "delete")])
    world.run()
    assert world.tasks() == [("v8", 2, 1, 1)]
    assert world.state("v9") == ("deleted", 2)


def test_newer_content_that_was_not_read_yet_voids_the_task(world: World) -> None:
    world.base("v8")
    world.log.publish([Event("v8", uri="/v8", title="new")])
    assert world.serve() == 1
    assert (world.pair.mllm_calls, world.tasks()) == ([], [])
    world.run(world.mllm())
    assert world.state("v8") == ("removed", 2)


def test_an_update_keeps_no_earlier_verdict_but_a_campaign_does(world: World) -> None:
    world.base("v1", "v9")
    world.run(world.mllm())
    world.pair.base = lambda video: 0.95
    world.base("v1", title="new")
    assert world.state("v1") == ("held", -1)  # other content: the answer about the old one does not count
    world.run(world.mllm())
    epoch = world.epoch = promote(world.index, 1, "1-ab") + 1
    event = world.log.newest(["v1"])["v1"]
    rows = judge([event], deployment(world.pair, epoch), world.index.known(["v1"]), NOW)
    world.index.revise(rows, "campaign")
    assert (world.state("v1"), world.tasks()) == (("removed", 2), [("v1", 2, epoch, 1)])


def test_a_thousand_views_are_one_task(world: World) -> None:
    """The crossing is answered at the views of then; while it waits nothing is decided again."""
    world.base("v1", views=1)
    reviser = Reviser(world.log, world.index, world.now)
    for views in range(500, 1500, 50):
        world.log.publish([Event("v1", uri="/v1", views=views)])
        world.run(reviser)
    assert (world.state("v1"), world.tasks()) == (("live", 2), [("v1", 1, 1, 1)])
    before = world.index.database.query("SELECT count(*) FROM effects WHERE consumer = 'views'")
    world.run(reviser, world.mllm())
    assert world.index.database.query("SELECT count(*) FROM effects WHERE consumer = 'views'") == before
    assert (world.pair.mllm_calls, world.pair.scored) == (["v1"], ["v1"])
    assert (world.state("v1"), world.index.due(9)) == (("removed", 2), [])
    assert world.index.known(["v1"])["v1"].views == 1450


def test_two_workers_share_the_queue_and_a_hung_one_loses_its_lease(world: World) -> None:
    world.base("v6", "v7", "v8", "v9")
    first, second = Pending(world.index.database, leases.owner()), Pending(world.index.database, leases.owner())
    at = world.now().timestamp()
    names = lambda tasks: [task.video_id for task in tasks]  # noqa: E731
    assert names(first.lease(1, 2, at)) == ["v9", "v8"]
    assert names(second.lease(1, 9, at)) == ["v7", "v6"]
    assert first.lease(1, 9, at + LEASE_SECONDS - 1) == []
    # a clock that is set back an hour makes no lease longer
    assert names(second.lease(1, 1, at - 3600)) == ["v9"]
    second.release()
    assert names(second.lease(1, 9, at + LEASE_SECONDS + 1)) == ["v9", "v8", "v7", "v6"]


def test_the_lease_of_a_dead_process_ends_at_once(world: World) -> None:
    world.base("v9")
    code = "from coefvq.vmp.leases import owner; print(owner())"
    name = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    at = world.now().timestamp()
    assert [task.video_id for task in Pending(world.index.database, name).lease(1, 9, at)] == ["v9"]
    assert (leases.alive(name), leases.alive(leases.owner()), leases.alive("elsewhere:1:2:ab")) == (False, True, True)
    assert leases.alive(leases.owner().replace(f":{os.getpid()}:", ":1:")) is False  # a later process of that number
    assert [task.video_id for task in Pending(world.index.database, leases.owner()).lease(1, 9, at)] == ["v9"]


def test_a_failed_answer_gives_the_tasks_back(world: World) -> None:
    world.base("v9")

    def broken(wanted: object) -> dict[str, object]:
        raise RuntimeError("the worker fell over")

    world.pair.ask = broken  # type: ignore[assignment, method-assign]
    with pytest.raises(RuntimeError):
        world.serve()
    assert world.index.database.query("SELECT owner FROM pending") == [(None,)]


def test_another_pair_scores_again_before_its_mllm_is_asked(world: World) -> None:
    """Never the base model of one pair with the MLLM of another."""
    world.epoch = promote(world.index, 1, "1-ab", models="one")
    world.base("v9")
    world.epoch = promote(world.index, 2, "2-cd", models="two")
    world.pair = Pair(bundle="2-cd", base=by_id)
    world.run(world.mllm(), models={"icd": "two"})
    assert (world.pair.scored, world.pair.mllm_calls) == (["v9"], ["v9"])
    entry = world.index.get("v9")
    assert entry is not None
    assert (entry.epoch, entry.bundle_version, world.tasks()) == (world.epoch, "icd=2-cd", [])


def test_the_same_models_under_a_new_policy_keep_their_base_score(world: World) -> None:
    world.epoch = promote(world.index, 1, "1-ab")
    world.base("v6", "v9")
    world.epoch = promote(world.index, 2, "2-cd")
    world.pair = Pair(POLICY.model_copy(update={"base_threshold": 0.8}), "2-cd", base=by_id)
    world.run(world.mllm())
    assert (world.pair.scored, world.pair.mllm_calls) == ([], ["v9"])
    assert (world.state("v6"), world.state("v9")) == (("live", 2), ("removed", 2))


def test_a_worker_of_an_older_epoch_leaves_newer_tasks(world: World) -> None:
    world.epoch = 2
    world.base("v9")
    world.epoch = 1
    assert (world.serve(), world.tasks()) == (0, [("v9", 1, 2, 1)])


def test_a_clip_that_the_mllm_cannot_score_is_a_dead_letter(world: World) -> None:
    world.pair.mllm = lambda video: float("inf") if video.video_id == "v9" else 0.9
    world.base("v8", "v9")
    world.run(world.mllm())
    assert [(letter.video_id, letter.held) for letter in world.index.dead_letters()] == [("v9", False)]
    assert (world.tasks(), world.state("v8")) == ([], ("removed", 2))


# --- the audit -------------------------------------------------------------------------------------------------------


def test_an_audit_is_answered_in_its_own_time(world: World) -> None:
    """A filtered-out video that was drawn has its base verdict at once; the MLLM's word replaces it."""
    world.pair.audit = AuditSample(rate=1.0)
    world.base("v1")
    assert (world.state("v1"), world.tasks()) == (("live", -1), [("v1", 1, 1, 0)])
    assert next(iter(world.index.scores("icd")))[1]["awaits"] == "audit"
    world.run(world.mllm())
    assert (world.state("v1"), world.tasks()) == (("removed", 3), [])
    assert next(iter(world.index.scores("icd")))[1]["audit_probability"] == 1.0


def test_a_base_verdict_is_replaced_by_an_audit_of_the_same_epoch(world: World) -> None:
    world.base("v1")
    assert world.state("v1") == ("live", 2)
    world.pair.audit = AuditSample(rate=1.0)
    used = deployment(world.pair)
    loop.run(world.log, FixedDeployment(used), world.index, stop=Flag(), on_batch=lambda report: None, batch_size=4,
             once=True, clock=world.now, work=[world.mllm()], consumer="again")  # fmt: skip
    assert world.state("v1") == ("removed", 3)
    # and is not undone by a run without one
    world.pair.audit = None
    loop.run(world.log, FixedDeployment(deployment(world.pair)), world.index, stop=Flag(), once=True, batch_size=4,
             on_batch=lambda report: None, clock=world.now, work=[world.mllm()], consumer="third")  # fmt: skip
    assert (world.state("v1"), world.tasks()) == (("removed", 3), [])


def test_a_promotion_loses_no_draw(world: World) -> None:
    """The worker that scores again need not know of the audit: the draw stays with the task."""
    world.epoch = promote(world.index, 1, "1-ab", models="one")
    world.pair.audit = AuditSample(rate=0.5, seed=3)
    names = [f"v{number}" for number in range(10)]
    world.base(*names)
    drawn = dict(zip(names, world.pair.audit.selected(names).tolist(), strict=True))
    world.epoch = promote(world.index, 2, "2-cd", models="two")
    world.pair = Pair(bundle="2-cd", base=lambda video: 0.9 - by_id(video))
    world.run(world.mllm(), models={"icd": "two"})
    scores = dict(world.index.scores("icd"))
    queued = [name for name in names if drawn[name] or int(name[1:]) >= 5]  # the others had their full verdicts
    for name in queued:
        filtered = 0.9 - int(name[1:]) / 10 < 0.5
        assert (scores[name].get("audit_probability") is not None) == filtered
        assert (scores[name]["mllm_score"] is not None) == (drawn[name] or not filtered)
    assert world.tasks() == []


# --- the budget ------------------------------------------------------------------------------------------------------


def test_a_budget_hands_out_calls_at_its_rate(world: World) -> None:
    set_limits(world.index.database, Limits(0.5, 2.0, 100.0))
    world.base("v5", "v6", "v7", "v8", "v9")
    worker, counts = world.mllm(), []
    for _ in range(8):
        before = len(world.pair.mllm_calls)
        world.serve(worker)
        counts.append(len(world.pair.mllm_calls) - before)
        world.seconds += 1.0
    assert counts == [2, 0, 1, 0, 1, 0, 1, 0]
    assert world.pair.mllm_calls == ["v9", "v8", "v7", "v6", "v5"]


def test_a_clock_that_is_set_back_gives_no_calls_and_takes_none(world: World) -> None:
    set_limits(world.index.database, Limits(1.0, 1.0, 100.0))
    world.base("v5", "v6", "v7", "v8", "v9")
    worker = world.mllm()
    for step in (0.0, -3600.0, 0.5, 0.5, 3600.0):
        world.seconds += step
        world.serve(worker)
    assert world.pair.mllm_calls == ["v9", "v8", "v7"]


def test_what_waits_too_long_is_given_up_and_an_audit_never(world: World) -> None:
    set_limits(world.index.database, Limits(0.01, 1.0, 50.0))
    world.pair.audit = AuditSample(rate=0.5, seed=3)
    drawn = dict(zip(ids := [f"v{n}" for n in range(5, 10)], world.pair.audit.selected(ids).tolist(), strict=True))
    assert set(drawn.values()) == {True, False}
    world.base(*ids)
    worker = world.mllm()
    for _ in range(70):
        world.serve(worker)
        world.seconds += 1.0
    given_up = [name for name in ids[:-1] if not drawn[name]]
    assert {name: world.state(name) for name in given_up} == dict.fromkeys(given_up, ("live", 1))
    lanes = {str(name): lane for name, _, _, lane in world.tasks()}
    assert lanes == {name: 0 for name in ids[:-1] if drawn[name]}  # shed by the budget, kept by the audit
    found = outlook(world.index.database, world.now().timestamp())
    assert (found.shed, found.certificate_holds) == (len(given_up), False)
    for _ in range(400):
        world.serve(worker)
        world.seconds += 1.0
    scores = dict(world.index.scores("icd"))
    assert {name for name in ids if scores[name].get("audit_probability") == 0.5} == set(ids[:-1])
    assert {name for name in ids if scores[name]["mllm_score"] is not None} == {"v9", *lanes}
    reasons = {
        name: json.loads(routes)["icd"]
        for name, routes in world.index.database.query("SELECT video_id, routes FROM effects ORDER BY number")
    }
    assert {reasons[name]["reason"] for name in given_up} == {"expired"}
    assert {reasons[name]["reason"] for name in lanes} == {"audit"}
    assert reasons["v9"] == {"reason": "score", "threshold": 0.5, "propensity": 1.0}
    assert {reasons[name]["propensity"] for name in ids[:-1]} == {0.5}


def test_time_in_which_nobody_serves_makes_no_task_expire(world: World) -> None:
    set_limits(world.index.database, Limits(0.001, 1.0, 100.0))
    world.base("v8", "v9")
    world.seconds += 86_400.0
    worker = world.mllm()
    world.serve(worker)
    assert world.tasks() == [("v8", 1, 1, 1)]


def test_a_campaign_gets_its_share_of_a_busy_queue(world: World) -> None:
    database = world.index.database
    world.base("v9")
    rows = database.query("SELECT * FROM pending")[0]
    columns = len(rows)
    for number in range(3 * CAMPAIGN_EVERY):
        made = list(rows)
        made[0], made[4] = f"w{number}", 1 if number < 2 * CAMPAIGN_EVERY else 2
        database.connection.execute(f"INSERT INTO pending VALUES ({','.join('?' * columns)})", made)  # noqa: S608
    tasks = Pending(database, "me").lease(1, 2 * CAMPAIGN_EVERY, 0.0)
    assert [number for number, task in enumerate(tasks) if task.lane == 2] == [
        CAMPAIGN_EVERY - 1,
        2 * CAMPAIGN_EVERY - 1,
    ]


def test_the_outlook_says_what_waiting_means(world: World) -> None:
    set_limits(world.index.database, Limits(0.1, 1.0, 20.0))
    world.base("v5", "v6", "v7", "v8", "v9")
    found = outlook(world.index.database, world.now().timestamp() + 3.0)
    assert (found.tasks, found.rate, found.expected_wait, found.oldest_wait) == (5, 0.1, 20.0, 3.0)
    assert found.effective_threshold == 0.7  # two calls in 20 s: the third in the queue is not reached in time
    world.seconds += 5.0
    world.serve()
    found = outlook(world.index.database, world.now().timestamp())
    assert found.takedown is not None
    assert (found.takedown.p50, found.takedown.videos, found.answered) == (5.0, 1, found.takedown)
    set_limits(world.index.database, Limits())
    found = outlook(world.index.database, world.now().timestamp())
    assert (found.expected_wait, found.effective_threshold, found.certificate_holds) == (None, None, True)


@pytest.mark.parametrize(("text", "rate"), [("0.5/s", 0.5), ("36/hour", 0.01), ("8640/day", 0.1)])
def test_a_rate_is_calls_per_time(text: str, rate: float) -> None:
    assert parse_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["", "5", "5/", "/s", "nan/s", "inf/s", "-1/s", "0/s", "5/month", "1e400/day"])
def test_a_rate_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"such as 0.5/s"):
        parse_rate(text)


def test_a_new_budget_holds_for_what_waits(world: World) -> None:
    world.base("v8", "v9")
    set_limits(world.index.database, Limits(0.001, 1.0, 30.0))
    worker = world.mllm()
    for _ in range(40):
        world.serve(worker)
        world.seconds += 1.0
    assert (world.state("v8"), world.tasks()) == (("live", 1), [])
    assert budget.get(world.index.database).served == 1


# --- the outage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["hold", "base_only", "ignore"])
def test_an_outage_ends_in_the_index_of_a_run_without_one(tmp_path: Path, rule: str) -> None:
    """60 s down under a budget: nobody's time runs out, and every verdict is as if nothing had been."""
    contents = []
    for name, down in (("down", range(60)), ("never", range(0))):
        pair = Pair(POLICY.model_copy(update={"mllm_down": rule}), base=by_id)
        with opened(tmp_path / name, pair=pair) as world:
            log, index = world.log, world.index
            set_limits(index.database, Limits(1.0, 4.0, 20.0))
            worker, reviser = world.mllm(), Reviser(log, index, world.now)
            for second in range(100):
                world.seconds, world.pair.down = float(second), second in down
                if second < 10:
                    log.publish([Event(f"v{second}", uri=f"/{second}", views=5000 if second == 3 else 5)])
                world.run(reviser)
                world.serve(worker)
                if second == 30 and down:
                    stand_in = {"hold": ("held", -1), "base_only": ("removed", 1), "ignore": ("live", 1)}[rule]
                    assert world.state("v9") == stand_in
                    assert len(index.dead_letters()) == (6 if rule == "hold" else 0)
            assert (world.tasks(), index.dead_letters(), index.due(9)) == ([], [], [])
            columns = "video_id, state, rule, source_version, epoch, rank, views, value, held"
            contents.append(index.database.query(f"SELECT {columns} FROM entries ORDER BY video_id"))  # noqa: S608
            assert len(set(world.pair.mllm_calls)) == len(world.pair.mllm_calls) == 6
    assert contents[0] == contents[1]


# --- age -------------------------------------------------------------------------------------------------------------

OLD = 'rules: [{name: old, when: [{field: age_hours, op: "OP", value: 2}], then: THEN}]\ndefault: live'


@pytest.mark.parametrize("op", [">", ">="])
def test_a_rule_on_age_comes_due_by_itself(world: World, op: str) -> None:
    rules = parse_rules(OLD.replace("OP", op).replace("THEN", "removed"), "r")
    parts = {"decide": by_rules(rules), "rules": rules}
    world.log.publish([Event("v1", published_at=NOW.isoformat()), Event("v2")])
    reviser = Reviser(world.log, world.index, world.now)
    world.run(reviser, **parts)
    world.seconds = 7200.0
    world.run(reviser, **parts)
    assert world.index.states() == {"live": 2}
    world.seconds = 7201.0
    world.run(reviser, **parts)
    assert (world.state("v1"), world.state("v2")) == (("removed", 2), ("live", 2))
    assert world.pair.scored == ["v1", "v2"]  # no model was asked again
    assert world.index.aged(world.now().timestamp() + 1e9, 9) == []
    # an older decision comes late
    events = world.log.poll(0, 1)
    world.index.revise(judge(events, deployment(world.pair, 1, **parts), {}, NOW), "late")  # type: ignore[arg-type]
    assert world.state("v1") == ("removed", 2)


def test_a_video_that_is_too_young_for_the_index_enters_it_by_itself(world: World) -> None:
    rules = parse_rules(OLD.replace("OP", "<").replace("THEN", "ignored"), "r")
    parts = {"decide": by_rules(rules), "rules": rules}
    world.log.publish([Event("v1", published_at=NOW.isoformat())])
    reviser = Reviser(world.log, world.index, world.now)
    world.run(reviser, **parts)
    assert world.state("v1") is None
    world.seconds = 7201.0
    world.run(reviser, **parts)
    assert world.state("v1") == ("live", 2)


def test_the_mllm_is_asked_once_about_a_video_whose_answer_a_rule_ignores(world: World) -> None:
    rules = parse_rules("rules: [{name: spam, when: [{field: title, op: '==', value: spam}], then: ignored}]\n"
                        "default: live\n", "rules")  # fmt: skip
    world.base("v1", views=10)
    world.log.publish([Event("v1", uri="/v1", title="spam", views=POLICY.views_trigger)])
    world.run(decide=by_rules(rules))
    used = deployment(world.pair, world.epoch, decide=by_rules(rules))
    reviser, mllm = Reviser(world.log, world.index, world.now), world.mllm()
    for _ in range(3):
        reviser.urgent(used, 4)
        mllm.urgent(used, 4)
    assert (world.pair.mllm_calls, world.index.due(9), world.tasks()) == (["v1"], [], [])
    assert world.state("v1") == ("live", 2)
