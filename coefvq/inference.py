"""The one scoring path: evaluation, bulk scoring, the command line and the VMP all use it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from coefvq.cascade.audit_sample import AuditSample
from coefvq.cascade.policy import CascadePolicy
from coefvq.config import Approximate, MediaLimits, Scoring
from coefvq.data.clips import ClipStore, default_cache
from coefvq.data.limits import kept_limits
from coefvq.data.workers import shared_pool
from coefvq.errors import CoefVQError, MediaError, MLLMUnavailableError, ModelError
from coefvq.records import ScoredVideo, VideoInput

if TYPE_CHECKING:
    import torch

    from coefvq.data.dataset import Collator, Example, VideoDataset
    from coefvq.models.classifier import Classifier

Scores = npt.NDArray[np.float64]
Section = TypeVar("Section", bound=BaseModel)
#: told of a video that got no score, by index, and why
Failed = Callable[[int, CoefVQError], None]

NOTHING = Approximate(int8=False, frames=None, pool_tokens=1, audio_seconds=None)
EXACT = Scoring(dtype="float32", savings="exact", approximate=NOTHING)


@dataclass(frozen=True)
class Recorded:
    """How a released pair is scored, as its ``preprocessing`` says: what is computed how, and what a clip may cost."""

    scoring: Scoring
    limits: MediaLimits


def recorded(preprocessing: Mapping[str, Any]) -> Recorded:
    """The settings that a released pair was made with; exact and ``kept_limits(None)`` where it says nothing.

    Raises:
        ModelError: this version does not know the settings.
    """
    scoring, limits = (
        _section(preprocessing, name, kind) for name, kind in (("scoring", Scoring), ("limits", MediaLimits))
    )
    return Recorded(scoring or EXACT, kept_limits(limits))


def _section(preprocessing: Mapping[str, Any], name: str, kind: type[Section]) -> Section | None:
    if name not in preprocessing:
        return None
    try:
        return kind.model_validate_json(json.dumps(preprocessing[name]))
    except ValueError as error:
        raise ModelError(
            f"preprocessing.{name} of the released pair: not known here ({error}); update coefvq"
        ) from error


def load_for_scoring(folder: Path, scoring: Scoring = EXACT) -> Classifier:
    """A trained model with the switches of ``scoring`` on (coefvq/models/fast); it cannot be trained or saved.

    The base model, which sees every video, takes the exact savings only.

    Raises:
        ModelError: a file is missing or does not fit, or an approximation does not fit this model.
    """
    from coefvq.models.classifier import load

    return ready_for_scoring(load(folder), scoring)


def ready_for_scoring(classifier: Classifier, scoring: Scoring = EXACT) -> Classifier:
    """``load_for_scoring`` of a model that is loaded; its network is changed in place."""
    from coefvq.models.fast.switches import choose, prepare

    base = classifier.config.kind == "base"
    asked = scoring.model_copy(update={"dtype": "float32", "approximate": NOTHING}) if base else scoring
    return prepare(classifier, choose(asked.savings, asked.dtype, asked.approximate))[0]


def score_batches(
    classifier: Classifier,
    videos: Sequence[VideoInput],
    store: ClipStore,
    batch_size: int = 32,
    progress: Callable[[int], None] = lambda _: None,
    issue: str | None = None,
    failed: Failed | None = None,
) -> Scores:
    """P(positive) of each video, float64 [n], in the order given; ``issue`` picks the head of a model with several.

    Without ``failed`` the first video that cannot be scored ends it; with it, that video's score is NaN.

    Raises:
        MediaError: a clip does not decode.
        ModelError: a video's logits are not finite, or no head answers for ``issue``.
    """
    from coefvq.data.dataset import VideoDataset

    dataset = VideoDataset(videos, store)
    return score_dataset(classifier, dataset, classifier.collator, batch_size, progress, issue, failed)


def score_dataset(
    classifier: Classifier,
    dataset: VideoDataset,
    collate: Collator,
    batch_size: int = 32,
    progress: Callable[[int], None] = lambda _: None,
    issue: str | None = None,
    failed: Failed | None = None,
) -> Scores:
    """As ``score_batches``, of examples that may carry cached features; ``collate`` makes batches of them."""
    import torch

    device = next(classifier.network.parameters()).device
    scores, video_ids = np.full(len(dataset), np.nan), dataset.video_ids
    classifier.network.eval()
    with torch.inference_mode():
        for planned in plan_batches(collate.lengths(dataset.texts), batch_size):
            chosen, examples = _readable(dataset, planned, failed)
            if chosen:
                batch = collate(examples)
                logits = classifier.network(**{name: tensor.to(device) for name, tensor in batch.items()}).cpu()
                finite = _finite(logits, [video_ids[i] for i in chosen], chosen, classifier, failed)
                found = classifier.probabilities(logits, issue).numpy()
                scores[chosen] = np.where(finite, found, np.nan)
            progress(len(planned))
    return scores


def _readable(dataset: VideoDataset, planned: Sequence[int], failed: Failed | None) -> tuple[list[int], list[Example]]:
    """Those of a batch whose clips can be read."""
    examples: dict[int, Example] = {}
    for index in planned:
        try:
            examples[index] = dataset[index]
        except MediaError as error:
            if failed is None:
                raise
            failed(index, error)
    return list(examples), list(examples.values())


def plan_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices of each batch; rows of like length go together, so that little is padded."""
    # stable, so the plan depends on the lengths alone
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _finite(
    logits: torch.Tensor,
    video_ids: Sequence[str],
    indices: Sequence[int],
    classifier: Classifier,
    failed: Failed | None,
) -> npt.NDArray[np.bool_]:
    """Which rows have finite logits; of each other one ``failed`` is told, or it ends the run."""
    finite: npt.NDArray[np.bool_] = logits.isfinite().flatten(1).all(dim=1).numpy()
    bad, config = np.flatnonzero(~finite).tolist(), classifier.config
    for row in bad:
        error = ModelError(
            f"video {video_ids[row]}: the {config.kind} model of {config.issue} gives logits that are not finite "
            f"({len(bad)} of {len(video_ids)} videos of its batch); look at its pixels and sound, or train again"
        )
        if failed is None:
            raise error
        failed(indices[row], error)
    return finite


def decode(store: ClipStore, videos: Sequence[VideoInput]) -> dict[int, MediaError]:
    """Decode what the store lacks; what went wrong by index. No process is started if nothing is missing."""
    with shared_pool(store.limits) as pool:
        return store.try_fill(videos, pool.workers, pool=pool)


def score_clips(
    classifier: Classifier,
    videos: Sequence[VideoInput],
    store: ClipStore,
    failed: Failed,
    batch_size: int = 32,
    issue: str | None = None,
) -> Scores:
    """As ``score_batches`` for clips that may never have been decoded; ``failed`` is told before the model is asked.

    Raises:
        ModelError: no head answers for ``issue``.
        StorageError: the clip store cannot be written.
    """
    errors = decode(store, videos)
    for index, error in errors.items():
        failed(index, error)
    good = [index for index in range(len(videos)) if index not in errors]
    scores = np.full(len(videos), np.nan)
    scores[good] = score_batches(
        classifier,
        [videos[index] for index in good],
        store,
        batch_size,
        issue=issue,
        failed=lambda at, error: failed(good[at], error),
    )
    return scores


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
    ) -> PairScorer:
        """Load both models (safetensors and JSON only); ``how`` is what the pair's preprocessing says.

        Raises:
            ModelError: a folder is incomplete or does not fit.
            ConfigError: the policy is not one.
        """
        return cls(
            issue=issue,
            bundle_version=bundle_version,
            base=load_for_scoring(base_dir, how.scoring),
            mllm=load_for_scoring(mllm_dir, how.scoring),
            policy=CascadePolicy.from_dict(policy),
            cache=cache or default_cache(),
            limits=how.limits,
        )

    def score(self, inputs: Sequence[VideoInput]) -> list[ScoredVideo]:
        """Base score for all, MLLM score for those the policy lets through; a bad clip gets an error row.

        Clips that were never decoded are decoded in limited processes: a hostile one costs its own row.
        """
        store = ClipStore(self.cache, self.base.config.media, self.limits)
        videos = [store.hashed(video) for video in inputs]
        errors: dict[int, CoefVQError] = {}
        base = score_clips(self.base, videos, store, errors.__setitem__, self.batch_size)
        rows = {index: self._failed(videos[index], error) for index, error in errors.items()}
        good = [index for index in range(len(videos)) if index not in rows]
        rows.update(zip(good, self._cascade([videos[index] for index in good], base[good], store), strict=True))
        return [rows[index] for index in range(len(videos))]

    __call__ = score

    def _cascade(self, videos: Sequence[VideoInput], base: Scores, store: ClipStore) -> list[ScoredVideo]:
        views = np.array([np.nan if v.views is None else v.views for v in videos], np.float64)
        escalated, silence = self.policy.escalates(base, views), ""
        filtered = ~escalated & ~self.policy.accepts(base, views)
        audited, logged = filtered & self._drawn(videos), filtered.copy()
        # its settings may differ from the base's, and ask for frames or sound that were not decoded yet
        mllm_store = replace(store, spec=self.mllm.config.media)
        chosen: list[int] = np.flatnonzero(escalated | audited).tolist()
        mllm, down, failed = np.full(len(videos), np.nan), np.zeros(len(videos), bool), dict[int, CoefVQError]()
        try:
            mllm[chosen] = score_clips(
                self.mllm,
                [videos[i] for i in chosen],
                mllm_store,
                lambda at, error: failed.update({chosen[at]: error}),
                self.batch_size,
                self.issue,
            )
        except MLLMUnavailableError as error:
            # nobody of this batch could be audited, so no probability is logged
            silence, down, audited, logged = str(error), escalated.copy(), audited & False, logged & False
            down[list(failed)] = False
        # where an audit fails, what the base model said still stands
        bad = {i: error for i, error in failed.items() if escalated[i]}
        answered = np.array([i not in failed for i in range(len(videos))], bool)
        audited, logged = audited & answered, logged & answered
        good = np.array([i not in bad for i in range(len(videos))], bool)
        final = np.full(len(videos), np.nan)
        final[good] = self.policy.final_score(base[good], mllm[good], views[good], down[good])
        final[audited] = mllm[audited]
        return [
            self._failed(video, bad[i])
            if i in bad
            else self._held(video, float(base[i]), silence)
            if down[i] and self.policy.mllm_down == "hold"
            else ScoredVideo(
                video_id=video.video_id,
                issue=self.issue,
                base_score=float(base[i]),
                mllm_score=None if np.isnan(mllm[i]) else float(mllm[i]),
                positive=None if np.isnan(final[i]) else bool(final[i] >= self.policy.decision_threshold),
                decided_by=self._decider(bool(escalated[i] or audited[i]), bool(down[i]), bool(np.isnan(final[i]))),
                bundle_version=self.bundle_version,
                audit_probability=self.audit.rate if self.audit is not None and logged[i] else None,
            )
            for i, video in enumerate(videos)
        ]

    def _drawn(self, videos: Sequence[VideoInput]) -> npt.NDArray[np.bool_]:
        """Which videos the audit draws; a filtered-out one among them is escalated anyway."""
        if self.audit is None:
            return np.zeros(len(videos), bool)
        return self.audit.selected([video.video_id for video in videos])

    def _decider(self, escalated: bool, down: bool, undecided: bool) -> Literal["base", "mllm", "none"]:
        if undecided or (down and self.policy.mllm_down == "ignore"):
            return "none"
        return "mllm" if escalated and not down else "base"

    def _held(self, video: VideoInput, base: float, error: str) -> ScoredVideo:
        """No decision yet: an error row, which the VMP keeps as a dead letter to be scored again."""
        return ScoredVideo(
            video_id=video.video_id,
            issue=self.issue,
            base_score=base,
            mllm_score=None,
            positive=None,
            decided_by="none",
            bundle_version=self.bundle_version,
            error=f"held until the MLLM answers: {error}",
        )

    def _failed(self, video: VideoInput, error: CoefVQError) -> ScoredVideo:
        return ScoredVideo(
            video_id=video.video_id,
            issue=self.issue,
            base_score=None,
            mllm_score=None,
            positive=None,
            decided_by="none",
            bundle_version=self.bundle_version,
            error=str(error),
        )


@dataclass(frozen=True)
class MultiIssueScorer:
    """Several pairs over the same videos; rows come issue by issue."""

    pairs: tuple[PairScorer, ...]

    def __call__(self, inputs: Sequence[VideoInput]) -> list[ScoredVideo]:
        return [row for pair in self.pairs for row in pair.score(inputs)]
