"""Every way by which a stranger's clip comes to be decoded, each as one function over files.

A function answers with what it says of each file: "" where it was read, else the reason given. Anything raised, and
any file without an answer, is a violation.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coefvq.cascade.policy import CascadePolicy
from coefvq.config import Approximate, MediaLimits, MediaSpec, Predict, load_params
from coefvq.data.media.clips import ClipStore
from coefvq.data.media.thumbnails import thumbnails
from coefvq.errors import MediaError
from coefvq.inference import PairScorer
from coefvq.inference.bulk import score_on_ray
from coefvq.models.classifier import Classifier
from coefvq.models.hub import CoefVQProcessor
from coefvq.records import VideoInput
from coefvq.registry.serving import open_model
from coefvq.stages.stability import decodable
from coefvq.training.features.build import FeatureBuilder
from coefvq.training.features.keys import cached_model
from coefvq.training.features.store import FeatureStore
from coefvq.training.settings import ReadingSettings
from tests.unit.frozen_models import frozen_model

_SPEC = MediaSpec(frames=2, frame_size=64, audio_seconds=1.0)
_RAY_FILES = 12


@dataclass(frozen=True)
class Bench:
    """A tiny model that carries ``limits``, and a folder for caches of its own."""

    folder: Path
    limits: MediaLimits

    def model(self, kind: str) -> Classifier:
        """Untrained, with random weights."""
        made = frozen_model(kind, media=_SPEC)
        config = made.config.model_copy(update={"limits": self.limits})
        return Classifier(config, made.network, made.text)

    def store(self, name: str) -> ClipStore:
        """An empty clip store."""
        return ClipStore(self.folder / name, _SPEC, self.limits)

    def saved(self) -> Path:
        """A model's folder."""
        self.model("frames").save(self.folder / "model")
        return self.folder / "model"


DecodingPath = Callable[[Bench, Sequence[VideoInput]], Mapping[str, str]]


def store_get(bench: Bench, videos: Sequence[VideoInput]) -> dict[str, str]:
    """Clip store: what is missing is asked for one by one, as training does."""
    store = bench.store("get")
    return {video.video_id: _why(lambda video=video: store.get(video)) for video in videos}  # type: ignore[misc]


def pair(bench: Bench, videos: Sequence[VideoInput]) -> dict[str, str]:
    """Pair: ``score``, the stream, a registered pair's pyfunc; every clip goes to both models."""
    base, mllm = bench.model("frames"), bench.model("mllm")
    policy = CascadePolicy(issue="icd", base_threshold=0.0, decision_threshold=0.5, p_base=None, views_trigger=None)
    scorer = PairScorer("icd", "1-abc", base, mllm, policy, bench.folder / "pair", bench.limits)
    return {row.video_id: row.error or "" for row in scorer.score(videos)}


def single_model(bench: Bench, videos: Sequence[VideoInput]) -> dict[str, str]:
    """A single model's pyfunc; its limits come from its config.json."""
    import pandas as pd

    with _cache(bench.folder / "single"):
        predict = open_model({"model": bench.saved()})
    rows = predict(pd.DataFrame({"path": [str(video.path) for video in videos]}))
    return {video.video_id: error or "" for video, error in zip(videos, rows["error"], strict=True)}


def stability(bench: Bench, videos: Sequence[VideoInput]) -> dict[str, str]:
    """Stability: decoded anew."""
    given = load_params()
    lenient = given.loading.model_copy(update={"max_bad_share": 1.0})
    reading = ReadingSettings.of(given.model_copy(update={"loading": lenient}))
    kept = set(decodable(reading, [bench.store("anew")], videos, "icd"))
    return {video.video_id: "" if at in kept else "named" for at, video in enumerate(videos)}


def processor(bench: Bench, videos: Sequence[VideoInput]) -> dict[str, str]:
    """The transformers processor."""
    model = bench.model("frames")
    read = CoefVQProcessor(model.collator, model.config)
    return {video.video_id: _why(lambda video=video: read([video.path])) for video in videos}  # type: ignore[misc]


def pictures(bench: Bench, videos: Sequence[VideoInput]) -> dict[str, str]:
    """Thumbnails of the report."""
    made = thumbnails({video.video_id: video.path for video in videos}, bench.limits)
    return {video.video_id: "" if video.video_id in made else "none" for video in videos}


def features(bench: Bench, videos: Sequence[VideoInput]) -> dict[str, str]:
    """Feature build: training's own decoding."""
    hashed = [bench.store("features").hashed(video) for video in videos]
    known = [video for video in hashed if video.sha256 is not None]
    store = FeatureStore(bench.folder / "shards", 2**30)
    with store.lease() as lease:
        builder = FeatureBuilder(cached_model(bench.model("frames")), store, bench.store("features"), lease, 1)
        built = builder.build(known)
    said = {video.video_id: "no file" for video in hashed if video.sha256 is None}
    return said | {video.video_id: str(built.skipped.get(video.video_id, "")) for video in known}


def ray(bench: Bench, videos: Sequence[VideoInput]) -> dict[str, str]:
    """Bulk scoring on Ray; of the first few only."""
    nothing = Approximate(int8=False, frames=None, pool_tokens=1, audio_seconds=None)
    settings = Predict(batch_size=4, dtype="float32", savings="exact", approximate=nothing)
    some = videos[:_RAY_FILES]
    with _cache(bench.folder / "ray"):
        scores, failed = score_on_ray(bench.saved(), some, settings, bench.limits, 1)
    assert [bool(np.isnan(score)) for score in scores] == [at in failed for at in range(len(some))]
    return {video.video_id: failed.get(at, "") for at, video in enumerate(some)} | dict.fromkeys(
        [video.video_id for video in videos[_RAY_FILES:]], "left out"
    )


PATHS: dict[str, DecodingPath] = {
    "store": store_get,
    "pair": pair,
    "single": single_model,
    "stability": stability,
    "processor": processor,
    "thumbnails": pictures,
    "features": features,
}
if importlib.util.find_spec("ray") is not None:
    PATHS["ray"] = ray


def _why(read: Callable[[], object]) -> str:
    try:
        read()
    except MediaError as error:
        return str(error)
    return ""


@contextmanager
def _cache(folder: Path) -> Iterator[None]:
    before = os.environ.get("COEFVQ_CACHE")
    os.environ["COEFVQ_CACHE"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["COEFVQ_CACHE"]
        else:
            os.environ["COEFVQ_CACHE"] = before
