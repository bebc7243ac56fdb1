"""Verdicts that no new event asks for: more views, an age that a rule names, a campaign over old epochs.

All three take the newest content of a video from the log, decide on the stored scores where these suffice, ask the
models where they do not, and write under the guard that every row meets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from coefvq.vmp.campaigns import Campaigns, OvertakenError
from coefvq.vmp.deployment import Deployment, decided, looked_up, same_models, stored_candidate
from coefvq.vmp.index import IndexStore
from coefvq.vmp.records import CAMPAIGN as CAMPAIGN_LANE
from coefvq.vmp.records import FULL, LIVE, BatchReport, Candidate, Event, Known, Lane, SinkRow, Verdict
from coefvq.vmp.retriever import retrieve
from coefvq.vmp.rows import How, awaits_mllm

WATCHED, AGED, CAMPAIGN = "views", "age", "campaign"


class Contents(Protocol):
    """Where the newest content of a video is found."""

    def newest(self, video_ids: Iterable[str]) -> dict[str, Event]:
        """The newest upsert or deletion of each video that is known."""


@dataclass(frozen=True)
class Plan:
    """How a batch of videos is decided again.

    ``stored`` candidates need no model, ``asked`` events do. ``passed`` are (video, views) whose verdict stands.
    ``waiting`` have newer content in the log, or a verdict of a newer epoch: they are somebody else's.
    """

    stored: list[Candidate] = field(default_factory=list)
    asked: list[Event] = field(default_factory=list)
    passed: list[tuple[str, int | None]] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)


def plan(
    video_ids: Sequence[str],
    contents: Contents,
    index: IndexStore,
    deployment: Deployment,
    only_if_views_matter: bool = False,
) -> tuple[Plan, dict[str, Known]]:
    """Sort videos by what deciding again takes; ``only_if_views_matter`` leaves old epochs' verdicts to a campaign."""
    known, newest = index.known(video_ids), contents.newest(video_ids)
    models = index.models()
    made = Plan()
    for video_id in video_ids:
        seen, event = known.get(video_id, Known()), newest.get(video_id)
        if event is None or event.kind == "delete":
            made.passed.append((video_id, seen.views))
            continue
        if event.source_version != seen.seen_version or (seen.verdict and seen.verdict.epoch > deployment.epoch):
            made.waiting.append(video_id)
            continue
        event = replace(event, views=seen.views)
        if deployment.ruled(video_id) is None:
            made.stored.append(Candidate(event))  # no model will be asked about it
            continue
        candidate = _from_stored(event, seen.verdict, deployment)
        if candidate is not None and seen.verdict and same_models(seen.verdict.epoch, deployment, models):
            made.stored.append(candidate)
        elif candidate is None or awaits_mllm(candidate):
            made.asked.append(event)
        elif only_if_views_matter:
            made.passed.append((video_id, seen.views))
        else:
            made.asked.append(event)
    return made, known


def _from_stored(event: Event, verdict: Verdict | None, deployment: Deployment) -> Candidate | None:
    if verdict is None or verdict.rank < FULL or verdict.source_version != event.source_version:
        return None
    return stored_candidate(event, verdict, deployment)


def rows_of(
    made: Plan,
    known: Mapping[str, Known],
    deployment: Deployment,
    now: datetime,
    lane: Lane = LIVE,
    again: bool = False,
) -> list[SinkRow]:
    """Decide a plan; the scorer is called once if any video needs it. ``again``: the time itself is the reason."""
    scored = retrieve(made.asked, deployment.scorer) if made.asked else []
    candidates = [*made.stored, *scored]
    features = looked_up([candidate.event for candidate in candidates], deployment, known)
    how = How(lane=lane)
    return [
        decided(candidate.with_features(found), deployment, known.get(candidate.event.video_id), now, how, again)
        for candidate, found in zip(candidates, features, strict=True)
    ]


class Reviser:
    """Decides again what is due, in batches, between the batches of new events."""

    def __init__(self, contents: Contents, index: IndexStore, now: Callable[[], datetime]) -> None:
        self._contents, self._index, self._now = contents, index, now
        self._campaigns = Campaigns(index.database)

    def urgent(self, deployment: Deployment, limit: int, report: BatchReport | None = None) -> int:
        """Decide what was watched more often, or has grown older; return how many videos are settled."""
        if report is not None and not report.due:
            return 0
        watched, aged = self._index.has_due(self._now().timestamp())
        return (self._watched(deployment, limit) if watched else 0) + (self._aged(deployment, limit) if aged else 0)

    def spare(self, deployment: Deployment, limit: int) -> int:
        """One batch of the campaign; return the videos settled."""
        return self._campaign(deployment, limit)

    def _watched(self, deployment: Deployment, limit: int) -> int:
        due = self._index.due(limit)
        self._decide_again(due, WATCHED, deployment, only_if_views_matter=True)
        return len(set(due) - set(self._index.due(limit))) if due else 0

    def _aged(self, deployment: Deployment, limit: int) -> int:
        now = self._now().timestamp()
        due = self._index.aged(now, limit)
        self._decide_again(due, AGED, deployment, again=True)
        return len(set(due) - set(self._index.aged(now, limit))) if due else 0

    def _decide_again(
        self,
        video_ids: Sequence[str],
        reason: str,
        deployment: Deployment,
        only_if_views_matter: bool = False,
        again: bool = False,
    ) -> None:
        if not video_ids:
            return
        made, known = plan(video_ids, self._contents, self._index, deployment, only_if_views_matter)
        rows = rows_of(made, known, deployment, self._now(), again=again)
        # a rule that says "ignored" keeps the verdict that is there, at these views too
        kept = [(row.video_id, row.views) for row in rows if row.state is None and row.error is None]
        if rows or made.passed:
            self._index.revise(rows, reason, [*made.passed, *kept])

    def _campaign(self, deployment: Deployment, limit: int) -> int:
        step = self._campaigns.next_step(deployment.epoch, limit)
        if step is None:
            return 0
        made, known = plan(step.video_ids, self._contents, self._index, deployment)
        rows = rows_of(made, known, deployment, self._now(), CAMPAIGN_LANE)
        wait = sum(awaits_mllm(candidate) for candidate in made.stored)
        changed = [changes(row, known) for row in rows]
        try:
            self._index.revise(
                rows,
                CAMPAIGN,
                also=lambda connection, written: self._campaigns.advance(
                    connection,
                    step,
                    self._now(),
                    scored=len(made.asked) + wait,
                    decided=len(made.stored) - wait,
                    changed=sum(new and other for new, other in zip(written, changed, strict=True)),
                ),
            )
        except OvertakenError:
            return 1  # another worker did this batch
        return max(1, len(step.video_ids))


def changes(row: SinkRow, known: Mapping[str, Known]) -> bool:
    """Whether the row's state differs from the verdict that was there."""
    verdict = known[row.video_id].verdict
    return row.state is not None and verdict is not None and row.state != verdict.state
