"""A trained model's scores of many videos, from cached features where that pays, else from clips, here or on Ray."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from coefvq.config import Predict
from coefvq.inference import NOTHING, Scores, load_for_scoring, ready_for_scoring, score_dataset
from coefvq.inference.bulk import score_on_ray
from coefvq.models.classifier import load
from coefvq.records import VideoInput
from coefvq.terminal import progress
from coefvq.training.loading import checked, decoded, opened
from coefvq.training.settings import ReadingSettings


def score_videos(
    folder: Path, videos: Sequence[VideoInput], predict: Predict, reading: ReadingSettings, kind: str, issue: str
) -> tuple[Scores, dict[str, str]]:
    """P(positive) by the model in ``folder``, [n], NaN where a clip could not be read, and why, by video.

    Raises:
        DataError: more clips than ``loading.max_bad_share`` cannot be read.
        ModelError: the model does not fit, or a logit is not finite.
    """
    title = f"{issue} {kind}"
    scores = np.full(len(videos), np.nan)
    with progress(f"scoring with {kind} [{issue}]", len(videos)) as advance:
        if reading.runtime.engine == "ray":
            scores, failed = score_on_ray(folder, videos, predict, reading.limits, reading.runtime.workers, advance)
            named = {videos[index].video_id: error for index, error in failed.items()}
            return scores, checked(named, len(videos), reading.loading.max_bad_share, title)
        if predict.approximate != NOTHING:
            # what an approximation sees is not what the cache was filled for
            ready = load_for_scoring(folder, predict)
            source = decoded(reading, ready, videos, title)
            rows = source.readable(videos)
            scores[rows] = score_dataset(ready, source.dataset(videos), source.collator, predict.batch_size, advance)
            return scores, dict(source.skipped)
        classifier = load(folder)
        # features are those of the trained towers, so that training and scoring share them
        with opened(reading, classifier, videos, 1, title) as source:
            ready = ready_for_scoring(classifier, predict)
            rows = source.readable(videos)
            scores[rows] = score_dataset(ready, source.dataset(videos), source.collator, predict.batch_size, advance)
        return scores, dict(source.skipped)
