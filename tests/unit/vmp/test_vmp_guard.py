"""The six holes of the guard before epochs: each is open in the old one and closed in the present one, on any store."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from coefvq.errors import DataError
from coefvq.vmp import loop
from coefvq.vmp.epochs import FencedError, Order, issue, issued
from coefvq.vmp.index import IndexStore, open_index
from coefvq.vmp.log import EventLog, open_log
from coefvq.vmp.overrides import override
from coefvq.vmp.pending import Pending
from coefvq.vmp.records import DEGRADED, ERROR, FULL, Event, Rank, SinkRow, State
from tests.old_guard import OldIndex
from tests.vmp_world import NOW, POLICY, FixedDeployment, Pair, deployment, promote, work


@pytest.fixture
def index(index_place: Path | str) -> Iterator[IndexStore]:
    with open_index(index_place) as opened:
        yield opened


@pytest.fixture
def old() -> OldIndex:
    return OldIndex()


def row(
    bundles: str,
    epoch: int,
    version: int = 1,
    rank: Rank = FULL,
    state: State | None = "live",
    error: str | None = None,
) -> SinkRow:
    outcome = "ignored" if state is None else "live" if state == "live" else "removed"
    return SinkRow(1, "a", version, epoch, rank, bundles, outcome, state, "r", "{}", NOW.isoformat(), f"v{version}",
                   error=error, degraded=rank == DEGRADED)  # fmt: skip


def apply(index: IndexStore, old: OldIndex, *rows: SinkRow) -> tuple[str | None, str | None]:
    """Deliver rows one by one, each as a delivery of its own; the bundles that decided in both indexes."""
    for number, one in enumerate(rows):
        index.apply([one], f"delivery {number} {id(one)}", 1)
        old.apply(one)
    entry, before = index.get("a"), old.entries.get("a")
    return entry and entry.bundle_version, before and before[1].bundle_version


def test_hole_1_a_rollback_takes_effect(index: IndexStore, old: OldIndex) -> None:
    first, second = promote(index, 1, "3-ab"), promote(index, 2, "4-cd")
    back = promote(index, 3, "3-ab", "4-cd")
    assert (first, second, back) == (1, 2, 3)
    assert apply(index, old, row("icd=3-ab", back)) == ("icd=3-ab", "icd=3-ab")
    index.database.connection.execute("DELETE FROM entries")
    with index.database.transaction() as connection:
        connection.execute("UPDATE deployments SET fence = 0")  # the verdict was there before the rollback
    rows = [row("icd=4-cd", second), row("icd=3-ab", back)]
    assert apply(index, OldIndex(), *rows) == ("icd=3-ab", "icd=4-cd")


def test_hole_2_two_issues_do_not_tie(index: IndexStore, old: OldIndex) -> None:
    """icd 4 → 3 and ucc 5 → 6: the sums are equal."""
    rows = [row("icd=4-aa,ucc=5-aa", 1), row("icd=3-aa,ucc=6-aa", 2)]
    assert apply(index, old, *rows) == ("icd=3-aa,ucc=6-aa", "icd=4-aa,ucc=5-aa")


def test_hole_3_an_outage_verdict_is_replaced(index: IndexStore, old: OldIndex) -> None:
    down, back = row("icd=3-ab", 1, rank=DEGRADED), row("icd=3-ab", 1, state="removed")
    apply(index, old, down, back)
    entry = index.get("a")
    assert entry is not None
    assert (entry.state, entry.rank) == ("removed", FULL)
    assert old.entries["a"][1].state == "live"
    apply(index, old, down)  # and a late one does not come back
    entry = index.get("a")
    assert entry is not None
    assert entry.state == "removed"


def test_hole_4_an_ignored_event_leaves_its_version(index: IndexStore, old: OldIndex) -> None:
    ignored, late = row("icd=3-ab", 1, version=2, state=None), row("icd=4-cd", 2, version=1)
    assert apply(index, old, ignored, late) == (None, "icd=4-cd")
    assert index.known(["a"])["a"].seen_version == 2


def test_hole_5_views_are_no_versions(tmp_path: Path) -> None:
    """1,000 view counts of one video: one event each, and one call of the MLLM when they cross the policy's level."""
    pair = Pair()
    with open_log(tmp_path / "log.sqlite") as log, open_index(tmp_path / "index.sqlite") as index:
        log.publish([Event("a", uri="/a.mp4", sha256="aa", views=0)])
        for views in range(1, 1001):
            log.publish([Event("a", uri="/a.mp4", sha256="aa", views=2 * views)])
        epoch = promote(index, 1, "1-ab")
        loop.run(log, FixedDeployment(deployment(pair, epoch)), index, stop=threading.Event(),
                 on_batch=lambda report: None, batch_size=32, once=True, clock=lambda: NOW,
                 work=work(log, index))  # fmt: skip
        assert log.last_offset() == 1001
        assert pair.scored == ["a"]  # its base score is kept for the crossing of 1,000 views
        assert pair.mllm_calls == ["a"]
        entry = index.get("a")
        assert entry is not None
        assert (entry.source_version, entry.state) == (1, "removed")
        assert index.due(1) == []


def test_hole_6_audit_rows_may_be_cut(index: IndexStore, old: OldIndex) -> None:
    newer, late = row("icd=3-ab", 1, version=2), row("", 1, version=1, rank=ERROR, state=None, error="undecodable")
    apply(index, old, newer)
    index.database.connection.execute("DELETE FROM effects")
    old.effects.clear()
    apply(index, old, late)
    assert index.dead_letters() == []
    assert old.dead_letters == {"a": 1}


def test_a_withdrawn_worker_cannot_write(index: IndexStore) -> None:
    asleep, back = promote(index, 1, "4-cd"), promote(index, 2, "3-ab", "4-cd")
    with pytest.raises(FencedError, match=f"epoch {asleep} was withdrawn .*fence at epoch {back}.* run` again"):
        index.apply([row("icd=4-cd", asleep)], "vmp", 1)
    assert (index.committed("vmp"), index.get("a")) == (0, None)
    index.apply([row("icd=3-ab", back)], "vmp", 1)
    # a promotion sets no fence: the older worker's batch in hand is not lost work
    promote(index, 3, "5-ef")
    index.apply([row("icd=3-ab", back)._replace(video_id="b", offset=2)], "vmp", 2)


def test_rows_of_a_withdrawn_pair_read_so_until_they_are_scored_again(index: IndexStore, old: OldIndex) -> None:
    apply(index, old, row("icd=4-cd", promote(index, 1, "4-cd")))
    back = promote(index, 2, "3-ab", "4-cd")
    entry = index.get("a")
    assert entry is not None
    assert (entry.state, entry.verdict) == ("withdrawn", "live")
    assert index.states() == {"withdrawn": 1}
    apply(index, old, row("icd=3-ab", back))
    assert index.states() == {"live": 1}
    # approved again: the pair stands in its new epoch, its rows of then stay withdrawn
    promote(index, 3, "4-cd")
    assert [item.withdrawn for item in issued(index.database)] == [True, False, False]


def test_an_epoch_is_issued_once_per_order(index: IndexStore) -> None:
    assert [promote(index, 1, "3-ab"), promote(index, 1, "3-ab"), promote(index, 2, "4-cd")] == [1, 1, 2]
    # the same pairs under other rules, and back: each is a deployment of its own
    order = Order(2, {"icd": "4-cd"}, rules="other")
    assert [issue(index.database, order), issue(index.database, order), promote(index, 2, "4-cd")] == [3, 3, 4]
    with pytest.raises(DataError, match=r"follows release decision 2, but the newest one .* is 1; restore the store"):
        promote(index, 1, "3-ab")


def publish(log: EventLog, index: IndexStore, event: Event, pair: Pair, epoch: int) -> None:
    log.publish([event])
    loop.run(log, FixedDeployment(deployment(pair, epoch)), index, stop=threading.Event(),
             on_batch=lambda report: None, batch_size=8, once=True, clock=lambda: NOW,
             work=work(log, index))  # fmt: skip


def test_a_person_s_word_holds_until_the_content_changes(tmp_path: Path, index_place: Path | str) -> None:
    bad = Pair(base=lambda video: 0.9)
    event = Event("a", uri="/a.mp4", sha256="aa", title="x", views=1)
    with open_log(tmp_path / "log.sqlite") as log, open_index(index_place) as index:
        with pytest.raises(DataError, match="'a': not in the index"):
            override(log, index, "a", "live", "ana", "fine", NOW)
        publish(log, index, event, bad, promote(index, 1, "1-ab"))
        assert index.states() == {"removed": 1}
        entry = override(log, index, "a", "live", "ana", "is satire", NOW)
        assert entry.override is not None
        assert (entry.state, entry.verdict, entry.override.by, entry.override.reason) == (
            "live", "removed", "ana", "is satire",
        )  # fmt: skip
        # neither another epoch, nor a rollback, nor views, nor a retry of the same content ends it
        publish(log, index, replace(event, views=9), bad, promote(index, 2, "2-ab"))
        log.republish({"a": 1})
        publish(log, index, replace(event, views=10), bad, promote(index, 3, "1-ab", "2-ab"))
        assert index.states() == {"live": 1}
        publish(log, index, replace(event, title="y"), bad, 3)
        assert index.states() == {"removed": 1}
        with pytest.raises(DataError, match="'a': nobody overrode it"):
            override(log, index, "a", "model", "ana", "never mind", NOW)
        log.publish([Event("a", "delete")])
        publish(log, index, Event("b", uri="/b.mp4", sha256="bb"), bad, 3)
        with pytest.raises(DataError, match="'a': deleted at the source"):
            override(log, index, "a", "live", "ana", "fine", NOW)
        override(log, index, "b", "live", "ana", "is satire", NOW)
        assert override(log, index, "b", "model", "ana", "was wrong", NOW).state == "removed"
        said = index.database.query("SELECT rule FROM effects WHERE consumer = 'override' ORDER BY number")
        assert said == [("live by ana: is satire",)] * 2 + [("model by ana: was wrong",)]


@pytest.mark.parametrize("rule", ["hold", "base_only", "ignore"])
def test_after_an_outage_the_index_is_that_of_a_run_without_one(tmp_path: Path, rule: str) -> None:
    policy = POLICY.model_copy(update={"mllm_down": rule})
    indexes = []
    for name, down in (("down", True), ("never", False)):
        pair = Pair(policy, base=lambda video: 0.9 if video.video_id < "d" else 0.1)
        pair.down = down
        with open_log(tmp_path / name / "log.sqlite") as log, open_index(tmp_path / name / "index.sqlite") as index:
            epoch = promote(index, 1, "1-ab")
            for video_id in "abcdef":
                publish(log, index, Event(video_id, uri=f"/{video_id}.mp4", sha256=video_id, views=1), pair, epoch)
            # "e" crosses the level of views while the MLLM is down
            publish(log, index, Event("e", uri="/e.mp4", sha256="e", views=5000), pair, epoch)
            if down:
                assert len(index.dead_letters()) == (4 if rule == "hold" else 0)
                pair.down = False
            publish(log, index, Event("g", uri="/g.mp4", sha256="g"), pair, epoch)
            assert (index.dead_letters(), Pending(index.database).waiting().tasks, index.due(9)) == ([], 0, [])
            columns = "video_id, state, rule, source_version, epoch, rank, views, value"
            indexes.append(index.database.query(f"SELECT {columns} FROM entries ORDER BY video_id"))  # noqa: S608
    assert indexes[0] == indexes[1]
    assert {json.loads(cells[-1])["scores"]["icd"]["decided_by"] for cells in indexes[0]} == {"base", "mllm"}


def test_while_the_mllm_is_down_it_is_tried_more_and_more_rarely(tmp_path: Path, index_place: Path | str) -> None:
    pair, seconds = Pair(base=lambda video: 0.9), [0.0]
    pair.down = True
    with open_log(tmp_path / "log.sqlite") as log, open_index(index_place) as index:
        epoch = promote(index, 1, "1-ab")
        publish(log, index, Event("a", uri="/a.mp4"), pair, epoch)
        _, served = work(log, index, lambda: seconds[0])
        tries: list[int] = []
        pair.ask = lambda wanted: (tries.append(int(seconds[0])), Pair.ask(pair, wanted))[1]  # type: ignore[func-returns-value, method-assign]
        used = deployment(pair, epoch)
        for second in range(100):
            seconds[0] = float(second)
            assert served.urgent(used, 8) == 0
        assert tries == [0, 1, 3, 7, 15, 31, 63]
        pair.down, seconds[0] = False, 123.0
        assert served.urgent(used, 8) == 1


def test_a_replay_decides_at_the_same_time(tmp_path: Path, index_place: Path | str) -> None:
    from datetime import timedelta

    from coefvq.vmp.rules import parse_rules
    from tests.vmp_world import by_rules

    rules = parse_rules(
        'rules: [{name: old, when: [{field: age_hours, op: ">", value: 1}], then: removed}]\ndefault: live', "r"
    )
    pair, later = Pair(), NOW + timedelta(hours=2)
    with open_log(tmp_path / "log.sqlite") as log, open_index(index_place) as index:
        log.publish([Event("a", published_at=NOW.isoformat())])
        for consumer, clock in (("vmp", NOW), ("replay", later), ("clock set back", NOW - timedelta(hours=1))):
            used = FixedDeployment(deployment(pair, 1, by_rules(rules)))
            loop.run(log, used, index, stop=threading.Event(), on_batch=lambda report: None, batch_size=8, once=True,
                     consumer=consumer, clock=lambda clock=clock: clock)  # fmt: skip
        assert index.states() == {"live": 1}
        assert index.database.query("SELECT DISTINCT outcome FROM effects") == [("live",)]
