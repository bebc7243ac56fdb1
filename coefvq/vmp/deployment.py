"""What a worker decides with: one deployment, taken once per batch, and the stages that a batch goes through."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

from coefvq.records import ScoredVideo
from coefvq.vmp.epochs import FencedError
from coefvq.vmp.records import Candidate, Decision, Event, Known, SinkRow, Verdict
from coefvq.vmp.retriever import Scorer, candidate_of, retrieve
from coefvq.vmp.rows import to_row, watched_row

#: issue, its stored score, the view count → the score under the present policy; None where a model has to be asked
Redecide = Callable[[str, Mapping[str, Any], int | None], ScoredVideo | None]


def _ask_the_models(issue: str, stored: Mapping[str, Any], views: int | None) -> ScoredVideo | None:
    return None


@dataclass(frozen=True)
class Deployment:
    """One epoch's scorer and rules.

    ``models`` maps issue to the hash of what scores are made with. ``redecide`` applies the policies to stored scores.
    """

    epoch: int
    scorer: Scorer
    decide: Callable[[Candidate, datetime], Decision]
    models: Mapping[str, str] = field(default_factory=dict)
    redecide: Redecide = _ask_the_models


class Deployments(Protocol):
    """Where the loop gets its deployment from."""

    def current(self) -> Deployment:
        """The deployment of the next batch."""

    def refused(self, refusal: FencedError) -> None:
        """The Sink refused the deployment that ``current`` gave: provide a newer one, or raise.

        Raises:
            FencedError: there is no other deployment.
        """


def judge(events: Sequence[Event], deployment: Deployment, known: Mapping[str, Known], now: datetime) -> list[SinkRow]:
    """Score and decide a batch: one row per event, in its order, all of one epoch.

    A video is judged at the highest view count that anybody saw of it, whatever the event itself says.
    """
    most = _most_views(events, known)
    whole = [replace(event, views=most[event.video_id]) for event in events]
    judged = iter(retrieve([event for event in whole if event.kind != "views"], deployment.scorer))
    rows = []
    for event in whole:
        if event.kind == "views":
            rows.append(watched_row(event, deployment.epoch, now))
        else:
            rows.append(decided(next(judged), deployment, known.get(event.video_id), now))
    return rows


def decided(candidate: Candidate, deployment: Deployment, known: Known | None, now: datetime) -> SinkRow:
    """The row of one candidate; a content that this epoch decided on before is decided at the same time again."""
    verdict = None if known is None else known.verdict
    when = now if verdict is None else _decision_time(candidate.event, deployment.epoch, verdict, now)
    return to_row(candidate, deployment.decide(candidate, when), deployment.epoch, when)


def stored_candidate(event: Event, verdict: Verdict, deployment: Deployment) -> Candidate | None:
    """The video's stored scores under the present policies; None where a model has to be asked."""
    stored = verdict.value.get("scores", {})
    scores = [deployment.redecide(issue, score, event.views) for issue, score in stored.items()]
    known = [replace(score, video_id=event.video_id) for score in scores if score is not None]
    return candidate_of(event, known) if known and len(known) == len(scores) else None


def _decision_time(event: Event, epoch: int, verdict: Verdict, now: datetime) -> datetime:
    same = (verdict.source_version, verdict.epoch) == (event.source_version, epoch)
    return verdict.decided_at if same and verdict.decided_at is not None else now


def _most_views(events: Iterable[Event], known: Mapping[str, Known]) -> dict[str, int | None]:
    most: dict[str, int | None] = {video_id: found.views for video_id, found in known.items()}
    for event in events:
        counts = [count for count in (most.get(event.video_id), event.views) if count is not None]
        most[event.video_id] = max(counts, default=None)
    return most
