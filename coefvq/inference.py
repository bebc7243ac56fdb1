"""The one scoring path: evaluation, bulk scoring, the command line and the VMP all use it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from coefvq.cascade.policy import CascadePolicy
from coefvq.config import MediaLimits
from coefvq.data.clips import ClipStore, default_cache
from coefvq.data.media import DEFAULT_LIMITS
from coefvq.data.workers import LimitedPool
from coefvq.errors import MediaError
from coefvq.files import sha256_file
from coefvq.records import ScoredVideo, VideoInput

if TYPE_CHECKING:
    from coefvq.models.classifier import Classifier

Scores = npt.NDArray[np.float64]


def score_batches(
    classifier: Classifier,
    videos: Sequence[VideoInput],
    store: ClipStore,
    batch_size: int = 32,
    progress: Callable[[int], None] = lambda _: None,
) -> Scores:
    """P(positive) of each video, float64 [n].

    Raises:
        MediaError: a clip does not decode.
    """
    import torch

    from coefvq.data.dataset import VideoDataset, steps

    dataset = VideoDataset(videos, store)
    collate = classifier.collator
    device = next(classifier.network.parameters()).device
    scores = np.zeros(len(dataset), np.float64)
    classifier.network.eval()
    with torch.inference_mode():
        for start, stop in steps(len(dataset), batch_size):
            batch = collate([dataset[i] for i in range(start, stop)])
            logits = classifier.network(**{name: tensor.to(device) for name, tensor in batch.items()})
            scores[start:stop] = logits.double().softmax(dim=1)[:, 1].cpu().numpy()
            progress(stop - start)
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
    batch_size: int = 32
    limits: MediaLimits = DEFAULT_LIMITS

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
    ) -> PairScorer:
        """Load both models (safetensors and JSON only); ``limits`` bound what decoding a clip may cost.

        Raises:
            ModelError: a folder is incomplete or does not fit.
            ConfigError: the policy is not one.
        """
        from coefvq.models.classifier import load

        return cls(
            issue=issue,
            bundle_version=bundle_version,
            base=load(base_dir),
            mllm=load(mllm_dir),
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
        escalated = self.policy.escalates(base, views)
        mllm_store = replace(store, spec=self.mllm.config.media)
        # its settings may differ from the base's, and ask for frames or sound that were not decoded yet
        chosen = [int(i) for i in np.flatnonzero(escalated)]
        bad = {chosen[k]: error for k, error in _decode(mllm_store, [videos[i] for i in chosen]).items()}
        good = np.array([i not in bad for i in range(len(videos))], bool)
        mllm, positive = np.full(len(videos), np.nan), np.zeros(len(videos), bool)
        asked = [videos[i] for i in chosen if i not in bad]
        mllm[escalated & good] = score_batches(self.mllm, asked, mllm_store, self.batch_size)
        positive[good] = self.policy.decide(base[good], mllm[good], views[good])
        return [
            self._failed(video, bad[i])
            if i in bad
            else ScoredVideo(
                video_id=video.video_id,
                issue=self.issue,
                base_score=float(base[i]),
                mllm_score=float(mllm[i]) if escalated[i] else None,
                positive=bool(positive[i]),
                decided_by="mllm" if escalated[i] else "base",
                bundle_version=self.bundle_version,
            )
            for i, video in enumerate(videos)
        ]

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
