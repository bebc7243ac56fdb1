"""A pair over many videos: base model, policy, MLLM; one row per video, whatever its clip is like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from coefvq.cascade.audit_sample import AuditSample
from coefvq.cascade.policy import CascadePolicy
from coefvq.config import MediaLimits
from coefvq.data.media.clips import ClipStore, default_cache
from coefvq.errors import CoefVQError, MLLMUnavailableError
from coefvq.inference.decisions import Answers, Decisions, decide, route
from coefvq.inference.scores import Scores, score_clips
from coefvq.inference.settings import Recorded, load_for_scoring
from coefvq.models.memo import Memo
from coefvq.records import ScoredVideo, VideoInput

if TYPE_CHECKING:
    from coefvq.models.classifier import Classifier
    from coefvq.models.shared import TowerPool

#: videos that are scored together: outputs of towers that several models share are kept for so many (2 MB each)
GROUP = 128


@dataclass(frozen=True)
class PairScorer:
    """A loaded pair: base model, MLLM and the policy between them."""

    issue: str
    bundle_version: str
    base: Classifier
    mllm: Classifier
    policy: CascadePolicy
    cache: Path
    limits: MediaLimits
    batch_size: int = 32
    audit: AuditSample | None = None
    memo: Memo = field(default_factory=Memo)

    @classmethod
    def from_folders(
        cls,
        base_dir: Path,
        mllm_dir: Path,
        policy: Mapping[str, Any],
        issue: str,
        bundle_version: str,
        how: Recorded,
        cache: Path | None = None,
        towers: TowerPool | None = None,
    ) -> PairScorer:
        """Load both models (safetensors and JSON only); ``how`` is what the pair's preprocessing says.

        Towers that both have in common, or that ``towers`` of other pairs holds, are held and run once.

        Raises:
            ModelError: a folder is incomplete or does not fit.
            ConfigError: the policy is not one.
        """
        from coefvq.models.shared import TowerPool

        shared = TowerPool() if towers is None else towers
        return cls(
            issue=issue,
            bundle_version=bundle_version,
            base=load_for_scoring(base_dir, how.scoring, shared),
            mllm=load_for_scoring(mllm_dir, how.scoring, shared),
            policy=CascadePolicy.from_dict(policy),
            cache=cache or default_cache(),
            limits=how.limits,
            memo=shared.memo,
        )

    @property
    def stores(self) -> tuple[ClipStore, ClipStore]:
        """Clips as the base model and as the MLLM sees them, which may be other frames or more sound."""
        store = ClipStore(self.cache, self.base.config.media, self.limits)
        return store, replace(store, spec=self.mllm.config.media)

    def score(self, inputs: Sequence[VideoInput]) -> list[ScoredVideo]:
        """Base score for all, MLLM score for those the policy lets through; a bad clip gets an error row.

        Clips that were never decoded are decoded in limited processes: a hostile one costs its own row.
        """
        return _in_groups((self,), inputs)

    __call__ = score

    def score_group(self, inputs: Sequence[VideoInput]) -> list[ScoredVideo]:
        """``score`` for so few videos that what shared towers give for them fits into memory."""
        store, _ = self.stores
        videos = [store.hashed(video) for video in inputs]
        errors: dict[int, CoefVQError] = {}
        base = score_clips(self.base, videos, store, errors.__setitem__, self.batch_size)
        rows = {index: self._undecided(videos[index], None, str(error)) for index, error in errors.items()}
        good = [index for index in range(len(videos)) if index not in rows]
        rows.update(zip(good, self._cascade([videos[index] for index in good], base[good], store), strict=True))
        return [rows[index] for index in range(len(videos))]

    def _cascade(self, videos: Sequence[VideoInput], base: Scores, store: ClipStore) -> list[ScoredVideo]:
        views = np.array([np.nan if video.views is None else video.views for video in videos], np.float64)
        sent = route(self.policy, base, views, self._drawn(videos))
        answers = self._ask(videos, sent.to_mllm, store)
        decisions = decide(self.policy, sent, base, views, answers)
        return [self._row(video, i, float(base[i]), answers, decisions) for i, video in enumerate(videos)]

    def _ask(self, videos: Sequence[VideoInput], indices: Sequence[int], store: ClipStore) -> Answers:
        """Show the videos at ``indices`` to the MLLM."""
        scores, errors = np.full(len(videos), np.nan), dict[int, CoefVQError]()
        try:
            scores[indices] = score_clips(
                self.mllm,
                [videos[index] for index in indices],
                replace(store, spec=self.mllm.config.media),
                lambda at, error: errors.update({indices[at]: error}),
                self.batch_size,
                self.issue,
                self.memo if len(self.mllm.config.issues) > 1 else None,
            )
        except MLLMUnavailableError as error:
            return Answers(scores, errors, str(error) or "no reason given")
        return Answers(scores, errors)

    def _row(self, video: VideoInput, index: int, base: float, answers: Answers, decisions: Decisions) -> ScoredVideo:
        if index in decisions.errors:
            return self._undecided(video, None, str(decisions.errors[index]))
        down, final, mllm = bool(decisions.down[index]), float(decisions.final[index]), float(answers.scores[index])
        if down and self.policy.mllm_down == "hold":
            held = self._undecided(video, base, f"held until the MLLM answers: {answers.silence}")
            return replace(held, degraded=True)
        undecided = np.isnan(final) or (down and self.policy.mllm_down == "ignore")
        return ScoredVideo(
            video_id=video.video_id,
            issue=self.issue,
            base_score=base,
            mllm_score=None if np.isnan(mllm) else mllm,
            positive=None if np.isnan(final) else final >= self.policy.decision_threshold,
            decided_by="none" if undecided else "mllm" if decisions.by_mllm[index] else "base",
            bundle_version=self.bundle_version,
            audit_probability=self.audit.rate if self.audit is not None and decisions.drawn[index] else None,
            degraded=down,
        )

    def _drawn(self, videos: Sequence[VideoInput]) -> npt.NDArray[np.bool_]:
        """Which videos the audit draws; a filtered-out one among them is escalated anyway."""
        if self.audit is None:
            return np.zeros(len(videos), bool)
        return self.audit.selected([video.video_id for video in videos])

    def _undecided(self, video: VideoInput, base: float | None, error: str) -> ScoredVideo:
        """An error row: the VMP keeps it as a dead letter, to be scored again."""
        return ScoredVideo(
            video_id=video.video_id,
            issue=self.issue,
            base_score=base,
            mllm_score=None,
            positive=None,
            decided_by="none",
            bundle_version=self.bundle_version,
            error=error,
        )


@dataclass(frozen=True)
class MultiIssueScorer:
    """Several pairs over the same videos; rows come issue by issue."""

    pairs: tuple[PairScorer, ...]

    def __call__(self, inputs: Sequence[VideoInput]) -> list[ScoredVideo]:
        """As ``PairScorer.score``, for each pair."""
        return _in_groups(self.pairs, inputs)


def _in_groups(pairs: Sequence[PairScorer], inputs: Sequence[VideoInput]) -> list[ScoredVideo]:
    """Rows pair by pair. A group of videos goes through all pairs before the next group: shared towers run once."""
    rows: list[list[ScoredVideo]] = [[] for _ in pairs]
    for start in range(0, len(inputs), GROUP):
        group = [pairs[0].stores[0].hashed(video) for video in inputs[start : start + GROUP]]
        with ExitStack() as stack:
            for store in {store.spec: store for pair in pairs for store in pair.stores}.values():
                stack.enter_context(store.passing(group))
            for memo in {id(pair.memo): pair.memo for pair in pairs}.values():
                stack.enter_context(memo.group())
            for pair, own_rows in zip(pairs, rows, strict=True):
                own_rows += pair.score_group(group)
    return [row for own_rows in rows for row in own_rows]
