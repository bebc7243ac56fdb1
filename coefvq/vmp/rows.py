"""From a decided candidate to the row the Sink stores, with the version that guards it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from coefvq.cascade.policy import CascadePolicy
from coefvq.errors import ModelError
from coefvq.records import ScoredVideo
from coefvq.vmp.log import content_digest
from coefvq.vmp.records import (
    AUDIT,
    AUDITED,
    DEGRADED,
    ERROR,
    FULL,
    LIVE,
    PENDING,
    Candidate,
    Decision,
    Event,
    Lane,
    Outcome,
    Rank,
    SinkRow,
    State,
    Task,
    Undecided,
)

_BUNDLE_VERSION = re.compile(r"(\d+)-[0-9A-Za-z._-]+", re.ASCII)
#: what an event of views alone is called among the audit rows
WATCHED = Decision("ignored", "views")


def bundle_text(scores: Iterable[ScoredVideo]) -> str:
    """``icd=3-ab,ucc=9-cd``: the pairs that scored a row; failed scores count nothing.

    Raises:
        ModelError: a bundle version has another form than NUMBER-HASH.
    """
    versions = sorted((score.issue, score.bundle_version) for score in scores if score.error is None)
    for _, version in versions:
        if _BUNDLE_VERSION.fullmatch(version) is None:
            raise ModelError(
                f"bundle version {version!r}: expected NUMBER-HASH such as 3-ab12cd34ef56; register the bundle again"
            )
    return ",".join(f"{issue}={version}" for issue, version in versions)


@dataclass(frozen=True)
class How:
    """What a row says beside candidate and decision.

    ``pending`` is what an undecided video is to readers, ``lane`` who asks the MLLM. ``task`` is the task that the row
    answers, None in the first stage; ``down`` says that the MLLM did not answer it, ``expired`` that it had no time.
    """

    epoch: int = 0
    decided_at: datetime = datetime.min
    now: datetime = datetime.min
    pending: Undecided = "hold"
    policies: Mapping[str, CascadePolicy] = field(default_factory=dict)
    recheck_at: float | None = None
    lane: Lane = LIVE
    task: Task | None = None
    down: bool = False
    expired: bool = False


FIRST_STAGE = How()


def to_row(candidate: Candidate, decision: Decision, how: How) -> SinkRow:
    """Build the Sink's row: features and scores for a live video, scores only for a removed one.

    Raises:
        ModelError: a bundle version has another form than NUMBER-HASH.
    """
    event = candidate.event
    state = _state(candidate, decision)
    value = {**(_metadata(candidate) if state == "live" else {}), **_scores(candidate), **_features(candidate)}
    return SinkRow(
        offset=event.offset,
        video_id=event.video_id,
        source_version=event.source_version,
        epoch=how.epoch,
        rank=rank(candidate),
        bundle_version=bundle_text(candidate.scores),
        outcome=decision.outcome,
        state=state,
        rule=decision.rule,
        value=json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False),
        decided_at=how.decided_at.isoformat(),
        content=content_digest(event),
        views=event.views,
        uri=event.uri,
        error=candidate.error,
        degraded=_degraded(candidate),
        task=_task(candidate, how),
        # a base verdict that takes a video down needs no answer to take effect
        held=state == "live" and how.pending == "hold" and awaits_mllm(candidate),
        final=not how.down,
        routes=_routes(candidate, how),
        waited=None if how.task is None or how.down else how.now.timestamp() - how.task.enqueued,
        recheck_at=how.recheck_at,
    )


def watched_row(event: Event, epoch: int, now: datetime) -> SinkRow:
    """The row of an event of views alone: it raises the video's count and changes no verdict."""
    return replace(to_row(Candidate(event), WATCHED, How(epoch=epoch, decided_at=now, now=now)), judged=False)


def rank(candidate: Candidate) -> Rank:
    """How much the verdict is worth: of two under one deployment the better one stays."""
    if any(score.awaits for score in candidate.scores):
        return PENDING
    if candidate.error is not None:
        return ERROR
    if _degraded(candidate) or candidate.features.are_degraded:
        return DEGRADED
    audited = any(score.audit_probability is not None and score.mllm_score is not None for score in candidate.scores)
    return AUDITED if audited else FULL


def awaits_mllm(candidate: Candidate) -> bool:
    """Whether the decision itself, not just an audit, needs an answer."""
    return any(score.awaits == "mllm" for score in candidate.scores)


def _degraded(candidate: Candidate) -> bool:
    return any(score.degraded for score in candidate.scores)


def _task(candidate: Candidate, how: How) -> Task | None:
    waiting = [score for score in candidate.scores if score.awaits is not None]
    if not waiting:
        return None
    event = candidate.event
    return Task(
        event.video_id,
        event.source_version,
        how.epoch,
        event.views,
        how.lane if awaits_mllm(candidate) else AUDIT,
        max(score.base_score or 0.0 for score in waiting),
        len(waiting),
        _scores(candidate)["scores"],
        how.now.timestamp(),
        drawn=any(score.drawn for score in waiting),
    )


def _routes(candidate: Candidate, how: How) -> str | None:
    """Per issue why the video went its way, the policy's threshold, and how likely it was to be shown to the MLLM."""
    if not how.policies or not candidate.scores:
        return None
    return json.dumps(
        {
            score.issue: _route(score, candidate.event.views, how.policies[score.issue], how.expired)
            for score in candidate.scores
            if score.issue in how.policies
        },
        sort_keys=True,
    )


def _route(score: ScoredVideo, views: int | None, policy: CascadePolicy, expired: bool) -> dict[str, Any]:
    shown = score.awaits is not None or score.mllm_score is not None
    drawn = score.audit_probability or 0.0
    if score.degraded or score.error is not None:
        reason = "expired" if expired else "outage" if score.degraded else "error"
        propensity = drawn if expired else 0.0
    elif shown and (score.awaits == "audit" or (score.awaits is None and score.audit_probability is not None)):
        reason, propensity = "audit", drawn
    elif shown:
        popular = policy.views_trigger is not None and views is not None and views >= policy.views_trigger
        reason, propensity = "views" if popular else "score", 1.0
    else:
        reason, propensity = ("accepted", 0.0) if score.positive and not drawn else ("filtered", drawn)
    return {"reason": reason, "threshold": policy.base_threshold, "propensity": propensity}


def _state(candidate: Candidate, decision: Decision) -> State | None:
    if candidate.event.kind == "delete":
        return "deleted"
    states: dict[Outcome, State | None] = {"live": "live", "removed": "removed", "ignored": None}
    return states[decision.outcome]


def _metadata(candidate: Candidate) -> dict[str, Any]:
    event = candidate.event
    return {
        "uri": event.uri,
        "sha256": event.sha256,
        "title": event.title,
        "stickers": list(event.stickers),
        "views": event.views,
        "published_at": event.published_at,
        "creator_id": event.creator_id,
        "duration_s": event.duration_s,
    }


def _scores(candidate: Candidate) -> dict[str, Any]:
    if not candidate.scores:
        return {}
    return {"scores": {score.issue: _score(score) for score in candidate.scores}}


def _features(candidate: Candidate) -> dict[str, Any]:
    """What the rules saw: with it they can decide again."""
    return {"features": candidate.features.values} if candidate.features.values else {}


def _score(score: ScoredVideo) -> dict[str, Any]:
    value: dict[str, Any] = {
        "base_score": score.base_score,
        "mllm_score": score.mllm_score,
        "positive": score.positive,
        "decided_by": score.decided_by,
        "bundle_version": score.bundle_version,
    }
    if score.audit_probability is not None:
        value["audit_probability"] = score.audit_probability
    for name in ("degraded", "drawn"):
        if getattr(score, name):
            value[name] = True
    if score.awaits is not None:
        value["awaits"] = score.awaits
    if score.metadata:
        value["metadata"] = dict(score.metadata)
    return value if score.error is None else {**value, "error": score.error}
