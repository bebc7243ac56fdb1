"""Bulk scoring with the engine ``ray``: batches go to actors that each hold the model.

The batches are those of the local engine and go through the same ``score_batches``, so that the scores are the same.
Each actor takes one CPU and computes on one thread; on a cluster the model's folder, the clips and the settings must
be found at the same paths on every machine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from coefvq.config import Predict
from coefvq.errors import CoefVQError, DataError, ModelError
from coefvq.inference import Scores, load_for_scoring, plan_batches, score_batches
from coefvq.records import VideoInput

_ACTOR_CPUS = 1.0
_ERRORS: dict[str, type[CoefVQError]] = {"ModelError": ModelError}


def score_on_ray(
    folder: Path,
    videos: Sequence[VideoInput],
    predict: Predict,
    workers: int,
    progress: Callable[[int], None] = lambda _: None,
) -> Scores:
    """P(positive) of each video, float64 [n], in the order given; at most ``workers`` actors.

    Raises:
        DataError: Ray is not installed or cannot be reached; a clip does not decode.
        ModelError: the folder does not fit, or a logit is not finite.
    """
    from coefvq.data.clips import default_cache
    from coefvq.data.dataset import Collator, text_of
    from coefvq.data.ray_engine import connect
    from coefvq.models.classifier import read_description

    scores = np.zeros(len(videos), np.float64)
    if not videos:
        return scores
    config, text = read_description(folder)
    lengths = Collator(text, 0, None, config.text).lengths([text_of(video) for video in videos])
    plan = plan_batches(lengths, predict.batch_size)
    connect(workers)
    import ray
    import ray.data

    rows = [{"batch": number, "videos": to_json([videos[i] for i in chosen])} for number, chosen in enumerate(plan)]
    # one CPU has to stay free, or Ray Data waits for ever
    team = max(1, min(workers, len(rows), int(ray.cluster_resources().get("CPU", 1)) - 1))
    data = ray.data.from_items(rows, override_num_blocks=len(rows))
    data.context.enable_progress_bars = False
    done = data.map(
        _Scorer,
        fn_constructor_args=(str(folder.resolve()), predict.model_dump_json(), str(default_cache().resolve())),
        compute=ray.data.ActorPoolStrategy(size=team),
        num_cpus=_ACTOR_CPUS,
    )
    for row in done.iter_rows():
        if row["error"]:
            raise _ERRORS.get(row["kind"], DataError)(row["error"])
        chosen = plan[row["batch"]]
        scores[chosen] = row["scores"]
        progress(len(chosen))
    return scores


def to_json(videos: Sequence[VideoInput]) -> str:
    """Videos as text, for the way to another process."""
    return json.dumps([{**asdict(video), "path": str(video.path.absolute())} for video in videos])


def from_json(text: str) -> list[VideoInput]:
    """The videos that ``to_json`` wrote."""
    return [
        VideoInput(**{**item, "path": Path(item["path"]), "stickers": tuple(item["stickers"])})
        for item in json.loads(text)
    ]


class _Scorer:
    """A prepared model in a Ray actor; one batch in, its scores out."""

    def __init__(self, folder: str, predict: str, cache: str) -> None:
        import torch

        from coefvq.data.clips import ClipStore

        torch.set_num_threads(1)
        self._classifier = load_for_scoring(Path(folder), Predict.model_validate_json(predict))
        self._store = ClipStore(Path(cache), self._classifier.config.media)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        answer = {"batch": row["batch"], "scores": np.zeros(0), "kind": "", "error": ""}
        try:
            videos = from_json(row["videos"])
            answer["scores"] = score_batches(self._classifier, videos, self._store, len(videos))
        except CoefVQError as error:
            answer |= {"kind": type(error).__name__, "error": str(error)}
        return answer
