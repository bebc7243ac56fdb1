"""A task of the MLLM meets its video: which still stand, and the row that an answer, or its lack, makes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from coefvq.cascade.policy import CascadePolicy
from coefvq.inference import stages
from coefvq.records import ScoredVideo, VideoInput
from coefvq.vmp.deployment import Deployment, SecondStage, decided, looked_up, same_models
from coefvq.vmp.records import NO_FEATURES, Candidate, Event, Features, Known, SinkRow, Task
from coefvq.vmp.retriever import candidate_of, video_input
from coefvq.vmp.rows import How

#: policy, what the base model said, view count → the row of one issue
Settle = Callable[[CascadePolicy, ScoredVideo, int | None], ScoredVideo]


@dataclass(frozen=True)
class Case:
    """A task with its video as it is now, and what the base model said, one row per issue."""

    task: Task
    event: Event
    known: Known
    first: tuple[ScoredVideo, ...]
    features: Features = NO_FEATURES


@dataclass(frozen=True)
class Cases:
    """Tasks sorted: ``ready`` ones need the MLLM only, ``old`` ones another base score before.

    ``void`` ones are answered by newer content or a newer deployment.
    """

    ready: list[Case] = field(default_factory=list)
    old: list[Case] = field(default_factory=list)
    void: list[Task] = field(default_factory=list)


@dataclass(frozen=True)
class Reply:
    """The MLLM's answer about one video for one issue: a score, why the clip has none, or why nobody answered."""

    score: float | None = None
    error: str = ""
    silence: str = ""


Replies = Mapping[tuple[str, str], Reply]


def sort_cases(
    tasks: Sequence[Task],
    newest: Mapping[str, Event],
    known: Mapping[str, Known],
    models: Mapping[int, Mapping[str, str]],
    deployment: Deployment,
) -> Cases:
    """What can be done about each task; ``newest`` are the videos' newest events, ``models`` those of each epoch."""
    cases = Cases()
    for task in tasks:
        event, seen = newest.get(task.video_id), known.get(task.video_id, Known())
        newer = seen.verdict is not None and seen.verdict.epoch > deployment.epoch
        if event is None or event.kind == "delete" or event.source_version != task.source_version or newer:
            cases.void.append(task)
            continue
        event = replace(event, views=seen.views)
        usable = same_models(task.epoch, deployment, models)
        first = _first_rows(task, event, deployment) if usable and task.scores else ()
        (cases.ready if first else cases.old).append(Case(task, event, seen, first))
    return cases


def with_features(cases: Cases, deployment: Deployment, known: Mapping[str, Known]) -> Cases:
    """The same with the features of their videos: one look for all, before the MLLM is asked.

    Raises:
        HeldError: a store that the stream waits for does not answer.
    """
    found = iter(looked_up([case.event for case in (*cases.ready, *cases.old)], deployment, known))
    ready = [replace(case, features=next(found)) for case in cases.ready]
    return Cases(ready, [replace(case, features=next(found)) for case in cases.old], cases.void)


def _first_rows(task: Task, event: Event, deployment: Deployment) -> tuple[ScoredVideo, ...]:
    """What the base model said, under the policies of now."""
    return tuple(_first_row(issue, stored, task, event, deployment) for issue, stored in task.scores.items())


def _first_row(issue: str, stored: Mapping[str, Any], task: Task, event: Event, deployment: Deployment) -> ScoredVideo:
    plain = {name: value for name, value in stored.items() if name not in ("awaits", "drawn")}
    row = deployment.redecide(issue, plain, event.views)
    if row is None:
        error = str(stored.get("error") or "not scored")
        return stages.error_row(event.video_id, issue, stored["bundle_version"], error)
    # the audit's draw stays with the task, whatever the policy says by now
    audited = row.awaits is None and row.mllm_score is None and stored.get("drawn", False) and not row.positive
    return replace(row, video_id=event.video_id, awaits="audit" if audited else row.awaits, drawn=task.drawn)


def with_draw(candidate: Candidate, task: Task, second: SecondStage) -> Candidate:
    """New base scores of a task's video, with the audit's draw that it had before: no draw is lost to a promotion."""
    rows = []
    for row in candidate.scores:
        rate = task.scores.get(row.issue, {}).get("audit_probability")
        accepted = row.base_score is not None and stages.policy_accepts(
            second.policies[row.issue], row.base_score, math.nan
        )
        if rate is not None and row.error is None and not accepted:
            awaits = row.awaits or ("audit" if task.drawn else None)
            row = replace(row, audit_probability=rate, drawn=task.drawn, awaits=awaits)
        rows.append(row)
    return candidate._replace(scores=tuple(rows))


def questions(cases: Sequence[Case]) -> dict[str, list[VideoInput]]:
    """Issue → videos that the MLLM is to see."""
    wanted: dict[str, list[VideoInput]] = {}
    for case in cases:
        for row in case.first:
            if row.awaits is not None:
                wanted.setdefault(row.issue, []).append(video_input(case.event))
    return wanted


def ask(second: SecondStage, cases: Sequence[Case]) -> Replies:
    """(issue, video id) → what the MLLM said."""
    wanted = questions(cases)
    if not wanted:
        return {}
    answers, replies = second.ask(wanted), dict[tuple[str, str], Reply]()
    for issue, videos in wanted.items():
        made = answers[issue]
        for index, video in enumerate(videos):
            score, error = float(made.scores[index]), made.errors.get(index)
            if error is None and not made.silence and not (math.isfinite(score) and 0.0 <= score <= 1.0):
                reply = Reply(error=f"mllm_score = {score}: expected a probability in [0, 1]")
            else:
                reply = Reply(None if math.isnan(score) else score, str(error or ""), made.silence)
            replies[issue, video.video_id] = reply
    return replies


def answered_row(case: Case, replies: Replies, deployment: Deployment, now: datetime) -> tuple[SinkRow | None, bool]:
    """The row of a video after the MLLM was asked, None if there is none; and whether it was silent."""
    given = [replies.get((row.issue, case.task.video_id), Reply()) for row in case.first]
    down = any(reply.silence for reply in given)
    if down and case.task.silent:
        return None, True  # it has its stand-in already

    def settle(policy: CascadePolicy, row: ScoredVideo, views: int | None) -> ScoredVideo:
        reply = replies[row.issue, case.task.video_id]
        if reply.silence:
            return stages.silent(policy, row, views, reply.silence)
        if reply.error or reply.score is None:
            return stages.failed(policy, row, views, reply.error or "the MLLM gave no score")
        full = stages.answered(policy, row, views, reply.score)
        # served by the audit's reserve alone: it stands for those that the budget let go
        return replace(full, audit_probability=row.audit_probability) if case.task.shed else full

    return _settled(case, settle, deployment, now, down=down), down


def silent_row(case: Case, silence: str, deployment: Deployment, now: datetime) -> SinkRow | None:
    """The verdict of a video while the MLLM is down; None where only the audit waits, and the base verdict stands."""
    return _settled(
        case, lambda policy, row, views: stages.silent(policy, row, views, silence), deployment, now, down=True
    )


def expired_row(case: Case, deployment: Deployment, now: datetime) -> SinkRow | None:
    """The verdict of a video that the budget let go."""
    return _settled(case, lambda policy, row, views: stages.expired(policy, row), deployment, now, is_expired=True)


def _settled(
    case: Case, settle: Settle, deployment: Deployment, now: datetime, *, down: bool = False, is_expired: bool = False
) -> SinkRow | None:
    assert deployment.second is not None  # noqa: S101
    policies = deployment.second.policies
    if down and not any(row.awaits == "mllm" for row in case.first):
        return None
    rows = [row if row.awaits is None else settle(policies[row.issue], row, case.event.views) for row in case.first]
    how = How(task=case.task, down=down, expired=is_expired)
    candidate = candidate_of(case.event, rows).with_features(case.features)
    return decided(candidate, deployment, case.known, now, how)
