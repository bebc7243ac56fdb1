"""What a worker decides with: one deployment, taken once per batch, and the stages that a batch goes through."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

from coefvq.cascade.policy import CascadePolicy
from coefvq.inference.decisions import Answers
from coefvq.records import ScoredVideo, VideoInput
from coefvq.vmp.epochs import FencedError
from coefvq.vmp.keys import DEFAULT, tenant_of
from coefvq.vmp.records import NO_FEATURES, Candidate, Decision, Event, Features, Known, SinkRow, Undecided, Verdict
from coefvq.vmp.retriever import Scorer, candidate_of, retrieve
from coefvq.vmp.rows import FIRST_STAGE, How, awaits_mllm, to_row, watched_row
from coefvq.vmp.ruling import UNSCORED

#: issue, its stored score, the view count → the score under the present policy; None where a model has to be asked
Redecide = Callable[[str, Mapping[str, Any], int | None], ScoredVideo | None]


#: events, what the index knows of their videos → the features of each, in order
Lookup = Callable[[Sequence[Event], Mapping[str, Known]], Sequence[Features]]


def stored_features(events: Sequence[Event], known: Mapping[str, Known]) -> list[Features]:
    """What the index kept of each event's content; no store is asked."""
    if not known:  # most events of a stream are of new videos
        return [NO_FEATURES] * len(events)
    return [kept_features(event, known.get(event.video_id)) for event in events]


def kept_features(event: Event, known: Known | None) -> Features:
    """The features that the verdict on this content was made with."""
    verdict = None if known is None else known.verdict
    if verdict is None or verdict.source_version != event.source_version or not verdict.value.get("features"):
        return NO_FEATURES
    return Features(verdict.value["features"])


def _ask_the_models(issue: str, stored: Mapping[str, Any], views: int | None) -> ScoredVideo | None:
    return None


class Ask(Protocol):
    """The MLLMs of a deployment."""

    def __call__(self, wanted: Mapping[str, Sequence[VideoInput]], /) -> Mapping[str, Answers]:
        """Per issue the MLLM's scores of its videos, in their order."""


@dataclass(frozen=True)
class SecondStage:
    """The MLLMs of a deployment, with policy and bundle version per issue."""

    policies: Mapping[str, CascadePolicy]
    bundles: Mapping[str, str]
    ask: Ask


@dataclass(frozen=True)
class Deployment:
    """One epoch's scorer and rules.

    ``scorer`` is the first stage: its rows may await the MLLM, which ``second`` asks (None: the scorer asks it
    itself). ``models`` maps issue to the hash of what scores are made with. ``redecide`` applies the policies to stored
    scores. ``pending`` says what a video is to readers until the MLLM answered. ``changes_at`` gives the unix time at
    which a rule on age may decide otherwise about an event, after a given one. ``lookup`` gives the features that rules
    see. ``tenants`` are the same models with the rules of each other tenant.
    """

    epoch: int
    scorer: Scorer
    decide: Callable[[Candidate, datetime], Decision]
    models: Mapping[str, str] = field(default_factory=dict)
    redecide: Redecide = _ask_the_models
    second: SecondStage | None = None
    pending: Undecided = "hold"
    changes_at: Callable[[Event, datetime], float | None] = lambda event, now: None
    lookup: Lookup = stored_features
    tenants: Mapping[str, Deployment] = field(default_factory=dict)

    def ruled(self, video: str) -> Deployment | None:
        """The deployment with the rules of the tenant of a key; None: nobody configured that tenant."""
        return self.of_tenant(tenant_of(video))

    def of_tenant(self, tenant: str) -> Deployment | None:
        """The same by the tenant's name."""
        return self if tenant == DEFAULT else self.tenants.get(tenant)


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
    whole = [event if event.views == (views := most[event.video_id]) else replace(event, views=views)
             for event in events]  # fmt: skip
    tenants = [tenant_of(event.video_id) for event in whole]
    parts = {tenant: _part(deployment, tenant, now) for tenant in dict.fromkeys(tenants)}
    judges = [parts[tenant] for tenant in tenants]
    scored = [event for event, (ruled, _) in zip(whole, judges, strict=True)
              if event.kind != "views" and ruled is not None]  # fmt: skip
    # features first: where a store has to be waited for, no model has worked in vain
    features = looked_up(scored, deployment, known)
    pairs = zip(retrieve(scored, deployment.scorer), features, strict=True)
    candidates = iter([candidate.with_features(found) for candidate, found in pairs])
    rows = []
    for event, (ruled, how) in zip(whole, judges, strict=True):
        if event.kind == "views":
            rows.append(watched_row(event, deployment.epoch, now))
        else:
            candidate = Candidate(event) if ruled is None else next(candidates)
            rows.append(_decided(candidate, ruled, how, known.get(event.video_id)))
    return rows


def looked_up(events: Sequence[Event], deployment: Deployment, known: Mapping[str, Known]) -> list[Features]:
    """The features of each event, in order; deletions have none.

    Raises:
        HeldError: a store that the stream waits for does not answer.
    """
    contents = [event for event in events if event.kind != "delete"]
    found = deployment.lookup(contents, known) if contents else []
    if len(contents) == len(events):
        return list(found)
    ordered = iter(found)
    return [NO_FEATURES if event.kind == "delete" else next(ordered) for event in events]


def decided(
    candidate: Candidate,
    deployment: Deployment,
    known: Known | None,
    now: datetime,
    how: How = FIRST_STAGE,
    again: bool = False,
) -> SinkRow:
    """The row of one candidate.

    A content that this epoch decided on before is decided at the same time again, but where ``again`` says that time
    itself is the reason. A video of a tenant that nobody configured is a dead letter, whatever its scores.
    """
    ruled, how = _part(deployment, tenant_of(candidate.event.video_id), now, how)
    return _decided(candidate, ruled, how, None if again else known)


def _part(deployment: Deployment, tenant: str, now: datetime, how: How = FIRST_STAGE) -> tuple[Deployment | None, How]:
    """The rules of a tenant, None if nobody configured it, and what all its rows of a batch say."""
    ruled = deployment.of_tenant(tenant)
    pending = deployment.pending if ruled is None else ruled.pending
    policies = {} if deployment.second is None else deployment.second.policies
    return ruled, replace(
        how, epoch=deployment.epoch, decided_at=now, now=now, pending=pending, policies=policies, recheck_at=None
    )


def _decided(candidate: Candidate, ruled: Deployment | None, how: How, known: Known | None) -> SinkRow:
    event, verdict = candidate.event, None if known is None else known.verdict
    when = how.now if verdict is None else _decision_time(event, how.epoch, verdict, how.now)
    recheck_at = None if ruled is None else ruled.changes_at(event, when)
    if when is not how.decided_at or recheck_at is not None:
        how = replace(how, decided_at=when, recheck_at=recheck_at)
    if ruled is None:
        return to_row(_refused(event), UNSCORED, how)
    return to_row(candidate, ruled.decide(candidate, when), how)


def _refused(event: Event) -> Candidate:
    tenant = tenant_of(event.video_id)
    return Candidate(
        event, error=f"tenant '{tenant}' is not configured; name it in the file of --tenants, then retry dead letters"
    )


def stored_candidate(event: Event, verdict: Verdict, deployment: Deployment) -> Candidate | None:
    """The video's stored scores under the present policies; None where a model has to be asked before."""
    stored = verdict.value.get("scores", {})
    scores = [deployment.redecide(issue, score, event.views) for issue, score in stored.items()]
    known = [replace(score, video_id=event.video_id) for score in scores if score is not None]
    if not known or len(known) != len(scores):
        return None
    candidate = candidate_of(event, known)
    return None if awaits_mllm(candidate) and deployment.second is None else candidate


def same_models(epoch: int, deployment: Deployment, models: Mapping[int, Mapping[str, str]]) -> bool:
    """Whether scores of that epoch were made with this deployment's models; ``models`` are those of each epoch."""
    if epoch == deployment.epoch:
        return True
    return bool(deployment.models) and models.get(epoch) == deployment.models


def _decision_time(event: Event, epoch: int, verdict: Verdict, now: datetime) -> datetime:
    same = (verdict.source_version, verdict.epoch) == (event.source_version, epoch)
    return verdict.decided_at if same and verdict.decided_at is not None else now


def _most_views(events: Iterable[Event], known: Mapping[str, Known]) -> dict[str, int | None]:
    most: dict[str, int | None] = {video_id: found.views for video_id, found in known.items()}
    for event in events:
        video_id, views = event.video_id, event.views
        before = most.get(video_id)
        most[video_id] = views if before is None else before if views is None else max(before, views)
    return most
