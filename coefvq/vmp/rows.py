"""From a decided candidate to the row the Sink stores, with the version that guards it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from coefvq.errors import ModelError
from coefvq.records import ScoredVideo
from coefvq.vmp.records import Candidate, Decision, SinkRow, State

_BUNDLE_VERSION = re.compile(r"(\d+)-[0-9A-Za-z._-]+", re.ASCII)


def bundle_order(bundle_version: str) -> int:
    """Return the integer that orders a bundle version: 3 for ``3-ab12cd34ef56``.

    Raises:
        ModelError: the text has another form.
    """
    match = _BUNDLE_VERSION.fullmatch(bundle_version)
    if match is None:
        raise ModelError(
            f"bundle version {bundle_version!r}: expected NUMBER-HASH such as 3-ab12cd34ef56; register the bundle again"
        )
    return int(match.group(1))


def combined_bundle(scores: Iterable[ScoredVideo]) -> tuple[int, str]:
    """Return (order, version) of a row that several bundles scored, one per issue.

    The order is the sum of the bundles' integers: replacing any one bundle by a newer one raises it.
    Failed scores count nothing, so that a later success of the same bundle is newer. No score: (0, "").

    Raises:
        ModelError: a bundle version has another form than NUMBER-HASH.
    """
    versions = sorted((score.issue, score.bundle_version) for score in scores if score.error is None)
    order = sum(bundle_order(version) for _, version in versions)
    return order, ",".join(f"{issue}={version}" for issue, version in versions)


def to_row(candidate: Candidate, decision: Decision) -> SinkRow:
    """Build the Sink's row: features and scores for a live video, scores only for a removed one.

    Raises:
        ModelError: a bundle version has another form than NUMBER-HASH.
    """
    event = candidate.event
    state = _state(candidate, decision)
    order, version = combined_bundle(candidate.scores)
    value = {**_metadata(candidate), **_scores(candidate)} if state == "live" else _scores(candidate)
    return SinkRow(
        offset=event.offset,
        video_id=event.video_id,
        source_version=event.source_version,
        bundle_order=order,
        bundle_version=version,
        outcome=decision.outcome,
        state=state,
        rule=decision.rule,
        value=json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False),
        uri=event.uri,
        error=candidate.error,
    )


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
    if score.metadata:
        value["metadata"] = dict(score.metadata)
    return value if score.error is None else {**value, "error": score.error}
