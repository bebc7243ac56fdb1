"""Small models with frozen towers, and clips for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from coefvq.config import AttentionLayers, BaseModelParams, Lora, MediaSpec, MLLMParams, Training
from coefvq.data.media.clips import ClipStore
from coefvq.data.media.decode import DEFAULT_LIMITS
from coefvq.models.assembly import NetworkBuilder, TokenIds, freeze_module
from coefvq.models.classifier import Classifier, build
from coefvq.models.language import LanguageBranch, decoder_config
from coefvq.models.mllm import MultimodalLLM
from coefvq.models.model_config import base_config, mllm_config
from coefvq.models.parts import LitePart
from coefvq.models.presets import get_preset
from coefvq.models.text import TextEncoder, train_text_encoder
from coefvq.models.vision import CnnBranch, visual_tokens
from coefvq.records import VideoInput
from tests.settings import training_settings

MEDIA = MediaSpec(frames=4, frame_size=64, audio_seconds=1.0)
KINDS = ("frames", "multitower", "siglip", "attention", "mllm", "mllm-early", "projector-trains", "cnn-mllm")
WORDS = ["what a lovely day", "watch till the end", "mi video original", "", "a much longer title, with many words"]


ATTENTION = AttentionLayers(width=16, heads=2, layers=1, dropout=0.2, feature_noise=0.3)


def training(epochs: float = 2.0) -> Training:
    return training_settings(num_train_epochs=epochs, positive_weight=2.0)


def text_encoder() -> TextEncoder:
    return train_text_encoder(WORDS * 20, 2048, 64)


def frozen_model(
    kind: str, seed: int = 0, media: MediaSpec = MEDIA, members: int = 1, motion: bool = True
) -> Classifier:
    """``motion``: whether those kinds look at motion images that can."""
    torch.manual_seed(seed)
    text = text_encoder()
    if kind in ("frames", "multitower", "siglip", "attention"):
        params = BaseModelParams(
            preset="tiny",
            architecture=kind,  # type: ignore[arg-type]
            audio=True,
            motion=motion and kind in ("frames", "attention"),
            freeze_towers=True,
            attention=ATTENTION.model_copy(update={"members": members}) if kind == "attention" else None,
            training=training(),
        )
        return build(base_config("icd", params, media), None if kind == "frames" else text)
    fusion = "early" if kind == "mllm-early" else "late"
    settings = MLLMParams(
        preset="tiny",
        fusion=fusion,  # type: ignore[arg-type]
        text=True,
        audio=True,
        motion=False,
        lora=Lora(rank=4, alpha=8, dropout=0.0),
        training=training(),
    )
    made = build(mllm_config("icd", settings, media), text)
    if kind == "cnn-mllm":
        made = Classifier(made.config, _starter_like(text, motion), text)
    network = made.network
    assert isinstance(network, MultimodalLLM)
    assert network.audio is not None
    freeze_module(network.audio)
    freeze_module(network.vision.tower)
    if kind in ("mllm", "mllm-early"):
        freeze_module(network.vision)
    return made


def _starter_like(text: TextEncoder, motion: bool) -> MultimodalLLM:
    """A CNN's pooled grid with motion images, its projector trainable: the starter preset with small parts."""
    preset = get_preset("tiny")
    vision = CnnBranch(LitePart(0.25, 0.25, pooled_side=2), preset.language.hidden_size, motion)
    language = LanguageBranch(
        NetworkBuilder(preset, MEDIA)
        .mllm(TokenIds(text.pad_id, text.video_id), lora=_RANK0, fusion="none")
        .language.decoder,
        text.video_id,
        Lora(rank=4, alpha=8, dropout=0.0),
    )
    assert decoder_config(preset.language).hidden_size == language.output_size
    audio = NetworkBuilder(preset, MEDIA)._audio("audio", preset.audio, freeze=False)
    tokens = visual_tokens(vision, MEDIA.frames)
    return MultimodalLLM(vision, language, audio, fusion="late", visual_tokens=tokens)


_RANK0 = Lora(rank=0, alpha=0, dropout=0.0)


def stored_clips(root: Path, count: int, frame_size: int = 64) -> tuple[list[VideoInput], ClipStore]:
    """Videos whose clips are decoded already, of random pixels; every third is silent."""
    media = MEDIA.model_copy(update={"frame_size": frame_size})
    store = ClipStore(root, media, DEFAULT_LIMITS)
    videos = []
    for number in range(count):
        random = np.random.default_rng(number)
        digest = f"{number:064x}"
        path = store.path(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        wave = random.integers(-9000, 9000, 0 if number % 3 == 0 else 16_000).astype(np.int16)
        frames = random.integers(0, 255, (MEDIA.frames, 3, frame_size, frame_size)).astype(np.uint8)
        save_file({"frames": frames, "waveform": wave}, path)
        videos.append(VideoInput(f"v{number}", Path("none.mp4"), WORDS[number % len(WORDS)], sha256=digest))
    return videos, store
