"""Campaigns over the index, and decisions on stored scores that ask no model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import pytest

from coefvq.cascade.policy import CascadePolicy
from coefvq.errors import DataError
from coefvq.vmp import loop
from coefvq.vmp.campaigns import Campaigns
from coefvq.vmp.index import IndexStore, open_index
from coefvq.vmp.log import EventLog, open_log
from coefvq.vmp.records import Event
from coefvq.vmp.redecide import redecide
from coefvq.vmp.revisions import Reviser
from coefvq.vmp.rules import parse_rules
from tests.vmp_world import NOW, POLICY, FixedDeployment, Pair, by_rules, deployment, promote, work


@dataclass
class State:
    """A log and its index, with ``videos`` judged by pair 1."""

    log: EventLog
    index: IndexStore

    def run(self, pair: Pair, epoch: int, models: str = "models", **parts: object) -> None:
        used = deployment(pair, epoch, policies=(pair.policy,), bundle=pair.bundle, models={"icd": models}, **parts)  # type: ignore[arg-type]
        reviser, served = work(self.log, self.index)
        loop.run(self.log, FixedDeployment(used), self.index, stop=threading.Event(), batch_size=3, once=True,
                 on_batch=lambda report: None, clock=lambda: NOW, work=(reviser, served))  # fmt: skip

    def rows(self) -> list[tuple[object, ...]]:
        return self.index.database.query(
            "SELECT video_id, state, epoch, rank, bundle_version FROM served ORDER BY video_id"
        )


@contextmanager
def opened(folder: Path, index_place: Path | str | None = None) -> Iterator[State]:
    with open_log(folder / "log.sqlite") as log, open_index(index_place or folder / "index.sqlite") as index:
        yield State(log, index)


@pytest.fixture
def state(tmp_path: Path, index_place: Path | str) -> Iterator[State]:
    """Ten videos, judged by pair 1; every second one is positive."""
    with opened(tmp_path, index_place) as made:
        made.log.publish([Event(f"v{number}", uri=f"/{number}.mp4", sha256=f"{number}") for number in range(10)])
        made.run(pair_1(), promote(made.index, 1, "1-ab"))
        yield made


def pair_1() -> Pair:
    return Pair(base=lambda video: 0.9, mllm=lambda video: 0.8 if int(video.video_id[1:]) % 2 else 0.1)


def test_a_campaign_leaves_no_row_of_the_withdrawn_pair(state: State) -> None:
    bad = Pair(bundle="2-cd", base=lambda video: 0.1)
    state.log.publish([Event(f"w{number}", uri=f"/w{number}.mp4") for number in range(4)])
    state.run(bad, promote(state.index, 2, "2-cd", models="other"), "other")
    back = promote(state.index, 3, "1-ab", "2-cd")
    assert state.index.states() == {"live": 5, "removed": 5, "withdrawn": 4}
    started = Campaigns(state.index.database).start(NOW)
    assert (started.epoch, started.total) == (back, 14)
    pair = pair_1()
    state.run(pair, back)
    assert {row[2] for row in state.rows()} == {back}
    assert {row[4] for row in state.rows()} == {"icd=1-ab"}
    assert pair.scored == [f"w{number}" for number in range(4)]  # its own verdicts stand on the scores it made before
    done = Campaigns(state.index.database).last()
    assert done is not None
    assert (done.state, done.scored, done.decided) == ("done", 4, 10)
    # the withdrawn pair's videos came first
    order = state.index.database.query("SELECT video_id FROM effects WHERE consumer = 'campaign' ORDER BY number")
    assert [video_id for (video_id,) in order[:4]] == [f"w{number}" for number in range(4)]


def test_a_change_of_thresholds_or_rules_asks_no_model(state: State) -> None:
    stricter = POLICY.model_copy(update={"decision_threshold": 0.05})
    pair = Pair(stricter, bundle="2-cd")
    epoch = promote(state.index, 2, "2-cd")
    Campaigns(state.index.database).start(NOW)
    state.run(pair, epoch)
    assert (pair.scored, state.index.states()) == ([], {"removed": 10})
    rules = parse_rules(
        'rules: [{name: sure, when: [{field: mllm_score, op: ">", value: 0.5}], then: removed}]\ndefault: live', "r"
    )
    epoch = promote(state.index, 3, "2-cd")
    Campaigns(state.index.database).start(NOW)
    state.run(pair, epoch, decide=by_rules(rules))
    assert (pair.scored, state.index.states()) == ([], {"live": 5, "removed": 5})
    done = Campaigns(state.index.database).last()
    assert done is not None
    assert (done.scored, done.decided, done.changed) == (0, 10, 5)


def test_it_pauses_resumes_and_begins_again_under_a_newer_head(state: State) -> None:
    campaigns = Campaigns(state.index.database)
    with pytest.raises(DataError, match="no campaign is under way; begin one: coefvq vmp rescore start"):
        campaigns.move("paused")
    epoch = promote(state.index, 2, "2-cd", models="other")
    campaigns.start(NOW)
    campaigns.move("paused")
    pair = Pair(bundle="2-cd")
    state.run(pair, epoch, "other")
    assert pair.scored == []
    with pytest.raises(DataError, match=r"campaign 1 is paused; .*rescore resume"):
        campaigns.start(NOW)
    campaigns.move("running")
    used = deployment(pair, epoch, bundle="2-cd", models={"icd": "other"})
    reviser = Reviser(state.log, state.index, lambda: NOW)
    while campaigns.remaining() > 4:
        reviser.spare(used, 3)
    epoch = promote(state.index, 3, "3-ef", models="third")
    assert campaigns.remaining() == 10
    assert reviser.spare(used, 3) == 0  # a worker of the older epoch does nothing for it
    state.run(Pair(bundle="3-ef"), epoch, "third")
    assert {row[2] for row in state.rows()} == {epoch}


def test_a_campaign_on_an_empty_index_is_one_clear_line(tmp_path: Path) -> None:
    with opened(tmp_path) as state:
        with pytest.raises(DataError, match="the index is empty; run `coefvq vmp run` first"):
            Campaigns(state.index.database).start(NOW)
        assert Campaigns(state.index.database).last() is None
        assert Campaigns(state.index.database).remaining() == 0


def test_newer_content_in_the_log_is_left_to_the_stream(state: State) -> None:
    epoch = promote(state.index, 2, "2-cd", models="other")
    Campaigns(state.index.database).start(NOW)
    state.log.publish([Event("v3", uri="/3.mp4", sha256="new")])
    pair = Pair(bundle="2-cd")
    used = deployment(pair, epoch, bundle="2-cd", models={"icd": "other"})
    reviser = Reviser(state.log, state.index, lambda: NOW)
    while reviser.spare(used, 4):
        pass
    assert "v3" not in pair.scored
    state.run(pair, epoch, "other")
    assert pair.scored.count("v3") == 1
    assert {row[2] for row in state.rows()} == {epoch}


def test_two_workers_share_a_campaign(state: State) -> None:
    """The second one walks the same batch while the first scores: one of them stores it."""
    epoch = promote(state.index, 2, "2-cd", models="other")
    Campaigns(state.index.database).start(NOW)
    inner = deployment(Pair(bundle="2-cd"), epoch, bundle="2-cd", models={"icd": "other"})
    reviser = Reviser(state.log, state.index, lambda: NOW)
    calls = count()

    class Overtaken(Pair):
        def __call__(self, videos):  # type: ignore[no-untyped-def]
            if next(calls) == 0:
                assert reviser.spare(inner, 3) == 3
            return super().__call__(videos)

    outer = deployment(Overtaken(bundle="2-cd"), epoch, bundle="2-cd", models={"icd": "other"})
    while reviser.spare(outer, 3):
        pass
    counted = state.index.database.query(
        "SELECT video_id, count(*) FROM effects WHERE consumer = 'campaign' GROUP BY 1 HAVING count(*) > 1"
    )
    assert counted == []
    done = Campaigns(state.index.database).last()
    assert done is not None
    assert (done.state, done.scored) == ("done", 10)


KEEP = POLICY.model_copy(update={"filtered": "keep_base_score", "accept_threshold": 0.95})


@pytest.mark.parametrize(
    ("policy", "stored", "views", "expected"),
    [
        (POLICY, {"base_score": 0.1, "mllm_score": None}, None, (False, "base")),
        (
            POLICY,
            {"base_score": 0.1, "mllm_score": None},
            1000,
            (None, "none"),
        ),  # the level of views: waits for the MLLM
        (POLICY, {"base_score": 0.1, "mllm_score": 0.9}, 1000, (True, "mllm")),
        (POLICY, {"base_score": 0.9, "mllm_score": 0.4}, None, (False, "mllm")),
        (POLICY, {"base_score": 0.9, "mllm_score": None}, None, (None, "none")),
        (POLICY, {"base_score": 0.9, "mllm_score": None, "degraded": True}, None, None),
        (POLICY, {"base_score": None, "mllm_score": None, "error": "undecodable"}, None, None),
        (KEEP, {"base_score": 0.97, "mllm_score": None}, None, (True, "base")),
        (KEEP, {"base_score": 0.3, "mllm_score": None}, None, (False, "base")),
        # what the audit escalated is decided by the MLLM, as when it was drawn
        (POLICY, {"base_score": 0.1, "mllm_score": 0.9, "audit_probability": 0.1}, None, (True, "mllm")),
        (POLICY, {"base_score": 0.1, "mllm_score": 0.9}, None, (False, "base")),
    ],
)
def test_a_policy_over_stored_scores(
    policy: CascadePolicy, stored: dict[str, object], views: int | None, expected: tuple[bool, str] | None
) -> None:
    found = redecide(policy, "2-cd", stored, views)
    assert (found and (found.positive, found.decided_by)) == expected
    if found is not None:
        assert (found.bundle_version, found.issue) == ("2-cd", "icd")
        assert (found.awaits == "mllm") == (found.positive is None)


def test_a_rule_that_ignores_at_many_views_ends_the_matter(state: State) -> None:
    """Nothing is written, and the video is not looked at again and again."""
    rules = parse_rules(
        'rules: [{name: popular, when: [{field: views, op: ">", value: 5}], then: ignored}]\ndefault: live', "r"
    )
    state.log.publish([Event("v1", uri="/1.mp4", sha256="1", views=9)])
    state.run(pair_1(), 1, decide=by_rules(rules))
    assert state.index.due(5) == []
    assert [row[1] for row in state.rows() if row[0] == "v1"] == ["removed"]


@pytest.mark.parametrize("order", [lambda steps: steps, lambda steps: steps[::-1]])
def test_an_older_models_verdict_is_not_mixed_with_a_newer_policy(
    state: State, order: Callable[[list[int]], list[int]]
) -> None:
    """Views of a video that an older pair scored: asked again only if the new policy's level is crossed."""
    video = Event("x", uri="/x.mp4", sha256="x", views=1)
    state.log.publish([video])
    state.run(Pair(), 1)
    epoch = promote(state.index, 2, "2-cd", models="other")
    pair = Pair(bundle="2-cd")
    for views in order([5, 2000]):
        state.log.publish([replace(video, views=views)])
        state.run(pair, epoch, "other")
        if views == 5 and not pair.scored:
            assert state.rows()[-1][4] == "icd=1-ab"
    assert pair.scored == ["x"]
    assert state.rows()[-1] == ("x", "removed", epoch, 2, "icd=2-cd")
    assert state.index.due(5) == []
