"""A trained model's scores of many videos, from cached features where that pays, else from clips, here or on Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from coefvq.compute.cards import visible_cards
from coefvq.config import Predict, Scoring
from coefvq.data.manifest import read_table, write_table
from coefvq.data.media.clips import default_cache
from coefvq.errors import DataError
from coefvq.files import sha256_json, sha256_tree
from coefvq.inference import NOTHING, Scores, load_for_scoring, ready_for_scoring, score_dataset
from coefvq.inference.bulk import score_on_ray
from coefvq.inference.cards import score_on_cards
from coefvq.inference.score_cache import ScoreCache, score_keys
from coefvq.inference.settings import model_key
from coefvq.models.classifier import Classifier, load
from coefvq.models.dataset import text_of
from coefvq.models.heads import head_of
from coefvq.models.loader import loader_processes
from coefvq.models.model_config import read_config
from coefvq.records import VideoInput
from coefvq.terminal import progress, say
from coefvq.training.loading import ReadableVideos, checked, decoded, opened
from coefvq.training.settings import ReadingSettings

#: P(positive) of each video and issue [n,K], NaN where a clip could not be read, and why, by video
Scored = tuple[Scores, dict[str, str]]
_REASON = "reason"


def score_videos(
    folder: Path, videos: Sequence[VideoInput], predict: Predict, reading: ReadingSettings, kind: str, issue: str
) -> Scored:
    """P(positive) by the model in ``folder``, [n], NaN where a clip could not be read, and why, by video.

    The cache keeps the answers of a model that serves several issues, so that the stages of the others do not run it
    again.

    Raises:
        DataError: more clips than ``loading.max_bad_share`` cannot be read.
        ModelError: the model does not fit, or a logit is not finite.
    """
    issues = read_config(folder).issues
    head, title = head_of(issues, issue), f"{issue} {kind}"
    if len(issues) == 1:
        scores, skipped = _scored(folder, videos, predict, reading, title)
        _share(folder, videos, predict, scores)
        return scores[:, head], skipped
    kept = _KeptScores.of(folder, issues, videos, predict, reading)
    if (found := kept.read()) is None:
        found = _scored(folder, videos, predict, reading, title)
        kept.write(*found)
        _share(folder, videos, predict, found[0])
    else:
        say(f"scores [{title}]: the model of {'+'.join(issues)} has scored these {len(videos)} videos before")
        checked(found[1], len(videos), reading.loading.max_bad_share, title)
    return found[0][:, head], found[1]


def _share(folder: Path, videos: Sequence[VideoInput], predict: Predict, scores: Scores) -> None:
    """Keep the scores where the stream and `coefvq score` look for them; they take the very ones of evaluation."""
    scoring = Scoring.model_validate(predict.model_dump(include=set(Scoring.model_fields)))
    ScoreCache(default_cache()).keep(score_keys(model_key(folder, scoring), videos), scores)


def _scored(
    folder: Path, videos: Sequence[VideoInput], predict: Predict, reading: ReadingSettings, title: str
) -> Scored:
    def there(answer: tuple[Scores, dict[int, str]]) -> Scored:
        scores, failed = answer
        named = {videos[index].video_id: error for index, error in failed.items()}
        return scores, checked(named, len(videos), reading.loading.max_bad_share, title)

    with progress(f"scoring [{title}]", len(videos)) as advance:
        if reading.runtime.engine == "ray":
            return there(score_on_ray(folder, videos, predict, reading.limits, reading.runtime.workers, advance))
        if len(cards := visible_cards()) > 1:
            loaders = loader_processes(reading.runtime.loader_workers, len(cards))
            return there(score_on_cards(cards, folder, videos, predict, reading.limits, loaders, advance))
        loaders = loader_processes(reading.runtime.loader_workers)

        def here(ready: Classifier, source: ReadableVideos) -> Scored:
            scores, rows = np.full((len(videos), len(ready.config.issues)), np.nan), source.readable(videos)
            data = source.dataset(videos)
            scores[rows] = score_dataset(ready, data, source.collator, predict.batch_size, advance, loaders=loaders)
            return scores, dict(source.skipped)

        if predict.approximate != NOTHING:
            # what an approximation sees is not what the cache was filled for
            ready = load_for_scoring(folder, predict)
            return here(ready, decoded(reading, ready, videos, title))
        classifier = load(folder)
        # features are those of the trained towers, so that training and scoring share them
        with opened(reading, classifier, videos, 1, title) as source:
            return here(ready_for_scoring(classifier, predict), source)


@dataclass(frozen=True)
class _KeptScores:
    """A table in the cache, named by everything that the scores of ``issues`` and ``video_ids`` depend on."""

    path: Path
    issues: tuple[str, ...]
    video_ids: tuple[str, ...]

    @classmethod
    def of(
        cls,
        folder: Path,
        issues: tuple[str, ...],
        videos: Sequence[VideoInput],
        predict: Predict,
        reading: ReadingSettings,
    ) -> _KeptScores:
        rows = [[video.video_id, video.sha256, text_of(video)] for video in videos]
        facts = [sha256_tree(folder), predict.model_dump(), reading.limits.model_dump(), rows]
        path = default_cache() / "scores" / f"{sha256_json(facts)}.parquet"
        return cls(path, issues, tuple(video.video_id for video in videos))

    def read(self) -> Scored | None:
        """What an earlier stage kept; None where there is nothing, or it is damaged."""
        try:
            table = read_table(self.path, [*self._columns, _REASON])
        except DataError:
            return None
        reasons = zip(self.video_ids, table[_REASON], strict=True)
        return table[self._columns].to_numpy(np.float64), {name: reason for name, reason in reasons if reason}

    def write(self, scores: Scores, skipped: dict[str, str]) -> None:
        """Keep them."""
        table = pd.DataFrame(scores, columns=pd.Index(self._columns))
        write_table(table.assign(**{_REASON: [skipped.get(name, "") for name in self.video_ids]}), self.path)

    @property
    def _columns(self) -> list[str]:
        return [f"score_{issue}" for issue in self.issues]
