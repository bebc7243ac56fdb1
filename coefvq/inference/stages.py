"""The cascade in two stages that may lie hours apart: the base model's rows, and what an answer makes of one.

:mod:`coefvq.inference.decisions` decides in both; one row after another gives the same as a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from coefvq.cascade.escalation import BoolArray
from coefvq.cascade.policy import CascadePolicy
from coefvq.inference.decisions import Answers, Decisions, decide, route
from coefvq.inference.scores import Scores
from coefvq.records import ScoredVideo


def first_stage(
    policy: CascadePolicy,
    bundle_version: str,
    video_ids: Sequence[str],
    base: Scores,
    views: Scores,
    drawn: BoolArray,
    audit_rate: float | None,
) -> list[ScoredVideo]:
    """One row per video: decided where the base model is enough, else waiting for the MLLM.

    Args:
        policy: who needs the MLLM.
        bundle_version: of the pair.
        video_ids: [n].
        base: [n] base scores.
        views: [n], NaN where unknown.
        drawn: [n] videos that the audit draws; those that are filtered out wait for the MLLM too.
        audit_rate: with which probability each is drawn; None without an audit.
    """
    sent = route(policy, base, views, drawn)
    nobody = route(policy, base, views, np.zeros(len(base), bool))
    made = decide(policy, nobody, base, views, Answers(np.full(len(base), np.nan), {}, "not asked yet"))
    rows = []
    for i, video_id in enumerate(video_ids):
        row = decided_row(policy, bundle_version, video_id, float(base[i]), None, made, i)
        if sent.escalated[i]:
            row = replace(row, positive=None, decided_by="none", degraded=False, error=None, awaits="mllm")
        elif sent.audited[i]:
            row = replace(row, awaits="audit")
        if not policy_accepts(policy, float(base[i]), float(views[i])):
            row = replace(row, audit_probability=audit_rate, drawn=bool(drawn[i]))
        rows.append(row)
    return rows


def answered(policy: CascadePolicy, first: ScoredVideo, views: int | None, score: float) -> ScoredVideo:
    """The full verdict: ``first`` with the MLLM's score, at the view count of now."""
    return verdict(policy, first, views, Answers(np.array([score]), {}), audited=first.awaits == "audit")


def failed(policy: CascadePolicy, first: ScoredVideo, views: int | None, error: str) -> ScoredVideo:
    """The MLLM cannot score this clip: an error row, or the base model's word where only the audit had asked."""
    if first.awaits == "audit" and not escalates(policy, first, views):
        # a failed audit counts as not drawn, and logs no probability
        return replace(first, awaits=None, drawn=False, audit_probability=None)
    return replace(first, base_score=None, positive=None, decided_by="none", error=error, awaits=None, drawn=False,
                   audit_probability=None)  # fmt: skip


def silent(policy: CascadePolicy, first: ScoredVideo, views: int | None, silence: str) -> ScoredVideo:
    """The MLLM is down: what the policy's ``mllm_down`` says, until it is back."""
    return verdict(policy, first, views, Answers(np.array([np.nan]), {}, silence), audited=False)


def expired(policy: CascadePolicy, first: ScoredVideo) -> ScoredVideo:
    """The budget had no call for it: as a video below the base threshold, which the budget in effect raised."""
    meaning = {"negative": 0.0, "keep_base_score": first.base_score, "excluded": None}[policy.filtered]
    return replace(
        first,
        positive=None if meaning is None else meaning >= policy.decision_threshold,
        decided_by="none" if meaning is None else "base",
        degraded=True,
        awaits=None,
        drawn=False,
    )


def policy_accepts(policy: CascadePolicy, base: float, views: float) -> bool:
    """Whether the base score alone makes the video positive."""
    return bool(policy.accepts(np.array([base]), np.array([views]))[0])


def escalates(policy: CascadePolicy, first: ScoredVideo, views: int | None) -> bool:
    """Whether the policy needs the MLLM at this base score and view count."""
    return bool(policy.escalates(_base(first), _seen(views))[0])


def verdict(
    policy: CascadePolicy, first: ScoredVideo, views: int | None, answers: Answers, audited: bool
) -> ScoredVideo:
    """The policy over both scores of one video; ``audited``: the MLLM was asked though it was filtered out."""
    base, seen = _base(first), _seen(views)
    made = decide(policy, route(policy, base, seen, np.array([audited])), base, seen, answers)
    mllm = float(answers.scores[0])
    row = decided_row(
        policy, first.bundle_version, first.video_id, float(base[0]), None if np.isnan(mllm) else mllm, made, 0,
        answers.silence,
    )  # fmt: skip
    logged = first.audit_probability if made.drawn[0] else None
    return replace(row, issue=first.issue, audit_probability=logged, metadata=dict(first.metadata))


def decided_row(
    policy: CascadePolicy,
    bundle_version: str,
    video_id: str,
    base: float,
    mllm: float | None,
    made: Decisions,
    index: int,
    silence: str = "",
) -> ScoredVideo:
    """The row of the video at ``index`` of a batch, which is no error; ``silence``: why the MLLM answers nobody."""
    down, final = bool(made.down[index]), float(made.final[index])
    held = down and policy.mllm_down == "hold"
    undecided = held or np.isnan(final) or (down and policy.mllm_down == "ignore")
    return ScoredVideo(
        video_id=video_id,
        issue=policy.issue,
        base_score=base,
        mllm_score=mllm,
        positive=None if held or np.isnan(final) else final >= policy.decision_threshold,
        decided_by="none" if undecided else "mllm" if made.by_mllm[index] else "base",
        bundle_version=bundle_version,
        error=f"held until the MLLM answers: {silence}" if held else None,
        degraded=down,
    )


def error_row(video_id: str, issue: str, bundle_version: str, error: str) -> ScoredVideo:
    """The row of a video that has no score, with the reason."""
    return ScoredVideo(video_id, issue, None, None, None, "none", bundle_version, error=error)


def _base(first: ScoredVideo) -> Scores:
    return np.array([first.base_score], np.float64)


def _seen(views: int | None) -> Scores:
    return np.array([np.nan if views is None else views], np.float64)
