"""The Retriever and the rows made of its candidates."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from coefvq.errors import ModelError
from coefvq.records import ScoredVideo, VideoInput
from coefvq.vmp.records import DEGRADED, ERROR, FULL, Candidate, Decision, Event, Features
from coefvq.vmp.retriever import retrieve
from coefvq.vmp.rows import How, bundle_text, rank, to_row
from tests.vmp_world import NOW


def score(video_id: str, issue: str = "icd", base: float | None = 0.25, **kw: object) -> ScoredVideo:
    fields = {"mllm_score": None, "positive": False, "decided_by": "base", "bundle_version": "3-ab", **kw}
    return ScoredVideo(video_id, issue, base, **fields)


def failure(video_id: str, issue: str = "icd") -> ScoredVideo:
    return score(video_id, issue, None, positive=None, decided_by="none", error="undecodable")


class Recorder:
    """A scorer that keeps what it was given and answers from a function."""

    def __init__(self, answer: object) -> None:
        self.calls: list[list[VideoInput]] = []
        self.answer = answer

    def __call__(self, videos: Sequence[VideoInput]) -> list[ScoredVideo]:
        self.calls.append(list(videos))
        return [row for video in videos for row in self.answer(video)]  # type: ignore[operator]


def test_events_reach_the_scorer_whole_and_deletions_do_not() -> None:
    scorer = Recorder(lambda video: [score(video.video_id)])
    event = Event("a", uri="/x/a.mp4", title="t", stickers=("s",), views=4, sha256="aa", offset=1)
    candidates = retrieve([event, Event("b", "delete", offset=2)], scorer)
    assert scorer.calls == [[VideoInput("a", "/x/a.mp4", "t", ("s",), 4, "aa")]]
    assert candidates == [Candidate(event, (score("a"),)), Candidate(Event("b", "delete", offset=2))]


def test_only_deletions_cost_no_call() -> None:
    scorer = Recorder(lambda video: [])
    retrieve([Event("b", "delete", offset=2)], scorer)
    assert scorer.calls == []


def test_several_issues_are_grouped_by_video_and_ordered_by_issue() -> None:
    def by_issue(videos: Sequence[VideoInput]) -> list[ScoredVideo]:
        return [score(v.video_id, issue) for issue in ("ucc", "icd") for v in videos]

    candidates = retrieve([Event("a", offset=1), Event("b", offset=2)], by_issue)
    assert [[(s.video_id, s.issue) for s in c.scores] for c in candidates] == [
        [("a", "icd"), ("a", "ucc")],
        [("b", "icd"), ("b", "ucc")],
    ]


def test_two_versions_of_a_video_in_one_batch_each_get_their_own_score() -> None:
    scorer = Recorder(lambda video: [score(video.video_id, base=(video.views or 0) / 10)])
    events = [Event("a", views=1, offset=1), Event("b", views=2, offset=2), Event("a", views=3, offset=3)]
    assert [c.scores[0].base_score for c in retrieve(events, scorer)] == [0.1, 0.2, 0.3]
    assert [[v.video_id for v in call] for call in scorer.calls] == [["a", "b"], ["a"]]


def test_one_bad_clip_costs_one_row() -> None:
    scorer = Recorder(lambda v: [failure("a") if v.video_id == "a" else score(v.video_id), score(v.video_id, "ucc")])
    bad, good = retrieve([Event("a", offset=1), Event("b", offset=2)], scorer)
    assert (bad.error, good.error) == ("icd: undecodable", None)


def test_a_video_the_scorer_forgets_is_an_error_row() -> None:
    (candidate,) = retrieve([Event("a", offset=1)], Recorder(lambda video: [score("other")]))
    assert candidate.scores == ()
    assert candidate.error == "the scorer returned nothing for this video"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1.5])
@pytest.mark.parametrize("name", ["base_score", "mllm_score"])
def test_a_score_that_is_no_probability_is_an_error(name: str, value: float) -> None:
    given = ScoredVideo("a", "icd", **{"base_score": 0.5, "mllm_score": 0.5, name: value}, positive=True,
                        decided_by="mllm", bundle_version="3-ab")  # fmt: skip
    (candidate,) = retrieve([Event("a", offset=1)], lambda videos: [given])
    assert candidate.error is not None
    assert f"icd: {name} = {value}: expected a probability" in candidate.error
    assert (candidate.scores[0].positive, candidate.scores[0].base_score) == (None, None)


@pytest.mark.parametrize("text", ["", "3", "3-", "-ab", "v3-ab", "3.1-ab", " 3-ab", "3-ab\n", "٣-ab", "-3-ab"])
def test_other_bundle_versions_are_refused(text: str) -> None:
    with pytest.raises(ModelError, match="expected NUMBER-HASH such as 3-ab12cd34ef56"):
        bundle_text([score("a", bundle_version=text)])


def test_rows_of_several_bundles() -> None:
    both = [score("a", "ucc", bundle_version="9-cd"), score("a", "icd", bundle_version="3-ab")]
    assert bundle_text(both) == "icd=3-ab,ucc=9-cd"
    assert bundle_text([score("a"), failure("a", "ucc")]) == "icd=3-ab"
    assert bundle_text([failure("a")]) == ""


def test_live_row_holds_metadata_and_scores() -> None:
    event = Event("a", uri="/x/a.mp4", title="é", stickers=("s",), views=4, sha256="aa", source_version=2, offset=9)
    row = to_row(Candidate(event, (score("a", metadata={"k": "v"}),)), Decision("live", "default"), How(7, NOW, NOW))
    assert (row.offset, row.source_version, row.epoch, row.bundle_version) == (9, 2, 7, "icd=3-ab")
    assert (row.state, row.outcome, row.rule, row.error) == ("live", "live", "default", None)
    assert json.loads(row.value) == {
        "uri": "/x/a.mp4", "title": "é", "stickers": ["s"], "views": 4, "sha256": "aa", "published_at": None,
        "creator_id": None, "duration_s": None,
        "scores": {"icd": {"base_score": 0.25, "mllm_score": None, "positive": False, "decided_by": "base",
                           "bundle_version": "3-ab", "metadata": {"k": "v"}}},
    }  # fmt: skip


@pytest.mark.parametrize("value", [2**70, -(2**63), 1e300, 5e-324, "ß\U0001f600\x01\u2028", True, np.float64(0.1)])
def test_a_feature_is_stored_as_it_is(value: object) -> None:
    candidate = Candidate(Event("a"), (score("a"),)).with_features(Features({"creators": {"fact": value}}))
    row = to_row(candidate, Decision("live", "default"), How(7, NOW, NOW))
    (found,) = json.loads(row.value)["features"]["creators"].values()
    assert (found, type(found)) == (value, float if isinstance(value, float) else type(value))


def test_a_number_that_is_not_finite_is_null() -> None:
    row = to_row(Candidate(Event("a", duration_s=float("inf"))), Decision("live", "default"), How(7, NOW, NOW))
    assert json.loads(row.value)["duration_s"] is None


def test_tombstones_hold_no_features() -> None:
    event = Event("a", uri="/x/a.mp4", title="secret", source_version=1)
    removed = to_row(Candidate(event, (score("a", positive=True),)), Decision("removed", "positive"), How(7, NOW, NOW))
    assert removed.state == "removed"
    assert list(json.loads(removed.value)) == ["scores"]
    deleted = to_row(
        Candidate(Event("a", "delete", source_version=2)), Decision("removed", "deleted"), How(7, NOW, NOW)
    )
    assert (deleted.state, deleted.value, deleted.bundle_version) == ("deleted", "{}", "")


def test_ignored_row_changes_no_entry_but_keeps_its_reason() -> None:
    candidate = Candidate(Event("a", source_version=1), (failure("a"),), "icd: undecodable")
    row = to_row(candidate, Decision("ignored", "unscored"), How(7, NOW, NOW))
    assert (row.state, row.error) == (None, "icd: undecodable")
    assert json.loads(row.value)["scores"]["icd"]["error"] == "undecodable"


@pytest.mark.parametrize(
    ("scores", "error", "expected"),
    [
        ((score("a"), score("a", "ucc")), None, FULL),
        ((score("a"), score("a", "ucc", degraded=True)), None, DEGRADED),
        ((score("a", degraded=True), failure("a", "ucc")), "ucc: undecodable", ERROR),
        ((), None, FULL),
    ],
)
def test_rank_is_that_of_the_worst_score(scores: tuple[ScoredVideo, ...], error: str | None, expected: int) -> None:
    assert rank(Candidate(Event("a"), scores, error)) == expected
