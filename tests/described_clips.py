"""A miniature of `starter` and eight clips that can be described: a CNN grid, a Llama decoder, early sound, random."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from coefvq.config import Lora, MediaSpec
from coefvq.data.media.decode import Clip
from coefvq.models.assembly import NetworkBuilder, TokenIds, freeze_module
from coefvq.models.dataset import Collator, Example
from coefvq.models.mllm import MultimodalLLM
from coefvq.models.parts import AudioPart, LanguagePart, LitePart
from coefvq.models.presets import get_preset
from coefvq.models.text import TextEncoder, train_text_encoder
from coefvq.training.warmup import Batch, Inputs

MEDIA = MediaSpec(frames=2, frame_size=32, audio_seconds=0.5)
PRESET = replace(
    get_preset("tiny"),
    vision=LitePart(0.25, 0.3),
    language=LanguagePart("llama", 48, 2, 4, 2, 96, vocab_size=512),
    audio=AudioPart(n_state=32, n_head=2, n_layer=1),
)
WORDS = ("a red ball", "a blue sky")


@pytest.fixture(scope="module")
def text() -> TextEncoder:
    return train_text_encoder([*WORDS, "mi video"] * 20, 512, 16)


def network(text: TextEncoder, rank: int = 4, seed: int = 0) -> MultimodalLLM:
    torch.manual_seed(seed)
    make = NetworkBuilder(PRESET, MEDIA)
    ids = TokenIds(pad=text.pad_id, video=text.video_id)
    made = make.mllm(ids, lora=Lora(rank=rank, alpha=2 * rank, dropout=0.0), fusion="early")
    for layer in made.vision.tower.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():  # a random tower lets nothing through until its statistics are those of its input
        made.vision.tower(torch.rand(32, 3, 1, 1).mul(2).sub(1) + 0.2 * torch.randn(32, 3, 32, 32))
    freeze_module(made.vision.tower)  # as with published weights
    return made


@pytest.fixture(scope="module")
def batch(text: TextEncoder) -> Batch:
    """Eight clips; even ones are red, odd ones blue; titles of two lengths say nothing."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(8):
        frames = random.integers(0, 60, (2, 3, 32, 32)).astype(np.uint8)
        frames[:, 0 if number % 2 == 0 else 2] += 180
        wave = random.integers(-9000, 9000, 8000).astype(np.int16)
        rows.append(Example(Clip(frames, wave), "mi video" * (1 + number // 4), None))
    return Collator(text, visual_tokens=2, audio_seconds=0.5)(rows)


DESCRIPTIONS = [(WORDS[number % 2],) for number in range(8)]


def feed(batch: Batch) -> Inputs:
    return lambda rows: {k: v[list(rows)] for k, v in batch.items()}
