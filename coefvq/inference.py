"""The one scoring path: evaluation, bulk scoring, the command line and the VMP all use it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from coefvq.cascade.audit_sample import AuditSample
from coefvq.cascade.policy import CascadePolicy
from coefvq.config import Approximate, MediaLimits, Scoring
from coefvq.data.clips import ClipStore, default_cache
from coefvq.data.media import DEFAULT_LIMITS
from coefvq.data.workers import LimitedPool
from coefvq.errors import MediaError, MLLMUnavailableError, ModelError
from coefvq.files import sha256_file
from coefvq.records import ScoredVideo, VideoInput

if TYPE_CHECKING:
    import torch

    from coefvq.data.dataset import Collator, VideoDataset
    from coefvq.models.classifier import Classifier

Scores = npt.NDArray[np.float64]


NOTHING = Approximate(int8=False, frames=None, pool_tokens=1, audio_seconds=None)
EXACT = Scoring(dtype="float32", savings="exact", approximate=NOTHING)


def recorded(preprocessing: Mapping[str, Any]) -> Scoring:
    """The settings that a released pair was made with; exact where it says nothing.

    Raises:
        ModelError: this version does not know the settings.
    """
    if "scoring" not in preprocessing:
        return EXACT
    try:
        return Scoring.model_validate_json(json.dumps(preprocessing["scoring"]))
    except ValueError as error:
        raise ModelError(
            f"preprocessing.scoring of the released pair: not known here ({error}); update coefvq"
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
) -> Scores:
    """P(positive) of each video, float64 [n], in the order given; ``issue`` picks the head of a model with several.

    Raises:
        MediaError: a clip does not decode.
        ModelError: a video's logits are not finite, or no head answers for ``issue``.
    """
    from coefvq.data.dataset import VideoDataset

    return score_dataset(classifier, VideoDataset(videos, store), classifier.collator, batch_size, progress, issue)


def score_dataset(
    classifier: Classifier,
    dataset: VideoDataset,
    collate: Collator,
    batch_size: int = 32,
    progress: Callable[[int], None] = lambda _: None,
    issue: str | None = None,
) -> Scores:
    """As ``score_batches``, of examples that may carry cached features; ``collate`` makes batches of them."""
    import torch

    device = next(classifier.network.parameters()).device
    scores, video_ids = np.zeros(len(dataset), np.float64), dataset.video_ids
    classifier.network.eval()
    with torch.inference_mode():
        for chosen in plan_batches(collate.lengths(dataset.texts), batch_size):
            batch = collate([dataset[i] for i in chosen])
            logits = classifier.network(**{name: tensor.to(device) for name, tensor in batch.items()}).cpu()
            _check_finite(logits, [video_ids[i] for i in chosen], classifier)
            scores[chosen] = classifier.probabilities(logits, issue).numpy()
            progress(len(chosen))
    return scores


def plan_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices of each batch; rows of like length go together, so that little is padded."""
    # stable, so the plan depends on the lengths alone
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _check_finite(logits: torch.Tensor, video_ids: Sequence[str], classifier: Classifier) -> None:
    finite = logits.isfinite().flatten(1).all(dim=1)
    if not finite.all():
        bad = [name for name, fine in zip(video_ids, finite.tolist(), strict=True) if not fine]
        config = classifier.config
        raise ModelError(
            f"video {bad[0]}: the {config.kind} model of {config.issue} gives logits that are not finite "
            f"({len(bad)} of {len(video_ids)} videos of its batch); look at its pixels and sound, or train again"
        )


@dataclass(frozen=True)
class PairScorer:
    """A loaded pair: base model, MLLM and the policy between them."""

    issue: str
    bundle_version: str
    base: Classifier
    mllm: Classifier
    policy: CascadePolicy
    cache: Path
    batch_size: int = 32
    limits: MediaLimits = DEFAULT_LIMITS
    audit: AuditSample | None = None

    @classmethod
    def from_folders(
        cls,
        base_dir: Path,
        mllm_dir: Path,
        policy: Mapping[str, Any],
        issue: str,
        bundle_version: str,
        cache: Path | None = None,
        limits: MediaLimits = DEFAULT_LIMITS,
        scoring: Scoring = EXACT,
    ) -> PairScorer:
        """Load both models (safetensors and JSON only); ``limits`` bound what decoding a clip may cost.

        Raises:
            ModelError: a folder is incomplete or does not fit.
            ConfigError: the policy is not one.
        """
        return cls(
            issue=issue,
            bundle_version=bundle_version,
            base=load_for_scoring(base_dir, scoring),
            mllm=load_for_scoring(mllm_dir, scoring),
            policy=CascadePolicy.from_dict(policy),
            cache=cache or default_cache(),
            limits=limits,
        )

    def score(self, inputs: Sequence[VideoInput]) -> list[ScoredVideo]:
        """Base score for all, MLLM score for those the policy lets through; a bad clip gets an error row.

        Clips that were never decoded are decoded in limited processes: a hostile one costs its own row.
        """
        store = ClipStore(self.cache, self.base.config.media, self.limits)
        videos = [_with_hash(video, store) for video in inputs]
        rows = {index: self._failed(videos[index], error) for index, error in _decode(store, videos).items()}
        good = [index for index in range(len(videos)) if index not in rows]
        rows.update(zip(good, self._cascade([videos[index] for index in good], store), strict=True))
        return [rows[index] for index in range(len(videos))]

    __call__ = score

    def _cascade(self, videos: Sequence[VideoInput], store: ClipStore) -> list[ScoredVideo]:
        base = score_batches(self.base, videos, store, self.batch_size)
        views = np.array([np.nan if v.views is None else v.views for v in videos], np.float64)
        escalated, silence = self.policy.escalates(base, views), ""
        filtered = ~escalated & ~self.policy.accepts(base, views)
        audited, logged = filtered & self._drawn(videos), filtered.copy()
        mllm_store = replace(store, spec=self.mllm.config.media)
        # its settings may differ from the base's, and ask for frames or sound that were not decoded yet
        chosen = [int(i) for i in np.flatnonzero(escalated | audited)]
        failed = {chosen[k]: error for k, error in _decode(mllm_store, [videos[i] for i in chosen]).items()}
        # where an audit fails, what the base model said still stands
        bad = {i: error for i, error in failed.items() if escalated[i]}
        answered = np.array([i not in failed for i in range(len(videos))], bool)
        audited, logged = audited & answered, logged & answered
        good = np.array([i not in bad for i in range(len(videos))], bool)
        mllm, down = np.full(len(videos), np.nan), np.zeros(len(videos), bool)
        asked = [videos[i] for i in chosen if i not in failed]
        try:
            mllm[(escalated & good) | audited] = score_batches(
                self.mllm, asked, mllm_store, self.batch_size, issue=self.issue
            )
        except MLLMUnavailableError as error:
            # nobody of this batch could be audited, so no probability is logged
            silence, down, audited, logged = str(error), escalated & good, audited & False, logged & False
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

    def _failed(self, video: VideoInput, error: MediaError) -> ScoredVideo:
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


_decoding = threading.Lock()
_DECODERS = 4


def _decode(store: ClipStore, videos: Sequence[VideoInput]) -> dict[int, MediaError]:
    """Decode what the store lacks; what went wrong by index. No process is started if nothing is missing."""
    with _decoding:
        pool = _decoders(store.limits, os.getpid())
        return store.try_fill(videos, pool.workers, pool=pool)


@cache
def _decoders(limits: MediaLimits, _owner: int) -> LimitedPool:
    """Workers for the life of this process (a forked one needs its own), as calls bring a few clips each."""
    return LimitedPool(limits, min(_DECODERS, os.cpu_count() or 1))


def _with_hash(video: VideoInput, store: ClipStore) -> VideoInput:
    """Hash a local clip once, not at each look into the store; what is no plain file of fair size is left alone."""
    if video.sha256 is not None or video.url is not None:
        return video
    try:
        fair = video.path.is_file() and video.path.stat().st_size <= store.limits.megabytes * 2**20
        return replace(video, sha256=sha256_file(video.path)) if fair else video
    except (OSError, ValueError):
        return video  # the store will say what is wrong
