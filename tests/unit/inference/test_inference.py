"""The scoring path: batches by length, order kept, broken weights named, settings that travel with a pair."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from coefvq.config import Approximate, MediaSpec, Scoring
from coefvq.data.media.clips import ClipStore
from coefvq.data.media.decode import DEFAULT_LIMITS
from coefvq.errors import ModelError
from coefvq.inference import EXACT, Recorded, load_for_scoring, plan_batches, recorded, score_batches
from coefvq.inference.bulk import from_json, to_json
from coefvq.models.classifier import build, load
from coefvq.models.dataset import text_of
from coefvq.models.model_config import ModelConfig
from coefvq.models.text import train_text_encoder
from coefvq.records import VideoInput

MEDIA = MediaSpec(frames=2, frame_size=64, audio_seconds=1.0)
PLAIN = Scoring(dtype="float32", savings="none", approximate=EXACT.approximate)
WORDS = ["watch till the very end", "a", "what a lovely day, what a lovely day", "", "mi video", "a day", "x y"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = ModelConfig(
        issues=("ucc",),
        kind="mllm",
        preset="tiny",
        architecture="mllm",
        media=MEDIA,
        fusion="late",
        text=True,
        audio=True,
        lora_rank=4,
        lora_alpha=8,
    )
    made = build(config, train_text_encoder(WORDS * 5, 512, 64))
    for name, parameter in made.network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    path = tmp_path_factory.mktemp("model") / "mllm"
    made.save(path)
    return path


@pytest.fixture(scope="module")
def videos(clips: Path) -> list[VideoInput]:
    paths = sorted((clips / "videos").glob("*.mp4"))
    return [VideoInput(f"v{i}", path, words) for i, (path, words) in enumerate(zip(paths, WORDS, strict=False))]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    return ClipStore(tmp_path_factory.mktemp("cache"), MEDIA, DEFAULT_LIMITS)


def test_batches_hold_texts_of_like_length_and_every_video_once(folder: Path, videos: list[VideoInput]) -> None:
    collate = load(folder).collator
    texts = [text_of(video) for video in videos]
    plan = plan_batches(collate.lengths(texts), 3)
    assert sorted(i for batch in plan for i in batch) == list(range(len(videos)))
    lengths = collate.lengths([texts[i] for batch in plan for i in batch])
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]
    assert plan_batches(replace(collate, use_text=False).lengths(texts), 4) == [[0, 1, 2, 3], [4, 5, 6]]


def test_scores_come_in_the_order_of_the_videos(folder: Path, videos: list[VideoInput], store: ClipStore) -> None:
    model = load_for_scoring(folder)
    alone = [score_batches(model, [video], store)[0] for video in videos]
    counted: list[int] = []
    assert np.allclose(score_batches(model, videos, store, 3, counted.append), alone, atol=1e-6)
    assert sum(counted) == len(videos)
    assert len(np.unique(np.round(alone, 6))) == len(videos)


def test_exact_savings_give_the_plain_scores(folder: Path, videos: list[VideoInput], store: ClipStore) -> None:
    plain = score_batches(load_for_scoring(folder, PLAIN), videos, store, 4)
    assert np.allclose(score_batches(load_for_scoring(folder), videos, store, 4), plain, atol=1e-5)
    assert np.array_equal(score_batches(load(folder), videos, store, 4), plain)


def test_a_logit_that_is_not_finite_names_its_video(folder: Path, videos: list[VideoInput], store: ClipStore) -> None:
    broken = load(folder)
    frames = store.get(videos[2]).frames

    def poison(_: object, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        pixels = inputs[0].clone()
        wanted = torch.from_numpy(frames).float().div(127.5).sub(1.0)
        for row in pixels:
            if torch.equal(row, wanted):
                row.fill_(float("nan"))
        return (pixels,)

    broken.network.vision.register_forward_pre_hook(poison)
    with pytest.raises(
        ModelError, match=f"^video {videos[2].video_id}: the mllm model of ucc gives logits that are not finite"
    ):
        score_batches(broken, videos, store, 4)
    # where rows may fail, it costs its own
    failed: dict[int, Exception] = {}
    scores = score_batches(broken, videos, store, 4, failed=failed.__setitem__)
    assert list(failed) == [2]
    assert "not finite" in str(failed[2])
    expected = score_batches(load(folder), videos, store, 4)
    assert np.array_equal(np.delete(scores, 2), np.delete(expected, 2))
    assert np.isnan(scores[2])


def test_settings_travel_with_a_released_pair() -> None:
    asked = Scoring(
        dtype="bfloat16",
        savings="exact",
        approximate=Approximate(int8=True, frames=2, pool_tokens=2, audio_seconds=0.5),
    )
    assert recorded({"frames": 4, "scoring": asked.model_dump()}) == Recorded(asked, DEFAULT_LIMITS)
    assert recorded({"frames": 4}) == Recorded(EXACT, DEFAULT_LIMITS)
    tight = DEFAULT_LIMITS.model_copy(update={"seconds": 3.0})
    assert recorded({"limits": tight.model_dump()}).limits == tight
    with pytest.raises(ModelError, match=r"preprocessing\.limits"):
        recorded({"limits": {"seconds": 3.0}})
    with pytest.raises(ModelError, match=r"preprocessing\.scoring"):
        recorded({"scoring": {"dtype": "float7"}})


def test_the_base_model_is_never_approximated(folder: Path, tmp_path: Path) -> None:
    config = ModelConfig(issues=("ucc",), kind="base", preset="tiny", architecture="frames", media=MEDIA)
    build(config, None).save(tmp_path / "base")
    asked = EXACT.model_copy(update={"approximate": EXACT.approximate.model_copy(update={"frames": 1})})
    assert load_for_scoring(tmp_path / "base", asked).config.media.frames == 2
    assert load_for_scoring(folder, asked).config.media.frames == 1


def test_videos_survive_the_way_to_another_process(videos: list[VideoInput]) -> None:
    odd = VideoInput("ü", Path("/a/b.mp4"), 'say "hi"', ("SALE", "€"), 7, "ab" * 32, "https://h/x.mp4")
    assert from_json(to_json([odd, *videos])) == [odd, *videos]
