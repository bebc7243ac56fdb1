"""Features in the stream: what rules see, what the index keeps, and what happens while a store is away."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coefvq.records import ScoredVideo, VideoInput
from coefvq.vmp import loop
from coefvq.vmp.deployment import Deployment
from coefvq.vmp.features.lookup import StoreLookup, open_lookup
from coefvq.vmp.features.settings import FeatureSettings, Store
from coefvq.vmp.features.values import HeldError
from coefvq.vmp.index import IndexStore, open_index
from coefvq.vmp.keys import key, tenant_of
from coefvq.vmp.log import EventLog, open_log
from coefvq.vmp.loop import Source
from coefvq.vmp.records import BatchReport, Event, Features, IndexEntry
from coefvq.vmp.rule_trial import trial
from coefvq.vmp.rules import Rules, parse_rules
from tests import feature_stores as real
from tests.unit.vmp.features.test_feature_guarded import Clock, Scripted, guarded
from tests.vmp_world import NOW, FixedDeployment, Pair, by_rules, deployment, work

RULES = parse_rules(
    """
rules:
  - {name: distrusted, when: [{field: creators.reputation, op: "<", value: 0.3}], then: removed}
  - {name: unknown creator, when: [{field: creators.status, op: "==", value: failed}], then: removed}
default: live
""",
    "rules.yaml",
)
#: a required store needs no word about its failure
PLAIN = RULES.model_copy(update={"rules": RULES.rules[:1]})


def harmless(videos: Sequence[VideoInput]) -> list[ScoredVideo]:
    return [ScoredVideo(v.video_id, "icd", 0.1, None, False, "base", "1-ab") for v in videos]


def settings(missing: str = "mark", name: str = "creators", **more: Any) -> Store:
    source = {"kind": "thrift", "port": 1}
    raw = {"name": name, "key": "creator_id", "fields": {"reputation": "number"}, "source": source}
    return Store.model_validate({**raw, "missing": missing, **more})


class ByKey(Scripted):
    """The reputation of creator ``c7`` is 0.7; of ``nobody`` there is none."""

    def fetch(self, keys: Sequence[str], seconds: float) -> dict[str, dict[str, float]]:
        super().fetch(keys, seconds)
        return {key: {"reputation": int(key[1:]) / 10} for key in keys if key != "nobody"}


@contextmanager
def lookup_of(*stores: tuple[Store, Scripted], failures: int = 5) -> Iterator[StoreLookup]:
    lookup = StoreLookup([(made, guarded(store, failures=failures, retry_share=0.0)) for made, store in stores])
    try:
        yield lookup
    finally:
        lookup.close()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[tuple[EventLog, IndexStore]]:
    with open_log(tmp_path / "log.sqlite") as log, open_index(tmp_path / "index.sqlite") as index:
        yield log, index


class Turning:
    """A stop flag whose wait turns the clock; ``until`` ends the run."""

    def __init__(self, clock: Clock, until: Callable[[], bool]) -> None:
        self.clock, self.until = clock, until

    def is_set(self) -> bool:
        return self.until()

    def wait(self, seconds: float) -> bool:
        self.clock.sleep(seconds)
        return self.until()


def decides(lookup: StoreLookup, rules: Rules = RULES, scorer: Any = harmless) -> Deployment:
    return replace(deployment(scorer, decide=by_rules(rules), rules=rules), lookup=lookup)


def drain(
    log: Source, index: IndexStore, lookup: StoreLookup, consumer: str = "vmp", rules: Rules = RULES
) -> list[BatchReport]:
    reports: list[BatchReport] = []
    loop.run(log, FixedDeployment(decides(lookup, rules)), index, stop=threading.Event(), on_batch=reports.append,
             batch_size=8, once=True, consumer=consumer)  # fmt: skip
    return reports


def entry(index: IndexStore, video_id: str) -> IndexEntry:
    found = index.get(video_id)
    assert found is not None
    return found


def shown(index: IndexStore, *ids: str) -> list[tuple[str, str, Any]]:
    return [(one.state, one.rule, one.value.get("features")) for one in (entry(index, video) for video in ids)]


def test_rules_see_features_and_the_index_keeps_them(state: tuple[EventLog, IndexStore]) -> None:
    log, index = state
    log.publish([Event(f"v{who}", creator_id=who) for who in ("c1", "c9", "nobody")])
    log.publish([Event("anonymous"), Event("vc9", "delete")])
    store = ByKey(Clock())
    with lookup_of((settings(), store)) as lookup:
        drain(log, index, lookup)
    assert shown(index, "vc1", "vnobody", "anonymous") == [
        ("removed", "distrusted", {"creators": {"status": "found", "reputation": 0.1}}),
        ("live", "default", {"creators": {"status": "absent"}}),
        ("live", "default", {"creators": {"status": "absent"}}),
    ]
    assert entry(index, "vc9").state == "deleted"
    assert store.asked == [3]  # each creator once, a deletion not at all


def test_a_missing_optional_store_is_marked_and_a_later_full_verdict_wins(state: tuple[EventLog, IndexStore]) -> None:
    log, index = state
    log.publish([Event("v", creator_id="c9")])
    clock = Clock()
    with lookup_of((settings(), ByKey(clock, lambda: clock.now < 1010.0)), failures=1) as lookup:
        drain(log, index, lookup)
        assert shown(index, "v") == [("removed", "unknown creator", {"creators": {"status": "failed"}})]
        assert entry(index, "v").rank == 1
        clock.now = 1020.0
        drain(log, index, lookup, consumer="again")
    assert shown(index, "v") == [("live", "default", {"creators": {"status": "found", "reputation": 0.9}})]
    assert entry(index, "v").rank == 2


def test_a_later_verdict_without_features_does_not_win(state: tuple[EventLog, IndexStore]) -> None:
    log, index = state
    log.publish([Event("v", creator_id="c9")])
    clock = Clock()
    with lookup_of((settings(), ByKey(clock))) as lookup:
        drain(log, index, lookup)
    with lookup_of((settings(), ByKey(clock, lambda: True))) as lookup:
        drain(log, index, lookup, consumer="again")
    assert shown(index, "v") == [("live", "default", {"creators": {"status": "found", "reputation": 0.9}})]


def test_a_missing_required_store_makes_dead_letters_that_a_retry_settles(state: tuple[EventLog, IndexStore]) -> None:
    log, index = state
    log.publish([Event("v", creator_id="c9"), Event("w", creator_id="nobody")])
    clock = Clock()
    with lookup_of((settings("dead_letter"), ByKey(clock, lambda: clock.now < 1010.0)), failures=1) as lookup:
        assert drain(log, index, lookup, rules=PLAIN)[0].dead == 2
        reasons = {letter.video_id: letter.reason for letter in index.dead_letters()}
        assert reasons["v"] == "features of creators: down"
        assert index.get("v") is None  # unscored: ignored by any rule but one on `error`
        clock.now = 1020.0
        log.republish({letter.video_id: letter.source_version for letter in index.dead_letters()})
        drain(log, index, lookup, rules=PLAIN)
    assert [(letter.video_id, letter.reason) for letter in index.dead_letters()] == [
        ("w", "features of creators: nothing about creator_id 'nobody'")
    ]
    assert entry(index, "v").state == "live"


def test_a_rule_on_error_takes_what_lacks_features(state: tuple[EventLog, IndexStore]) -> None:
    log, index = state
    text = 'rules: [{name: unsure, when: [{field: error, op: "==", value: true}], then: live}]\ndefault: removed'
    log.publish([Event("v", creator_id="c9")])
    with lookup_of((settings("dead_letter"), ByKey(Clock(), lambda: True))) as lookup:
        loop.run(log, FixedDeployment(decides(lookup, parse_rules(text, "r"))), index, stop=threading.Event(),
                 on_batch=lambda report: None, batch_size=8, once=True)  # fmt: skip
    assert (entry(index, "v").rule, entry(index, "v").rank) == ("unsure", 0)


def outage(log: EventLog, index: IndexStore, missing: str) -> tuple[ByKey, list[str], list[int]]:
    """Run while the store is down from second 5 to 35; 2 events come each second for 60 seconds."""
    clock = Clock()
    store = ByKey(clock, lambda: 1005.0 <= clock.now < 1035.0)
    held: list[str] = []
    polled: list[int] = []
    sent = 0

    class Arriving:
        def poll(self, after: int, max_n: int) -> list[Event]:
            nonlocal sent
            while sent < min(120, 2 * (clock.now - 1000.0)):
                log.publish([Event(f"v{sent}", creator_id=f"c{sent % 10}")])
                sent += 1
            events = log.poll(after, max_n)
            polled.append(len(events))
            return events

    with lookup_of((settings(missing), store)) as lookup:
        loop.run(Arriving(), FixedDeployment(decides(lookup, PLAIN)), index, batch_size=8, poll_interval=1.0,
                 stop=Turning(clock, lambda: index.committed("vmp") == 120), on_batch=lambda report: None,
                 on_hold=lambda error: held.append(str(error)))  # fmt: skip
    return store, held, polled


def test_thirty_seconds_of_outage_are_waited_for_without_a_loss(state: tuple[EventLog, IndexStore]) -> None:
    log, index = state
    store, held, polled = outage(log, index, "hold")
    for number in range(120):
        who = number % 10
        expected = ("removed", "distrusted") if who < 3 else ("live", "default")
        one = entry(index, f"v{number}")
        assert (one.state, one.rule, one.rank) == (*expected, 2)
        assert one.value["features"]["creators"] == {"status": "found", "reputation": who / 10}
    assert index.dead_letters() == []
    assert index.database.query("SELECT count(*) FROM effects") == [(120,)]
    # one batch in memory, a question that finds the store down five times and then every ten seconds, said each second
    assert max(polled) == 8
    assert 30 <= len(held) <= 41
    assert "features of creators: down; nothing of the batch was stored" in held[0]
    down = len(store.asked) - sum(count > 0 for count in polled) + len(held)
    assert down <= 9


def test_thirty_seconds_of_outage_end_in_dead_letters_that_a_retry_settles(state: tuple[EventLog, IndexStore]) -> None:
    log, index = state
    outage(log, index, "dead_letter")
    letters = {letter.video_id: letter.source_version for letter in index.dead_letters()}
    assert 50 < len(letters) < 90
    assert sum(index.states().values()) == 120 - len(letters)
    log.republish(letters)
    with lookup_of((settings("dead_letter"), ByKey(Clock()))) as lookup:
        drain(log, index, lookup, rules=PLAIN)
    assert (index.dead_letters(), sum(index.states().values())) == ([], 120)
    assert {entry(index, f"v{number}").rule for number in range(120)} == {"distrusted", "default"}


def test_one_row_of_garbage_holds_up_no_other(state: tuple[EventLog, IndexStore]) -> None:
    class OneBad(ByKey):
        def fetch(self, keys: Sequence[str], seconds: float) -> dict[str, Any]:
            return {**super().fetch(keys, seconds), "c1": {"reputation": "low"}}

    log, index = state
    log.publish([Event(f"v{who}", creator_id=who) for who in ("c1", "c9", "a\x00b", "x" * 2000)])
    with lookup_of((settings("hold"), OneBad(Clock()))) as lookup:
        drain(log, index, lookup, rules=PLAIN)
    reasons = [letter.reason for letter in index.dead_letters()]
    assert reasons[0] == "features of creators: key 'c1': reputation = 'low': expected a number"
    assert reasons[1] == "features of creators: the event has no usable creator_id"
    assert (len(reasons), entry(index, "vc9").state) == (3, "live")


def test_once_ends_with_the_reason_where_a_store_is_waited_for(state: tuple[EventLog, IndexStore]) -> None:
    log, index = state
    log.publish([Event("v", creator_id="c9")])
    calls: list[str] = []

    def scorer(videos: Sequence[VideoInput]) -> list[ScoredVideo]:
        calls.extend(video.video_id for video in videos)
        return harmless(videos)

    refused = pytest.raises(HeldError, match="features of creators: down; nothing of the batch was stored: start the")
    with lookup_of((settings("hold"), ByKey(Clock(), lambda: True))) as lookup, refused:
        loop.run(log, FixedDeployment(decides(lookup, scorer=scorer)), index, stop=threading.Event(),
                 on_batch=lambda report: None, batch_size=8, once=True)  # fmt: skip
    assert (index.committed("vmp"), calls) == (0, [])  # no model worked in vain


class Hanging(ByKey):
    """Does not end in time; ``go`` lets it go on."""

    def __init__(self) -> None:
        super().__init__(Clock())
        self.go = threading.Event()

    def fetch(self, keys: Sequence[str], seconds: float) -> dict[str, dict[str, float]]:
        self.asked.append(len(keys))
        self.go.wait(20)
        return {key: {"reputation": int(key[1:]) / 10} for key in keys}


def test_a_store_that_hangs_holds_up_no_other_and_its_late_answer_is_not_the_next_ones() -> None:
    hanging, quick = Hanging(), ByKey(Clock())
    events = [Event(f"v{number}", creator_id=f"c{number}") for number in range(3)]
    slow = settings(name="slow", deadline_s=0.01)
    with lookup_of((slow, hanging), (settings(), quick)) as lookup:
        for event in events[:2]:
            (found,) = lookup([event], {})
            assert found.values["slow"] == {"status": "failed"}
            assert found.values["creators"] == {"status": "found", "reputation": int(event.video_id[1:]) / 10}
        assert hanging.asked == [1]  # nothing piles up behind it
        hanging.go.set()
        lookup._lanes[0].last.result(20)
        assert lookup([events[2]], {})[0].values["slow"] == {"status": "found", "reputation": 0.2}


def test_stores_are_asked_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=20)

    class Meeting(ByKey):
        def fetch(self, keys: Sequence[str], seconds: float) -> dict[str, dict[str, float]]:
            meeting.wait()
            return super().fetch(keys, seconds)

    stores = [(settings(name=name, deadline_s=30.0), Meeting(Clock())) for name in ("a", "b", "c")]
    with lookup_of(*stores) as lookup:
        (found,) = lookup([Event("v", creator_id="c5")], {})
    assert found == Features({name: {"status": "found", "reputation": 0.5} for name in ("a", "b", "c")})


@pytest.mark.parametrize("field", ["creator_id", "video_id"])
def test_tenants_ask_for_their_own(field: str) -> None:
    class Owners(Scripted):
        def fetch(self, keys: Sequence[str], seconds: float) -> dict[str, dict[str, float]]:
            super().fetch(keys, seconds)
            return {name: {"reputation": 0.9 if tenant_of(name) == "acme" else 0.1} for name in keys}

    with lookup_of((settings(key=field), Owners(Clock()))) as lookup:
        videos = [Event(key("acme", "x"), creator_id="x"), Event("x", creator_id="x"), Event("y", creator_id="a\x1fx")]
        found = [one.values["creators"] for one in lookup(videos, {})]
    assert [one.get("reputation") for one in found[:2]] == [0.9, 0.1]
    # the separator in a creator's name leads to nobody else's row
    assert found[2]["status"] == ("absent" if field == "creator_id" else "found")


def test_a_verdict_made_again_uses_the_features_that_were_kept(state: tuple[EventLog, IndexStore]) -> None:
    """The MLLM's answer, more views and the trial of other rules; only new content asks the store."""
    log, index = state
    store, pair = ByKey(Clock()), Pair(base=lambda video: 0.9, mllm=lambda video: 0.1)
    log.publish([Event("v", creator_id="c9", views=1)])
    with lookup_of((settings(), store)) as lookup:

        def run() -> None:
            loop.run(log, FixedDeployment(decides(lookup, scorer=pair)), index, stop=threading.Event(),
                     on_batch=lambda report: None, batch_size=8, once=True, work=work(log, index))  # fmt: skip

        run()
        assert (pair.mllm_calls, entry(index, "v").rank) == (["v"], 2)
        log.publish([Event("v", creator_id="c9", views=5000)])
        run()
        log.publish([Event("v", creator_id="c1", title="new", views=5000)])
        assert store.asked == [1]
        run()
    assert store.asked == [1, 1]
    assert shown(index, "v") == [("removed", "distrusted", {"creators": {"status": "found", "reputation": 0.1}})]
    stricter = parse_rules(
        'rules: [{name: r, when: [{field: creators.reputation, op: ">", value: 0.05}], then: live}]\ndefault: removed',
        "r",
    )
    assert [(row.before, row.after, row.rule) for row in trial(log, index, stricter, NOW).rows] == [
        ("removed", "live", "r")
    ]


def test_the_mllm_is_not_asked_while_a_store_is_waited_for(state: tuple[EventLog, IndexStore]) -> None:
    log, index = state
    rules = parse_rules("rules: []\ndefault: ignored", "r")  # the index keeps nothing of an ignored video
    clock, pair = Clock(), Pair(base=lambda video: 0.9)
    store = ByKey(clock, lambda: 1001.0 <= clock.now < 1002.0)
    log.publish([Event("v", creator_id="c9")])
    with lookup_of((settings("hold"), store)) as lookup:
        made = FixedDeployment(decides(lookup, rules, pair))
        loop.run(log, made, index, stop=threading.Event(), on_batch=lambda report: None, batch_size=8, once=True)
        clock.now = 1001.0
        with pytest.raises(HeldError):
            loop.run(log, made, index, stop=threading.Event(), on_batch=lambda report: None, batch_size=8, once=True,
                     work=work(log, index))  # fmt: skip
        assert (pair.mllm_calls, index.database.query("SELECT count(*), count(owner) FROM pending")) == ([], [(1, 0)])
        assert index.database.query("SELECT served FROM budget") == [(0,)]  # nor does it cost a call
        clock.now = 1003.0
        loop.run(log, made, index, stop=threading.Event(), on_batch=lambda report: None, batch_size=8, once=True,
                 work=work(log, index))  # fmt: skip
        assert pair.mllm_calls == ["v"]


def test_a_real_store_is_killed_and_started_within_a_stream(tmp_path: Path) -> None:
    with (
        open_log(tmp_path / "log.sqlite") as log,
        open_index(tmp_path / "index.sqlite") as index,
        real.redis_server() as (server, url),
    ):
        world = real.redis_world(server, url)
        world.put({f"c{number}": {"reputation": number / 10} for number in range(10)})
        log.publish([Event(f"v{number}", creator_id=f"c{number % 10}") for number in range(40)])
        made = world.settings(missing="hold", deadline_s=5.0, breaker_seconds=0.01)
        stop, batches, held = threading.Event(), [], []

        def on_batch(report: BatchReport) -> None:
            batches.append(report)
            if len(batches) == 2:
                world.stop()
            if index.committed("vmp") == 40:
                stop.set()

        def on_hold(error: HeldError) -> None:
            held.append(error)
            if len(held) == 3:
                world.start()

        with open_lookup(FeatureSettings(stores=(made,))) as lookup:
            loop.run(log, FixedDeployment(decides(lookup)), index, stop=stop, on_batch=on_batch, on_hold=on_hold,
                     batch_size=8, poll_interval=0.02)  # fmt: skip
        assert len(batches) == 5
        assert len(held) >= 3
        assert {entry(index, f"v{number}").value["features"]["creators"]["reputation"] for number in range(40)} == {
            number / 10 for number in range(10)
        }
