"""From a decided candidate to the row the Sink stores, with the version that guards it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any

import orjson
from pydantic_core import to_json

from coefvq.cascade.policy import CascadePolicy
from coefvq.errors import ModelError
from coefvq.records import ScoredVideo
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
    Rank,
    SinkRow,
    State,
    Task,
    Undecided,
)

_BUNDLE_VERSION = re.compile(r"(\d+)-[0-9A-Za-z._-]+", re.ASCII)
#: what an event of views alone is called among the audit rows
WATCHED = Decision("ignored", "views")
#: made once: json.dumps makes a new encoder for each call with options
_ROUTES = json.JSONEncoder(sort_keys=True)


def bundle_text(scores: Iterable[ScoredVideo]) -> str:
    """``icd=3-ab,ucc=9-cd``: the pairs that scored a row; failed scores count nothing.

    Raises:
        ModelError: a bundle version has another form than NUMBER-HASH.
    """
    versions: tuple[tuple[str, str], ...] = ()
    for score in scores:
        if score.error is None:
            versions += ((score.issue, score.bundle_version),)
    return _bundle_text(versions)


@lru_cache(maxsize=256)
def _bundle_text(versions: tuple[tuple[str, str], ...]) -> str:
    for _, version in sorted(versions):
        if _BUNDLE_VERSION.fullmatch(version) is None:
            raise ModelError(
                f"bundle version {version!r}: expected NUMBER-HASH such as 3-ab12cd34ef56; register the bundle again"
            )
    return ",".join(f"{issue}={version}" for issue, version in sorted(versions))


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

    @cached_property
    def decided_text(self) -> str:
        """The time of the decision as rows store it; the rows of a batch share it."""
        return self.decided_at.isoformat()


FIRST_STAGE = How()


def to_row(candidate: Candidate, decision: Decision, how: How) -> SinkRow:
    """Build the Sink's row: features and scores for a live video, scores only for a removed one.

    Raises:
        ModelError: a bundle version has another form than NUMBER-HASH.
    """
    event, scores, error, features = candidate
    state = _state(event, decision)
    value = _metadata(event) if state == "live" else {}
    waiting, degraded = [], False
    if scores:
        value["scores"] = said = {}
        for score in scores:
            said[score.issue] = _score(score)
            if score.awaits is not None:
                waiting.append(score)
            if score.degraded:
                degraded = True
    if features.values:
        # what the rules saw: with it they can decide again
        value["features"] = features.values
    return SinkRow(
        event.offset,
        event.video_id,
        event.source_version,
        how.epoch,
        rank(candidate),
        bundle_text(scores),
        decision.outcome,
        state,
        decision.rule,
        _text(value),
        how.decided_text,
        event,
        event.views,
        event.uri,
        error,
        degraded,
        True,
        _task(candidate, waiting, how) if waiting else None,
        # a base verdict that takes a video down needs no answer to take effect
        bool(waiting) and state == "live" and how.pending == "hold" and awaits_mllm(candidate),
        not how.down,
        _routes(candidate, how) if how.policies and scores else None,
        None if how.task is None or how.down else how.now.timestamp() - how.task.enqueued,
        how.recheck_at,
    )


def watched_row(event: Event, epoch: int, now: datetime) -> SinkRow:
    """The row of an event of views alone: it raises the video's count and changes no verdict."""
    return to_row(Candidate(event), WATCHED, How(epoch=epoch, decided_at=now, now=now))._replace(judged=False)


def rank(candidate: Candidate) -> Rank:
    """How much the verdict is worth: of two under one deployment the better one stays."""
    worth = FULL
    for score in candidate.scores:
        if score.awaits is not None:
            return PENDING
        if score.degraded:
            worth = DEGRADED
        elif score.audit_probability is not None and score.mllm_score is not None and worth == FULL:
            worth = AUDITED
    if candidate.error is not None:
        return ERROR
    return DEGRADED if candidate.features.are_degraded else worth


def awaits_mllm(candidate: Candidate) -> bool:
    """Whether the decision itself, not just an audit, needs an answer."""
    return any(score.awaits == "mllm" for score in candidate.scores)


def _task(candidate: Candidate, waiting: Sequence[ScoredVideo], how: How) -> Task:
    event = candidate.event
    return Task(
        event.video_id,
        event.source_version,
        how.epoch,
        event.views,
        how.lane if awaits_mllm(candidate) else AUDIT,
        max(score.base_score or 0.0 for score in waiting),
        len(waiting),
        _scores(candidate.scores),
        how.now.timestamp(),
        drawn=any(score.drawn for score in waiting),
    )


def _routes(candidate: Candidate, how: How) -> str:
    """Per issue why the video went its way, the policy's threshold, and how likely it was to be shown to the MLLM."""
    return _ROUTES.encode(
        {
            score.issue: _route(score, candidate.event.views, how.policies[score.issue], how.expired)
            for score in candidate.scores
            if score.issue in how.policies
        }
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


def _text(value: Mapping[str, Any]) -> str:
    """JSON; a number that is not finite is null."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # four times as slow, but it takes whole numbers of any length, which a feature may be
        return to_json(value, inf_nan_mode="null").decode()


def _state(event: Event, decision: Decision) -> State | None:
    if event.kind == "delete":
        return "deleted"
    return None if decision.outcome == "ignored" else decision.outcome


def _metadata(event: Event) -> dict[str, Any]:
    return {
        "uri": event.uri,
        "sha256": event.sha256,
        "title": event.title,
        "stickers": event.stickers,
        "views": event.views,
        "published_at": event.published_at,
        "creator_id": event.creator_id,
        "duration_s": event.duration_s,
    }


def _scores(scores: Iterable[ScoredVideo]) -> dict[str, Any]:
    return {score.issue: _score(score) for score in scores}


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
    if score.degraded:
        value["degraded"] = True
    if score.drawn:
        value["drawn"] = True
    if score.awaits is not None:
        value["awaits"] = score.awaits
    if score.metadata:
        value["metadata"] = dict(score.metadata)
    return value if score.error is None else {**value, "error": score.error}
