"""One model over many videos: batches, and what becomes of a video that cannot be scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from coefvq.compute.pools import shared_pool
from coefvq.data.media.clips import ClipStore
from coefvq.errors import CoefVQError, MediaError, MLLMUnavailableError, ModelError
from coefvq.records import VideoInput

if TYPE_CHECKING:
    import torch

    from coefvq.models.classifier import Classifier
    from coefvq.models.dataset import Collator, VideoDataset
    from coefvq.models.memo import Memo

#: P(positive) per video
Scores = npt.NDArray[np.float64]
#: called for each video without a score, with its index and the reason
Failed = Callable[[int, CoefVQError], None]


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
        MLLMUnavailableError: the MLLM's card is full with one video, or lost.
        ModelError: a video's logits are not finite, or no head answers for ``issue``; the base model's card is full.
    """
    from coefvq.models.dataset import VideoDataset
    from coefvq.models.heads import head_of

    head, dataset = head_of(classifier.config.issues, issue), VideoDataset(videos, store)
    return score_dataset(classifier, dataset, replace(classifier.collator, raw=True), batch_size, progress, failed)[
        :, head
    ]


def score_dataset(
    classifier: Classifier,
    dataset: VideoDataset,
    collate: Collator,
    batch_size: int = 32,
    progress: Callable[[int], None] = lambda _: None,
    failed: Failed | None = None,
    loaders: int = 0,
    plan: Sequence[Sequence[int]] | None = None,
) -> Scores:
    """P(positive) of each video and issue, float64 [n,K], of examples that may carry cached features.

    ``collate`` makes batches of them, in ``loaders`` processes ahead of the model; ``failed`` and errors as of
    ``score_batches``. ``plan`` are the rows of each batch; default: of ``plan_batches``.
    """
    import torch

    from coefvq.models.loader import load_batches

    video_ids = dataset.video_ids
    scores = np.full((len(dataset), len(classifier.config.issues)), np.nan)
    classifier.network.eval()
    answer = _Answering(classifier)
    if plan is None:
        plan = plan_batches(collate.lengths(dataset.texts), batch_size)
    with torch.inference_mode():
        for chosen, inputs, unread in load_batches(dataset, plan, collate, loaders):
            for index, reason, message in unread:
                if failed is None:
                    raise MediaError(reason, message)
                failed(index, MediaError(reason, message))
            logits = _logits(answer, inputs, chosen, failed) if chosen else None
            if logits is not None:
                finite = _finite(logits, [video_ids[i] for i in chosen], chosen, classifier, failed)
                probabilities = classifier.probabilities(logits).numpy()
                scores[chosen] = np.where(finite[:, None], probabilities, np.nan)
            progress(len(chosen) + len(unread))
    return scores


def _logits(
    answer: _Answering, inputs: Mapping[str, torch.Tensor], chosen: Sequence[int], failed: Failed | None
) -> torch.Tensor | None:
    """None where a base model has no memory for them: each then goes to ``failed``, to be scored again later."""
    try:
        return answer(inputs)
    except MLLMUnavailableError:
        raise  # the policy says what becomes of these videos
    except ModelError as error:
        if failed is None:
            raise
        for index in chosen:
            failed(index, error)
        return None


@dataclass
class _Answering:
    """Logits of a batch, in parts that the card has room for: one that does not fit is halved, and so are later."""

    classifier: Classifier
    most: int | None = None

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Logits [B,2] or [B,K,2] on the CPU.

        Raises:
            MLLMUnavailableError: a single video does not fit, or the card is lost.
            ModelError: the same of a base model.
        """
        import torch

        count = len(next(iter(inputs.values())))
        most, start = self.most or count, 0
        parts: list[torch.Tensor] = []
        while start < count:
            chosen = {name: tensor[start : start + most] for name, tensor in inputs.items()}
            size = min(most, count - start)
            try:
                parts.append(self._once(chosen))
            except torch.OutOfMemoryError as error:
                if size == 1:
                    raise self._unavailable("one video needs more memory than the card has") from error
                most = self.most = size // 2
            except torch.AcceleratorError as error:
                raise self._unavailable(f"the card failed ({str(error).splitlines()[0]})") from error
            else:
                start += size
                continue
            torch.cuda.empty_cache()  # after the error is let go, which holds the tensors that filled the card
        return torch.cat(parts)

    def _once(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        from coefvq.models.dataset import ready

        device = next(self.classifier.network.parameters()).device
        batch = ready({name: tensor.to(device, non_blocking=True) for name, tensor in inputs.items()})
        logits: torch.Tensor = self.classifier.network(**batch).cpu()
        return logits

    def _unavailable(self, reason: str) -> ModelError:
        config = self.classifier.config
        kind = MLLMUnavailableError if config.kind == "mllm" else ModelError
        return kind(f"{config.kind} model of {config.issue}: {reason}; free the card or take a larger one")


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
    """Which rows have finite logits; each other one goes to ``failed``, or ends the run without it."""
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


def head_scores(
    classifier: Classifier,
    videos: Sequence[VideoInput],
    store: ClipStore,
    failed: Failed,
    batch_size: int = 32,
    memo: Memo | None = None,
) -> Scores:
    """P(positive) of each video and issue [n,K], of clips that may not be decoded yet.

    ``failed`` is called before the model runs. ``memo`` keeps the model's answers, so that a second issue of the same
    group does not compute them again.

    Raises:
        StorageError: the clip store cannot be written.
    """
    from coefvq.models.dataset import VideoDataset

    errors = decode(store, videos)
    for index, error in errors.items():
        failed(index, error)
    good = [index for index in range(len(videos)) if index not in errors]
    answers = {} if memo is None or not memo.open else memo.answers
    keys = _answer_keys(classifier, [videos[index] for index in good])
    missing = [index for index, key in zip(good, keys, strict=True) if key not in answers]
    scores = np.full((len(videos), len(classifier.config.issues)), np.nan)
    scores[missing] = score_dataset(
        classifier,
        VideoDataset([videos[index] for index in missing], store),
        replace(classifier.collator, raw=True),
        batch_size,
        failed=lambda at, error: failed(missing[at], error),
    )
    for index, key in zip(good, keys, strict=True):
        if key in answers:
            scores[index] = answers[key]
        elif np.isfinite(scores[index]).all():
            answers[key] = scores[index]
    return scores


def _answer_keys(classifier: Classifier, videos: Sequence[VideoInput]) -> list[tuple[int, str, str]]:
    """What an answer depends on: the model, which its pool keeps alive, the clip's bytes and the text."""
    from coefvq.models.dataset import text_of

    return [(id(classifier), video.sha256 or video.video_id, text_of(video)) for video in videos]
