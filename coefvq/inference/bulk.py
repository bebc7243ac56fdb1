"""Bulk scoring with the engine ``ray``: batches go to actors that each hold the model.

The batches are those of the local engine and go through the same ``score_dataset``, so that the scores are the same.
Each actor takes one CPU and computes on one thread, and a GPU where the cluster has any; on a cluster the model's
folder, the clips and the settings must be found at the same paths on every machine. An actor decodes in a limited
worker of its own (``clips``); what it sends back is numbers and text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from coefvq.compute.workers import LimitedPool
from coefvq.config import MediaLimits, Predict
from coefvq.errors import CoefVQError, DataError, ModelError, StorageError
from coefvq.inference.scores import Scores, plan_batches, score_dataset
from coefvq.inference.settings import load_for_scoring
from coefvq.records import VideoInput

_ACTOR_CPUS = 1.0
_ERRORS: dict[str, type[CoefVQError]] = {"ModelError": ModelError, "StorageError": StorageError}


def score_on_ray(
    folder: Path,
    videos: Sequence[VideoInput],
    predict: Predict,
    limits: MediaLimits,
    workers: int,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Scores, dict[int, str]]:
    """P(positive) of each video and issue, float64 [n,K], in the order given; at most ``workers`` actors.

    Also why a clip does not decode, by index; its score is NaN.

    Raises:
        DataError: Ray is not installed or cannot be reached.
        ModelError: the folder does not fit, or a logit is not finite.
    """
    from coefvq.compute.ray_engine import join_ray
    from coefvq.data.media.clips import default_cache

    issues, plan = batch_plan(folder, videos, predict.batch_size)
    scores, failed = np.full((len(videos), issues), np.nan), dict[int, str]()
    if not videos:
        return scores, failed
    join_ray(workers)
    import ray
    import ray.data

    rows = [{"batch": number, "videos": to_json([videos[i] for i in chosen])} for number, chosen in enumerate(plan)]
    # one CPU has to stay free, or Ray Data waits for ever
    team = max(1, min(workers, len(rows), int(ray.cluster_resources().get("CPU", 1)) - 1))
    if gpus := int(ray.cluster_resources().get("GPU", 0)):  # then an actor has one, whatever runtime.workers says
        team = min(gpus, len(rows))
    data = ray.data.from_items(rows, override_num_blocks=len(rows))
    data.context.enable_progress_bars = False
    done = data.map(
        _Scorer,
        fn_constructor_args=(
            str(folder.resolve()),
            predict.model_dump_json(),
            limits.model_dump_json(),
            str(default_cache().resolve()),
        ),
        compute=ray.data.ActorPoolStrategy(size=team),
        num_cpus=_ACTOR_CPUS,
        num_gpus=1.0 if gpus else None,
    )
    for row in done.iter_rows():
        if row["error"]:
            raise _ERRORS.get(row["kind"], DataError)(row["error"])
        chosen = plan[row["batch"]]
        scores[chosen] = np.reshape(row["scores"], (len(chosen), -1))
        failed |= {chosen[int(at)]: why for at, why in json.loads(row["failed"]).items()}
        progress(len(chosen))
    return scores, failed


def batch_plan(folder: Path, videos: Sequence[VideoInput], batch_size: int) -> tuple[int, list[list[int]]]:
    """How many issues a model has, and the rows of each batch, without its weights.

    Raises:
        ModelError: the folder does not fit.
    """
    from coefvq.models.classifier import read_description
    from coefvq.models.dataset import Collator, text_of

    config, text = read_description(folder)
    lengths = Collator(text, 0, None, config.text).lengths([text_of(video) for video in videos])
    return len(config.issues), plan_batches(lengths, batch_size)


def to_json(videos: Sequence[VideoInput]) -> str:
    """Videos as text, for the way to another process."""
    return json.dumps([{**asdict(video), "file": str(video.path.absolute())} for video in videos])


def from_json(text: str) -> list[VideoInput]:
    """The videos that ``to_json`` wrote."""
    return [
        VideoInput(**{**item, "file": Path(item["file"]), "stickers": tuple(item["stickers"])})
        for item in json.loads(text)
    ]


class _Scorer:
    """A prepared model in a Ray actor; one batch in, its scores out."""

    def __init__(self, folder: str, predict: str, limits: str, cache: str) -> None:
        import torch

        from coefvq.data.media.clips import ClipStore

        torch.set_num_threads(1)
        self._classifier = load_for_scoring(Path(folder), Predict.model_validate_json(predict))
        bounds = MediaLimits.model_validate_json(limits)
        self._store, self._pool = ClipStore(Path(cache), self._classifier.config.media, bounds), LimitedPool(bounds)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        from coefvq.models.dataset import VideoDataset

        answer = {"batch": row["batch"], "scores": np.zeros(0), "failed": "{}", "kind": "", "error": ""}
        try:
            videos = [self._store.hashed(video) for video in from_json(row["videos"])]
            model, failed = self._classifier, self._store.try_fill(videos, 1, pool=self._pool)
            good = [at for at in range(len(videos)) if at not in failed]
            scores = np.full((len(videos), len(model.config.issues)), np.nan)
            dataset = VideoDataset([videos[at] for at in good], self._store)
            scores[good] = score_dataset(model, dataset, replace(model.collator, raw=True), len(videos))
            answer |= {"scores": scores.ravel(), "failed": json.dumps({at: str(error) for at, error in failed.items()})}
        except CoefVQError as error:
            answer |= {"kind": type(error).__name__, "error": str(error)}
        return answer
