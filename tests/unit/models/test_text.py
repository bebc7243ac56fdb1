"""Texts that are too long, tokenizers of another model, clips without sound."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coefvq.config import BaseModelParams, Lora, MediaSpec, MLLMParams
from coefvq.data.media.clips import ClipStore
from coefvq.data.media.decode import DEFAULT_LIMITS, Clip
from coefvq.errors import ModelError
from coefvq.inference import score_batches
from coefvq.models.classifier import build
from coefvq.models.dataset import VideoDataset, text_of
from coefvq.models.model_config import base_config, mllm_config
from coefvq.models.text import TextEncoder, shortened, train_text_encoder
from coefvq.models.tokens import SpecialTokens
from coefvq.models.vocabulary import text_limit
from coefvq.records import VideoInput
from tests.settings import training_settings

MEDIA = MediaSpec(frames=2, frame_size=64, audio_seconds=1.0)
TRAINING = training_settings()
MLLM = MLLMParams(
    preset="tiny",
    fusion="late",
    text=True,
    audio=True,
    motion=False,
    lora=Lora(rank=4, alpha=8, dropout=0.0),
    training=TRAINING,
)


def video(title: str, *stickers: str) -> VideoInput:
    return VideoInput("v", Path("v"), title, stickers)


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    words = [f"word{n}" for n in range(60)] + ["my title of the clip"]
    return train_text_encoder([" ".join(words)] * 5, 2048, 24)


def read_back(encoder: TextEncoder, text: str) -> str:
    ids = encoder.batch([text], 2)["input_ids"][0].tolist()
    assert ids[:2] == [encoder.video_id] * 2
    assert ids[-1] == encoder.end_id
    return str(encoder.tokenizer.decode(ids))


def test_stickers_lose_their_middle_and_the_title_stays(encoder: TextEncoder, caplog: pytest.LogCaptureFixture) -> None:
    stickers = [f"word{n}" for n in range(40)]
    with caplog.at_level(logging.INFO):
        kept = read_back(encoder, text_of(video("my title of the clip", *stickers)))
    assert kept.startswith(" my title of the clip\n[word0]")
    assert kept.endswith("[word39]")
    assert "word20" not in kept
    assert caplog.messages == ["1 of 1 texts are longer than 24 tokens and were cut"]
    assert len(encoder.batch([text_of(video("my title", *stickers))], 0)["input_ids"][0]) == 24 + 1


def test_a_title_that_is_too_long_loses_its_middle_and_no_sticker_is_left(encoder: TextEncoder) -> None:
    title = " ".join(f"word{n}" for n in range(50))
    kept = read_back(encoder, text_of(video(title, "word55")))
    assert kept.startswith(" word0 word1 ")
    assert kept.endswith(" word49")
    assert "word55" not in kept


def test_a_batch_is_logged_once_and_a_text_that_fits_is_whole(
    encoder: TextEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    long = text_of(video("my title", *["word1"] * 40))
    with caplog.at_level(logging.INFO):
        batch = encoder.batch([long, "my title", long], 0)
        encoder.batch(["my title"], 0)
    assert caplog.messages == ["2 of 3 texts are longer than 24 tokens and were cut"]
    assert [count > encoder.max_tokens for count in encoder.counts([long, "my title", long])] == [True, False, True]
    assert encoder.tokenizer.decode(batch["input_ids"][1].tolist()).strip() == "my title"
    assert encoder.lengths([long, "my title", long], 0) == batch["attention_mask"].sum(1).tolist()


def test_the_prompt_of_an_encoder_stays(encoder: TextEncoder) -> None:
    asked = replace(encoder, tokens=SpecialTokens(prompt="word9 "))
    assert read_back(asked, text_of(video("my title", *["word1"] * 40))).startswith(" word9 my title\n[word1]")
    assert read_back(asked, " ".join(["word1"] * 40)).startswith(" word9 word1 ")


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 40))
def test_what_is_kept_is_start_and_end_in_order(title: int, stickers: int, limit: int) -> None:
    ids = list(range(title + stickers))
    kept = shortened(ids, title, limit)
    assert len(kept) == min(len(ids), limit)
    assert kept == sorted(set(kept))
    if title <= limit:
        assert kept[:title] == ids[:title]
        if len(ids) > limit >= title + 2:
            assert kept[-1] == ids[-1]
    else:
        assert max(kept) < title
        assert kept[0] == 0


def test_every_text_tower_has_positions_for_the_longest_text() -> None:
    base = {"audio": True, "motion": False, "freeze_towers": True, "training": TRAINING}
    media = MediaSpec(frames=1, frame_size=384, audio_seconds=30.0)
    limits = {
        kind: text_limit(base_config("ucc", BaseModelParams(preset="paper", architecture=kind, **base), media))  # type: ignore[arg-type]
        for kind in ("multitower", "siglip")
    }
    # XLM-R: 514 positions, of which 2 are never used; SigLIP reads 64 tokens
    assert limits == {"multitower": 510, "siglip": 62}
    assert text_limit(mllm_config("ucc", MLLM.model_copy(update={"preset": "paper"}), media)) == 512


@pytest.mark.parametrize("kind", ["multitower", "siglip", "mllm"])
def test_the_longest_text_goes_through_every_model(kind: str) -> None:
    if kind == "mllm":
        config = mllm_config("ucc", MLLM, MEDIA)
    else:
        params = BaseModelParams(
            preset="tiny",
            architecture=kind,  # type: ignore[arg-type]
            audio=True,
            motion=False,
            freeze_towers=False,
            training=TRAINING,
        )
        config = base_config("ucc", params, MEDIA)
    text = train_text_encoder(["word"] * 9, 2048, text_limit(config))
    model = build(config, text)
    model.network.eval()
    batch = text.batch(["a b c d e f g h " * 60], getattr(model.network, "visual_tokens", 0))
    batch |= {"pixel_values": torch.zeros(1, 2, 3, 64, 64), "log_mel": torch.zeros(1, 80, 100)}
    with torch.inference_mode():
        assert model.network(**batch, has_audio=torch.tensor([True])).isfinite().all()


def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused() -> None:
    large = train_text_encoder([f"x{n}y{n * 7919} z{n * 104729}" for n in range(20_000)], 4000, 16)
    assert large.vocab_size == 4000
    with pytest.raises(ModelError, match="tokenizer of 4000 tokens: mllm of preset tiny has embeddings for 2048") as no:
        build(mllm_config("ucc", MLLM, MEDIA), large)
    assert "\n" not in str(no.value)


@pytest.mark.parametrize("missing", ["pad", "video", "end", "start"])
def test_a_tokenizer_without_the_models_special_tokens_is_refused(encoder: TextEncoder, missing: str) -> None:
    other = replace(encoder, tokens=replace(SpecialTokens(), **{missing: "<|strange|>"}))
    with pytest.raises(ModelError, match=r"token <\|strange\|> is missing, so it is not this model's"):
        build(mllm_config("ucc", MLLM, MEDIA), other)


class _Clips(ClipStore):
    """Clips with and without sound, by id."""

    def get(self, video: VideoInput) -> Clip:
        random = np.random.default_rng(len(video.video_id))
        sound = random.integers(-9000, 9000, 16_000) if video.video_id.startswith("loud") else np.zeros(0)
        return Clip(random.integers(0, 255, (2, 3, 64, 64)).astype(np.uint8), sound.astype(np.int16))


def test_no_sound_is_a_zero_vector_in_training_as_in_serving(encoder: TextEncoder, tmp_path: Path) -> None:
    model = build(mllm_config("ucc", MLLM, MEDIA), encoder)
    network, store = model.network, _Clips(tmp_path, MEDIA, DEFAULT_LIMITS)
    videos = [VideoInput(name, Path(name), "my title") for name in ("silent", "loud-1", "silent-2")]
    served = score_batches(model, videos, store)
    seen: list[torch.Tensor] = []
    network.audio.register_forward_hook(lambda _, __, vector: seen.append(vector.detach()))
    labelled = VideoDataset(videos, store, [0, 1, 0])
    batch = model.collator([labelled[i] for i in range(3)])  # what the Trainer's loader does
    batch.pop("labels")
    trained = network.train()(**batch)
    assert batch["has_audio"].tolist() == [False, True, False]
    assert [bool(row.any()) for row in seen[0]] == [False, True, False]
    assert np.allclose(trained.detach().double().softmax(1)[:, 1].numpy(), served, atol=1e-6)
    # and it is the sound that is missing, not just anything: with it the answer is another
    with torch.no_grad():
        heard = network(**{**batch, "has_audio": torch.tensor([True] * 3)})
    assert not torch.allclose(heard[0], trained[0], atol=1e-6)


def test_half_of_a_surrogate_pair_is_read_as_a_question_mark() -> None:
    encoder = train_text_encoder(["a title ? of words"] * 5, 2048, 24)
    assert (
        encoder.batch(["a \udcff title"], 0)["input_ids"].tolist()
        == encoder.batch(["a ? title"], 0)["input_ids"].tolist()
    )
