"""The one scoring path: evaluation, bulk scoring, the command line and the VMP all use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from coefvq.cascade.policy import CascadePolicy
from coefvq.data.clips import ClipStore, default_cache
from coefvq.errors import MediaError
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

    @classmethod
    def from_folders(
        cls,
        base_dir: Path,
        mllm_dir: Path,
        policy: Mapping[str, Any],
        issue: str,
        bundle_version: str,
        cache: Path | None = None,
    ) -> PairScorer:
        """Load both models (safetensors and JSON only).

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
        )

    def score(self, inputs: Sequence[VideoInput]) -> list[ScoredVideo]:
        """Base score for all, MLLM score for those the policy lets through; a bad clip gets an error row."""
        rows: dict[int, ScoredVideo] = {}
        good: list[tuple[int, VideoInput]] = []
        base_store = ClipStore(self.cache, self.base.config.media)
        for index, video in enumerate(inputs):
            try:
                base_store.get(video)
                good.append((index, video))
            except MediaError as error:
                rows[index] = self._failed(video, error)
        videos = [video for _, video in good]
        for (index, _), row in zip(good, self._cascade(videos, base_store), strict=True):
            rows[index] = row
        return [rows[index] for index in range(len(inputs))]

    __call__ = score

    def _cascade(self, videos: Sequence[VideoInput], store: ClipStore) -> list[ScoredVideo]:
        base = score_batches(self.base, videos, store, self.batch_size)
        views = np.array([np.nan if v.views is None else v.views for v in videos], np.float64)
        escalated = self.policy.escalates(base, views)
        mllm = np.full(len(videos), np.nan)
        chosen = [video for video, goes_on in zip(videos, escalated, strict=True) if goes_on]
        mllm_store = replace(store, spec=self.mllm.config.media)
        mllm[escalated] = score_batches(self.mllm, chosen, mllm_store, self.batch_size)
        positive = self.policy.decide(base, mllm, views)
        return [
            ScoredVideo(
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
