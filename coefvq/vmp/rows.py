"""From a decided candidate to the row the Sink stores, with the version that guards it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from coefvq.errors import ModelError
from coefvq.records import ScoredVideo
from coefvq.vmp.log import content_digest
from coefvq.vmp.records import DEGRADED, ERROR, FULL, Candidate, Decision, Event, Rank, SinkRow, State

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


def to_row(candidate: Candidate, decision: Decision, epoch: int, decided_at: datetime) -> SinkRow:
    """Build the Sink's row: features and scores for a live video, scores only for a removed one.

    Raises:
        ModelError: a bundle version has another form than NUMBER-HASH.
    """
    event = candidate.event
    state = _state(candidate, decision)
    value = {**_metadata(candidate), **_scores(candidate)} if state == "live" else _scores(candidate)
    return SinkRow(
        offset=event.offset,
        video_id=event.video_id,
        source_version=event.source_version,
        epoch=epoch,
        rank=rank(candidate),
        bundle_version=bundle_text(candidate.scores),
        outcome=decision.outcome,
        state=state,
        rule=decision.rule,
        value=json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False),
        decided_at=decided_at.isoformat(),
        content=content_digest(event),
        views=event.views,
        uri=event.uri,
        error=candidate.error,
        degraded=_degraded(candidate),
    )


def watched_row(event: Event, epoch: int, now: datetime) -> SinkRow:
    """The row of an event of views alone: it raises the video's count and changes no verdict."""
    return replace(to_row(Candidate(event), WATCHED, epoch, now), judged=False)


def rank(candidate: Candidate) -> Rank:
    """How much the verdict is worth: of two under one deployment the better one stays."""
    if candidate.error is not None:
        return ERROR
    return DEGRADED if _degraded(candidate) else FULL


def _degraded(candidate: Candidate) -> bool:
    return any(score.degraded for score in candidate.scores)


def _state(candidate: Candidate, decision: Decision) -> State | None:
    if candidate.event.kind == "delete":
        return "deleted"
    states: dict[str, State | None] = {"remained": "live", "removed": "removed", "ignored": None}
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
    }


def _scores(candidate: Candidate) -> dict[str, Any]:
    if not candidate.scores:
        return {}
    return {"scores": {score.issue: _score(score) for score in candidate.scores}}


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
    if score.metadata:
        value["metadata"] = dict(score.metadata)
    return value if score.error is None else {**value, "error": score.error}
