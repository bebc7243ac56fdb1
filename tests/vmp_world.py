"""Deployments and epochs for tests of the VMP: any scorer, the shipped rules, a fixed time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

import numpy as np

from coefvq.cascade.audit_sample import AuditSample
from coefvq.cascade.policy import CascadePolicy
from coefvq.inference.decisions import Answers
from coefvq.inference.stages import first_stage
from coefvq.records import ScoredVideo, VideoInput
from coefvq.vmp import epochs, loop
from coefvq.vmp.deployment import Deployment, SecondStage
from coefvq.vmp.epochs import FencedError, Order
from coefvq.vmp.escalations import Escalations
from coefvq.vmp.index import IndexStore
from coefvq.vmp.records import Candidate, Decision, Undecided
from coefvq.vmp.redecide import redecider
from coefvq.vmp.retriever import Scorer
from coefvq.vmp.revisions import Contents, Reviser
from coefvq.vmp.rules import Rules, load_rules
from coefvq.vmp.ruling import changes_at, decide

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SHIPPED = load_rules()
POLICY = CascadePolicy(issue="icd", base_threshold=0.5, decision_threshold=0.5, p_base=None, views_trigger=1000)


def by_rules(rules: Rules = SHIPPED) -> Callable[[Candidate, datetime], Decision]:
    """The Filter as a deployment takes it."""
    return lambda candidate, now: decide(candidate, rules, now)


def deployment(
    scorer: Scorer,
    epoch: int = 1,
    decide: Callable[[Candidate, datetime], Decision] | None = None,
    policies: Sequence[CascadePolicy] = (POLICY,),
    bundle: str = "1-ab",
    models: Mapping[str, str] | None = None,
    pending: Undecided = "hold",
    rules: Rules = SHIPPED,
) -> Deployment:
    """One deployment over a scorer; a ``Pair`` brings its second stage, policy and bundle version."""
    if isinstance(scorer, Pair):
        policies, bundle = (scorer.policy,), scorer.bundle
    known = {policy.issue: policy for policy in policies}
    bundles = dict.fromkeys(known, bundle)
    parts = (decide or by_rules(), models or dict.fromkeys(known, "models"), redecider(known, bundles))
    if not isinstance(scorer, Pair):
        return Deployment(epoch, scorer, *parts)
    return Deployment(epoch, scorer, *parts, SecondStage(known, bundles, scorer.ask), pending,
                      partial(changes_at, rules))  # fmt: skip


@dataclass(frozen=True)
class FixedDeployment:
    """One deployment for the whole run."""

    deployment: Deployment

    def current(self) -> Deployment:
        return self.deployment

    def refused(self, refusal: FencedError) -> None:
        raise refusal


def work(log: Contents, index: IndexStore, monotonic: Callable[[], float] = lambda: 0.0) -> tuple[loop.Work, ...]:
    """What `coefvq vmp run` does between events, at a fixed time."""
    return Reviser(log, index, lambda: NOW), Escalations(log, index, lambda: NOW, monotonic)


def fixed(scorer: Scorer, epoch: int = 1, **parts: object) -> FixedDeployment:
    """A deployment that never changes."""
    return FixedDeployment(deployment(scorer, epoch, **parts))  # type: ignore[arg-type]


def promote(index: IndexStore, decision: int, bundle: str, *withdrawn: str, models: str = "models") -> int:
    """Issue an epoch of issue icd, as a worker does that reads this decision."""
    gone = frozenset(f"icd={version}" for version in withdrawn)
    return epochs.issue(index.database, Order(decision, {"icd": bundle}, {"icd": models}, "rules", gone))


class Pair:
    """A pair with scripted scores: ``base`` and ``mllm`` give a video's scores, ``down`` silences the MLLM."""

    def __init__(
        self,
        policy: CascadePolicy = POLICY,
        bundle: str = "1-ab",
        base: Callable[[VideoInput], float] = lambda video: 0.1,
        mllm: Callable[[VideoInput], float] = lambda video: 0.9,
        audit: AuditSample | None = None,
    ) -> None:
        self.policy, self.bundle, self.base, self.mllm = policy, bundle, base, mllm
        self.down, self.audit = False, audit
        self.scored: list[str] = []
        self.mllm_calls: list[str] = []

    def __call__(self, videos: Sequence[VideoInput]) -> list[ScoredVideo]:
        """The first stage."""
        self.scored += [video.video_id for video in videos]
        base = np.array([self.base(video) for video in videos])
        views = np.array([np.nan if video.views is None else video.views for video in videos], np.float64)
        ids = [video.video_id for video in videos]
        drawn = np.zeros(len(ids), bool) if self.audit is None else self.audit.selected(ids)
        rate = None if self.audit is None else self.audit.rate
        rows = first_stage(self.policy, self.bundle, ids, base, views, drawn, rate)
        return [replace(row, issue=self.policy.issue) for row in rows]

    def ask(self, wanted: Mapping[str, Sequence[VideoInput]]) -> dict[str, Answers]:
        """The second stage."""
        return {issue: self._ask(videos) for issue, videos in wanted.items()}

    def _ask(self, videos: Sequence[VideoInput]) -> Answers:
        if self.down:
            return Answers(np.full(len(videos), np.nan), {}, "down")
        self.mllm_calls += [video.video_id for video in videos]
        return Answers(np.array([self.mllm(video) for video in videos]), {})
