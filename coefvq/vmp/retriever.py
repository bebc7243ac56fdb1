"""Retriever: gives each event its model scores, by a scorer that is passed in.

One clip that cannot be scored costs one row, not the batch: its candidate carries the error.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from operator import attrgetter

from coefvq.records import ScoredVideo, VideoInput
from coefvq.vmp.records import Candidate, Event

#: scores a batch of videos with distinct ids; may return several rows per video, one per issue
Scorer = Callable[[Sequence[VideoInput]], Sequence[ScoredVideo]]


def retrieve(events: Sequence[Event], scorer: Scorer) -> list[Candidate]:
    """Return one candidate per event, in the order of ``events``; deletions are not scored."""
    scores: dict[int, Sequence[ScoredVideo]] = {}
    for distinct in _rounds([event for event in events if event.kind == "upsert"]):
        by_video = _group(scorer([video_input(event) for event in distinct]))
        for event in distinct:
            scores[event.offset] = by_video.get(event.video_id, ())
    return [
        candidate_of(event, scores[event.offset]) if event.kind == "upsert" else Candidate(event) for event in events
    ]


def _rounds(events: Sequence[Event]) -> Sequence[Sequence[Event]]:
    """Split so that no round holds a video twice: scores come back by video id alone."""
    if len({event.video_id for event in events}) == len(events):
        return [events] if events else []
    seen: dict[str, int] = defaultdict(int)
    rounds: dict[int, list[Event]] = defaultdict(list)
    for event in events:
        rounds[seen[event.video_id]].append(event)
        seen[event.video_id] += 1
    return list(rounds.values())


def video_input(event: Event) -> VideoInput:
    """An event's video as the models take it."""
    return VideoInput(event.video_id, event.uri, event.title, event.stickers, event.views, event.sha256)


def _group(scored: Iterable[ScoredVideo]) -> dict[str, list[ScoredVideo]]:
    groups: dict[str, list[ScoredVideo]] = defaultdict(list)
    for score in scored:
        base, mllm = score.base_score, score.mllm_score
        # false for NaN
        is_sound = (base is None or 0.0 <= base <= 1.0) and (mllm is None or 0.0 <= mllm <= 1.0)
        groups[score.video_id].append(score if is_sound else _unsound(score))
    return groups


def _unsound(score: ScoredVideo) -> ScoredVideo:
    """Turn a score that is no probability into that row's error: NaN compares as false in any rule."""
    base, mllm = score.base_score, score.mllm_score
    name, value = ("mllm_score", mllm) if base is None or 0.0 <= base <= 1.0 else ("base_score", base)
    reason = f"{name} = {value}: expected a probability in [0, 1]"
    return replace(score, base_score=None, mllm_score=None, positive=None, decided_by="none", error=reason)


def candidate_of(event: Event, scores: Sequence[ScoredVideo]) -> Candidate:
    """One video with its scores, ordered by issue, and what went wrong."""
    if not scores:
        return Candidate(event, error="the scorer returned nothing for this video")
    if len(scores) == 1 and scores[0].error is None:  # most of them
        return Candidate(event, tuple(scores))
    ordered = tuple(sorted(scores, key=attrgetter("issue")))
    errors = [f"{score.issue}: {score.error}" for score in ordered if score.error is not None]
    return Candidate(event, ordered, "; ".join(errors) if errors else None)
