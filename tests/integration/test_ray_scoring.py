"""Bulk scoring on Ray gives the local engine's scores, and its errors."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from coefvq.config import Approximate, MediaSpec, Predict
from coefvq.data.media.clips import ClipStore
from coefvq.data.media.decode import DEFAULT_LIMITS
from coefvq.errors import ModelError
from coefvq.inference import load_for_scoring, score_batches
from coefvq.inference.bulk import score_on_ray
from coefvq.models.classifier import build
from coefvq.models.model_config import ModelConfig
from coefvq.models.text import train_text_encoder
from coefvq.records import VideoInput

MEDIA = MediaSpec(frames=2, frame_size=64, audio_seconds=1.0)
NOTHING = Approximate(int8=False, frames=None, pool_tokens=1, audio_seconds=None)
ISSUES = ("icd", "ucc")
PREDICT = Predict(batch_size=3, dtype="float32", savings="exact", approximate=NOTHING)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = ModelConfig(
        issues=ISSUES,
        kind="mllm",
        preset="tiny",
        architecture="mllm",
        media=MEDIA,
        text=True,
        lora_rank=2,
        lora_alpha=4,
    )
    path = tmp_path_factory.mktemp("model") / "mllm"
    build(config, train_text_encoder(["a lovely day"] * 20, 512, 64)).save(path)
    return path


@pytest.fixture(scope="module")
def _ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.delenv("RAY_ADDRESS", raising=False)
    patch.setenv("COEFVQ_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    import ray

    ray.shutdown()
    patch.undo()


def inputs(clips: Path) -> list[VideoInput]:
    paths = sorted((clips / "videos").glob("*.mp4"))[:8]
    return [VideoInput(path.stem, path, "a lovely " * (number % 4)) for number, path in enumerate(paths)]


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (coefvq[ray])")
@pytest.mark.long
@pytest.mark.usefixtures("_ray")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
class TestRay:
    def test_scores_are_those_of_the_local_engine_and_a_bad_clip_is_named(
        self, folder: Path, clips: Path, tmp_path: Path
    ) -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            model, store = load_for_scoring(folder, PREDICT), ClipStore(tmp_path, MEDIA, DEFAULT_LIMITS)
            local = [score_batches(model, inputs(clips), store, 3, issue=issue) for issue in ISSUES]
        finally:
            torch.set_num_threads(before)
        (tmp_path / "bad.mp4").write_bytes(b"no video at all")
        # a title of the longest: it stands last in the plan of batches, which are then those of the local engine
        videos = [*inputs(clips), VideoInput("bad", tmp_path / "bad.mp4", "a lovely " * 3)]
        counted: list[int] = []
        found, failed = score_on_ray(folder, videos, PREDICT, DEFAULT_LIMITS, 2, counted.append)
        assert list(failed) == [8]
        assert "bad.mp4: cannot be decoded" in failed[8]
        assert np.array_equal(found[:8].T, local)
        assert np.isnan(found[8]).all()
        assert sum(counted) == len(found) == 9
        assert len(np.unique(local)) == 16

    def test_nothing_to_do_is_nothing(self, folder: Path) -> None:
        assert score_on_ray(folder, [], PREDICT, DEFAULT_LIMITS, 2)[0].shape == (0, 2)


def test_a_folder_without_a_model_is_an_error_before_ray_starts(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        score_on_ray(tmp_path, [VideoInput("a", tmp_path / "a.mp4")], PREDICT, DEFAULT_LIMITS, 2)
