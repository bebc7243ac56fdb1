"""Deployments and epochs for tests of the VMP: any scorer, the shipped rules, a fixed time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

from coefvq.cascade.policy import CascadePolicy
from coefvq.records import ScoredVideo, VideoInput
from coefvq.vmp import epochs
from coefvq.vmp.deployment import Deployment
from coefvq.vmp.epochs import Order
from coefvq.vmp.index import IndexStore
from coefvq.vmp.loop import FixedDeployment
from coefvq.vmp.records import Candidate, Decision
from coefvq.vmp.redecide import redecider
from coefvq.vmp.retriever import Scorer
from coefvq.vmp.rules import Rules, decide, load_rules

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
) -> Deployment:
    """One deployment over a scorer; all issues have the same bundle version."""
    known = {policy.issue: policy for policy in policies}
    again = redecider(known, dict.fromkeys(known, bundle))
    return Deployment(epoch, scorer, decide or by_rules(), models or dict.fromkeys(known, "models"), again)


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
    ) -> None:
        self.policy, self.bundle, self.base, self.mllm = policy, bundle, base, mllm
        self.down = False
        self.scored: list[str] = []
        self.mllm_calls: list[str] = []

    def __call__(self, videos: Sequence[VideoInput]) -> list[ScoredVideo]:
        self.scored += [video.video_id for video in videos]
        return [self._score(video) for video in videos]

    def _score(self, video: VideoInput) -> ScoredVideo:
        base, views = self.base(video), None if video.views is None else [video.views]
        row = partial(ScoredVideo, video.video_id, self.policy.issue, bundle_version=self.bundle)
        if not self.policy.escalates([base], views)[0]:
            final = self.policy.final_score([base], [0.0], views)[0]
            return row(base, None, bool(final >= self.policy.decision_threshold), "base")
        if self.down:
            return self._without_mllm(row, base)
        self.mllm_calls.append(video.video_id)
        answer = self.mllm(video)
        return row(base, answer, answer >= self.policy.decision_threshold, "mllm")

    def _without_mllm(self, row: Callable[..., ScoredVideo], base: float) -> ScoredVideo:
        if self.policy.mllm_down == "hold":
            return row(None, None, None, "none", error="held until the MLLM answers: down", degraded=True)
        if self.policy.mllm_down == "ignore":
            return row(base, None, False, "none", degraded=True)
        return row(base, None, base >= self.policy.decision_threshold, "base", degraded=True)
