"""Bulk scoring on several GPUs of one machine: each has a process that holds the model and takes batch after batch.

The batches are those of one GPU and go through the same ``score_dataset``; which card computes one changes no score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from coefvq.compute.cards import card_pool
from coefvq.config import MediaLimits, Predict
from coefvq.errors import CoefVQError, MediaError
from coefvq.inference.bulk import batch_plan
from coefvq.inference.scores import Scores, score_dataset
from coefvq.inference.settings import load_for_scoring
from coefvq.records import VideoInput

if TYPE_CHECKING:
    from coefvq.models.classifier import Classifier

_TASK = 64  # batches that a card takes at a time, at most
#: scores [n,K] of the videos of a task, and why some have none, by place in it
_Answer = tuple[Scores, dict[int, str]]


def score_on_cards(
    cards: Sequence[str],
    folder: Path,
    videos: Sequence[VideoInput],
    predict: Predict,
    limits: MediaLimits,
    loaders: int,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Scores, dict[int, str]]:
    """P(positive) of each video and issue, float64 [n,K], in the order given; ``loaders`` processes feed each card.

    Also why a clip does not decode, by index; its score is NaN.

    Raises:
        ModelError: the folder does not fit, a logit is not finite, or a card is full with one video.
    """
    from coefvq.data.media.clips import default_cache

    issues, plan = batch_plan(folder, videos, predict.batch_size)
    scores, failed = np.full((len(videos), issues), np.nan), dict[int, str]()
    if not videos:
        return scores, failed
    size = max(1, min(_TASK, -(-len(plan) // len(cards))))
    given = (folder.resolve(), predict.model_dump_json(), limits.model_dump_json(), default_cache().resolve(), loaders)
    with card_pool(cards) as pool:
        tasks: dict[Future[_Answer], list[int]] = {}
        for start in range(0, len(plan), size):
            batches = plan[start : start + size]
            chosen = [row for batch in batches for row in batch]
            sizes = [len(batch) for batch in batches]
            future = pool.submit(_score, *given, [videos[row] for row in chosen], sizes)
            tasks[future] = chosen
        for future in as_completed(tasks):
            chosen, (answers, unread) = tasks[future], future.result()
            scores[chosen] = answers
            failed |= {chosen[at]: why for at, why in unread.items()}
            progress(len(chosen))
    return scores, failed


def _score(
    folder: Path,
    predict: str,
    limits: str,
    cache_folder: Path,
    loaders: int,
    videos: list[VideoInput],
    sizes: list[int],
) -> _Answer:
    """In a card's process: a task of batches, of ``sizes`` rows each.

    Raises:
        ModelError: as ``score_on_cards``.
    """
    from coefvq.data.media.clips import ClipStore
    from coefvq.models.dataset import VideoDataset

    classifier = _loaded(folder, predict)
    store = ClipStore(cache_folder, classifier.config.media, MediaLimits.model_validate_json(limits))
    ends = np.cumsum(sizes).tolist()
    plan = [list(range(end - size, end)) for end, size in zip(ends, sizes, strict=True)]
    unread: dict[int, str] = {}

    def failed(at: int, error: CoefVQError) -> None:
        if not isinstance(error, MediaError):
            raise error
        unread[at] = str(error)

    scores = score_dataset(
        classifier,
        VideoDataset([store.hashed(video) for video in videos], store),
        replace(classifier.collator, raw=True),
        failed=failed,
        loaders=loaders,
        plan=plan,
    )
    return scores, unread


@cache
def _loaded(folder: Path, predict: str) -> Classifier:
    return load_for_scoring(folder, Predict.model_validate_json(predict))
