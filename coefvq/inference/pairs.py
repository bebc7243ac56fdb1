"""A pair over many videos: base model, policy, MLLM; one row per video, whatever its clip is like."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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
from coefvq.inference.score_cache import ScoreCache, score_keys
from coefvq.inference.scores import Failed, Scores, head_scores
from coefvq.inference.settings import Recorded, load_for_scoring, model_key
from coefvq.inference.stages import decided_row, error_row, first_stage
from coefvq.models.memo import Memo
from coefvq.records import ScoredVideo, VideoInput

if TYPE_CHECKING:
    from coefvq.models.classifier import Classifier
    from coefvq.models.shared import TowerPool

#: videos that are scored together: outputs of towers that several models share are kept for so many (2 MB each)
GROUP = 128


@dataclass(frozen=True)
class KnownScores:
    """What a pair's models said before; ``base`` and ``mllm`` name their files and settings."""

    cache: ScoreCache
    base: str
    mllm: str


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
    known: KnownScores | None = None

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
        place = cache or default_cache()
        return cls(
            issue=issue,
            bundle_version=bundle_version,
            base=load_for_scoring(base_dir, how.scoring, shared),
            mllm=load_for_scoring(mllm_dir, how.scoring, shared),
            policy=CascadePolicy.from_dict(policy),
            cache=place,
            limits=how.limits,
            memo=shared.memo,
            known=KnownScores(ScoreCache(place), model_key(base_dir, how.scoring), model_key(mllm_dir, how.scoring)),
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
        return self._after_base(inputs, self._cascade)

    def base_group(self, inputs: Sequence[VideoInput]) -> list[ScoredVideo]:
        """The first stage of ``score_group`` alone: rows that need the MLLM say so in ``awaits``."""
        return self._after_base(inputs, self._first_stage)

    def ask(self, inputs: Sequence[VideoInput]) -> Answers:
        """The second stage: the MLLM's scores of these videos; the policy plays no part."""
        store, _ = self.stores
        return self._ask([store.hashed(video) for video in inputs], range(len(inputs)), store)

    def _after_base(
        self,
        inputs: Sequence[VideoInput],
        rows_of: Callable[[Sequence[VideoInput], Scores, ClipStore], list[ScoredVideo]],
    ) -> list[ScoredVideo]:
        store, _ = self.stores
        videos = [store.hashed(video) for video in inputs]
        errors: dict[int, CoefVQError] = {}
        base = self._scored(self.base, videos, store, errors.__setitem__)
        rows = {index: self._failed(videos[index], error) for index, error in errors.items()}
        good = [index for index in range(len(videos)) if index not in rows]
        rows.update(zip(good, rows_of([videos[index] for index in good], base[good], store), strict=True))
        return [rows[index] for index in range(len(videos))]

    def _cascade(self, videos: Sequence[VideoInput], base: Scores, store: ClipStore) -> list[ScoredVideo]:
        views = _views(videos)
        sent = route(self.policy, base, views, self._drawn(videos))
        answers = self._ask(videos, sent.to_mllm, store)
        decisions = decide(self.policy, sent, base, views, answers)
        return [self._row(video, i, float(base[i]), answers, decisions) for i, video in enumerate(videos)]

    def _first_stage(self, videos: Sequence[VideoInput], base: Scores, store: ClipStore) -> list[ScoredVideo]:
        rate = None if self.audit is None else self.audit.rate
        return first_stage(
            self.policy, self.bundle_version, [video.video_id for video in videos], base, _views(videos),
            self._drawn(videos), rate,
        )  # fmt: skip

    def _ask(self, videos: Sequence[VideoInput], indices: Sequence[int], store: ClipStore) -> Answers:
        """Show the videos at ``indices`` to the MLLM."""
        scores, errors = np.full(len(videos), np.nan), dict[int, CoefVQError]()
        try:
            scores[indices] = self._scored(
                self.mllm,
                [videos[index] for index in indices],
                replace(store, spec=self.mllm.config.media),
                lambda at, error: errors.update({indices[at]: error}),
            )
        except MLLMUnavailableError as error:
            return Answers(scores, errors, str(error) or "no reason given")
        return Answers(scores, errors)

    def _scored(self, model: Classifier, videos: Sequence[VideoInput], store: ClipStore, failed: Failed) -> Scores:
        """Scores [n] of the pair's issue; what is known of a clip is not computed again."""
        from coefvq.models.heads import head_of

        issues, memo = model.config.issues, self.memo if len(model.config.issues) > 1 else None

        def compute(missing: list[int]) -> Scores:
            chosen = [videos[index] for index in missing]
            return head_scores(
                model, chosen, store, lambda at, error: failed(missing[at], error), self.batch_size, memo
            )

        # a base model has one head, whatever its issue is called here
        head = head_of(issues, self.issue if model is self.mllm else None)
        if self.known is None:
            return compute(list(range(len(videos))))[:, head]
        keys = score_keys(self.known.mllm if model is self.mllm else self.known.base, videos)
        return self.known.cache.fill(keys, len(issues), compute)[:, head]

    def _row(self, video: VideoInput, index: int, base: float, answers: Answers, decisions: Decisions) -> ScoredVideo:
        if index in decisions.errors:
            return self._failed(video, decisions.errors[index])
        mllm = float(answers.scores[index])
        row = decided_row(
            self.policy, self.bundle_version, video.video_id, base, None if np.isnan(mllm) else mllm, decisions, index,
            answers.silence,
        )  # fmt: skip
        logged = self.audit.rate if self.audit is not None and decisions.drawn[index] and row.error is None else None
        return replace(row, issue=self.issue, audit_probability=logged)

    def _drawn(self, videos: Sequence[VideoInput]) -> npt.NDArray[np.bool_]:
        """Which videos the audit draws; a filtered-out one among them is escalated anyway."""
        if self.audit is None:
            return np.zeros(len(videos), bool)
        return self.audit.selected([video.video_id for video in videos])

    def _failed(self, video: VideoInput, error: CoefVQError) -> ScoredVideo:
        """The VMP keeps it as a dead letter, to be scored again."""
        return error_row(video.video_id, self.issue, self.bundle_version, str(error))


@dataclass(frozen=True)
class MultiIssueScorer:
    """Several pairs over the same videos; rows come issue by issue."""

    pairs: tuple[PairScorer, ...]

    def __call__(self, inputs: Sequence[VideoInput]) -> list[ScoredVideo]:
        """As ``PairScorer.score``, for each pair."""
        return _in_groups(self.pairs, inputs)

    def base(self, inputs: Sequence[VideoInput]) -> list[ScoredVideo]:
        """The first stage for each pair: rows that need the MLLM say so in ``awaits``."""
        return _in_groups(self.pairs, inputs, PairScorer.base_group)

    def ask(self, wanted: Mapping[str, Sequence[VideoInput]]) -> dict[str, Answers]:
        """The second stage: per issue the MLLM's scores of these videos; at most ``GROUP`` videos.

        An MLLM that several issues share is asked once.
        """
        with _group(self.pairs, [video for videos in wanted.values() for video in videos]):
            return {pair.issue: pair.ask(wanted[pair.issue]) for pair in self.pairs if wanted.get(pair.issue)}


def _in_groups(
    pairs: Sequence[PairScorer],
    inputs: Sequence[VideoInput],
    stage: Callable[[PairScorer, Sequence[VideoInput]], list[ScoredVideo]] = PairScorer.score_group,
) -> list[ScoredVideo]:
    """Rows pair by pair. A group of videos goes through all pairs before the next group: shared towers run once."""
    rows: list[list[ScoredVideo]] = [[] for _ in pairs]
    for start in range(0, len(inputs), GROUP):
        group = [pairs[0].stores[0].hashed(video) for video in inputs[start : start + GROUP]]
        with _group(pairs, group):
            for pair, own_rows in zip(pairs, rows, strict=True):
                own_rows += stage(pair, group)
    return [row for own_rows in rows for row in own_rows]


@contextmanager
def _group(pairs: Sequence[PairScorer], videos: Sequence[VideoInput]) -> Iterator[None]:
    """What the pairs' towers have in common is kept for one group of videos, and so are the clips decoded for it."""
    with ExitStack() as stack:
        for store in {store.spec: store for pair in pairs for store in pair.stores}.values():
            stack.enter_context(store.passing(videos))
        for memo in {id(pair.memo): pair.memo for pair in pairs}.values():
            stack.enter_context(memo.group())
        yield


def _views(videos: Sequence[VideoInput]) -> npt.NDArray[np.float64]:
    return np.array([np.nan if video.views is None else video.views for video in videos], np.float64)
