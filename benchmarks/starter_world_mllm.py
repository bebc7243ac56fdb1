"""The library's `starter` MLLM on cached tower features: warm-up on descriptions, then fine-tuning on both issues."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from starter_world_data import ISSUES, MEDIA, Split, text
from torch import nn

from coefvq.config import Alignment, Lora
from coefvq.models.assembly import Builder, TokenIds
from coefvq.models.language import Pooling
from coefvq.models.mllm import Fusion, MultimodalLLM
from coefvq.models.parts import LitePart
from coefvq.models.presets import get_preset
from coefvq.models.pretrained import weights_of
from coefvq.models.text import TextEncoder, load_text_encoder
from coefvq.simulation.synthetic.captions import short_captions
from coefvq.simulation.synthetic.clips import Clip
from coefvq.training.warmup import description_vocabulary, warm_up
from coefvq.training.word_alignment import (
    WordReader,
    Words,
    align_projectors,
    description_words,
    teach_state,
    watched_state,
)

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Recipe:
    """Everything that was varied; a result row carries it."""

    layers: int = 4
    grid: int = 1  # cells per side and image
    fusion: Fusion = "early"
    pooling: Pooling = "mean"  # what H is read from: the final token's state, or the mean over all
    rank: int = 32
    batch: int = 8
    projector_epochs: int = 4  # projectors alone, towards the descriptions' words
    objective: Literal["sentences", "words"] = "words"  # of the warm-up
    warmup_epochs: int = 2
    warmup_rate: float = 1e-3
    epochs: int = 2
    rate: float = 5e-4
    projector_rate: float = 2e-4
    head_rate: float = 1e-3
    description_weight: float = 2.0  # of the descriptions' words during fine-tuning, beside the labels
    rotated: bool = True  # a sentence starts at any of its words, so that H must know them all
    feature_dropout: float = 0.2
    feature_noise: float = 0.3
    averaged: float = 0.5  # last part of the steps whose weights are averaged; 0: the last weights


class Cells(nn.Module):
    """The projector p on cached cells of g in place of the whole vision branch; noise while training."""

    def __init__(self, branch: Any, recipe: Recipe) -> None:
        super().__init__()
        self.projector, self.scale = branch.projector, branch.scale
        self.dropout, self.noise = recipe.feature_dropout, recipe.feature_noise

    def forward(self, cells: torch.Tensor) -> torch.Tensor:
        """[B,T,1280] -> [B,T,D_lm]."""
        cells = cells.float()
        if self.training:
            cells = cells + self.noise * cells.std(dim=(0, 1)) * torch.randn_like(cells)
            cells = nn.functional.dropout(cells, self.dropout)
        projected: torch.Tensor = self.projector(cells) * self.scale
        return projected


class Heard(nn.Module):
    """Cached H_a in place of the audio branch."""

    def forward(self, sound: torch.Tensor, has_audio: torch.Tensor) -> torch.Tensor:
        """[B,512] -> [B,512]."""
        return sound * has_audio.unsqueeze(1)


def build(recipe: Recipe, seed: int) -> tuple[MultimodalLLM, TextEncoder]:
    """The preset's MLLM with two heads; its towers are cut off, their features come from the cache."""
    preset = get_preset("starter")
    preset = replace(
        preset,
        vision=LitePart(1.1, 1.2, pooled_side=recipe.grid),
        language=replace(preset.language, layers_used=recipe.layers),
    )
    folder = weights_of(preset, "language")
    if folder is None:
        raise SystemExit("starter: no weights; run `coefvq models fetch starter`")
    encoder = load_text_encoder(folder, preset.max_text_tokens, preset.language.tokens)
    torch.manual_seed(seed)
    ids = TokenIds(pad=encoder.pad_id, video=encoder.video_id)
    lora = Lora(rank=recipe.rank, alpha=2 * recipe.rank, dropout=0.0)
    made = Builder(preset, MEDIA).mllm(
        ids, lora=lora, fusion=recipe.fusion, pooling=recipe.pooling, motion=True, heads=len(ISSUES)
    )
    made.vision, made.audio = Cells(made.vision, recipe), Heard() if made.audio is not None else None  # type: ignore[assignment]
    made.language.decoder.set_attn_implementation("eager")
    for parameter in made.language.parameters():
        if not parameter.requires_grad and parameter.dim() == 2:
            parameter.data = parameter.data.bfloat16()
    return made, encoder


class Feed:
    """Batches of a split for the MLLM."""

    def __init__(self, split: Split, network: MultimodalLLM, encoder: TextEncoder, recipe: Recipe) -> None:
        cells = split.cells[:, :, :1] if recipe.grid == 1 else split.cells[:, :, 1:]
        self.cells, self.sound, self.labels = cells.flatten(1, 2), split.sound, split.labels
        self.texts = [text(clip) for clip in split.clips]
        self.encoder, self.tokens = encoder, network.visual_tokens
        encoded = encoder.tokenizer.encode_batch(self.texts, add_special_tokens=False)
        self.lengths = np.array([len(item.ids) for item in encoded])

    def __call__(self, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        """Inputs of the network, no labels."""
        batch = self.encoder.batch([self.texts[row] for row in rows], self.tokens)
        sound = self.sound[list(rows)]
        return {
            "pixel_values": self.cells[list(rows)],
            **batch,
            "log_mel": sound,
            "has_audio": (sound != 0).any(dim=1),
        }

    def batches(self, size: int, random: np.random.Generator | None = None) -> list[list[int]]:
        """All rows in batches of similar length, in random order where ``random`` is given."""
        jitter = random.normal(scale=3.0, size=len(self.lengths)) if random else np.zeros(len(self.lengths))
        order = np.argsort(self.lengths + jitter, kind="stable").tolist()
        found = [order[start : start + size] for start in range(0, len(order), size)]
        if random:
            random.shuffle(found)
        return found


def descriptions(clip: Clip, recipe: Recipe) -> tuple[str, ...]:
    """What the clip shows in a word per factor, in one order that may start anywhere."""
    return short_captions(clip.shown)[: None if recipe.rotated else 1]


def train(
    recipe: Recipe, split: Split, seed: int, tell: Any = print
) -> tuple[MultimodalLLM, TextEncoder, dict[str, Any]]:
    """Warm-up and fine-tuning; the third value holds curves and CPU seconds."""
    network, encoder = build(recipe, seed)
    feed, start = Feed(split, network, encoder, recipe), time.process_time()
    told = [descriptions(clip, recipe) for clip in split.clips]
    words = description_words(encoder, told)
    rate = recipe.warmup_rate
    aligned = align_projectors(
        network, feed, words, recipe.projector_epochs, rate, seed, lambda row: tell(f"projectors {row}")
    )
    curve = warm(network, encoder, feed, told, words, recipe, seed, lambda row: tell(f"warm-up {row}"))
    warmed = time.process_time()
    losses = fine_tune(network, feed, words, recipe, seed, tell)
    done = time.process_time()
    facts = {
        "projectors": aligned,
        "warmup": curve,
        "losses": losses,
        "warmup_cpu_s": warmed - start,
        "fine_tuning_cpu_s": done - warmed,
    }
    return network, encoder, {**facts, "recipe": asdict(recipe), "clips": len(split), "seed": seed}


def _tell(tell: Any, phase: str, row: dict[str, float]) -> None:
    tell(f"{phase} {row}, {time.process_time():.0f} CPU s")


def warm(
    network: MultimodalLLM,
    encoder: TextEncoder,
    feed: Feed,
    told: Sequence[Sequence[str]],
    words: Words,
    recipe: Recipe,
    seed: int,
    tell: Any,
) -> list[dict[str, float]]:
    """The whole network on descriptions, as sentences or as words."""
    rate, size = recipe.warmup_rate, recipe.batch
    if recipe.warmup_epochs == 0:
        return []
    if recipe.objective == "words":
        return teach_state(network, feed, words, recipe.warmup_epochs, size, rate, seed, tell, bf16=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        vocabulary = description_vocabulary(network, encoder, feed, told, 16)
    params = Alignment(epochs=recipe.warmup_epochs, per_device_train_batch_size=size, learning_rate=rate, max_tokens=16)
    return warm_up(network, encoder, feed, told, vocabulary, params, seed, tell, bf16=True)


def fine_tune(
    network: MultimodalLLM, feed: Feed, words: Words, recipe: Recipe, seed: int, tell: Any
) -> list[dict[str, float]]:
    """Cross-entropy of both issues plus the weighted loss on the descriptions' words; leaves the averaged weights."""
    reader = WordReader(network.language.output_size, words)
    groups = [*_groups(network, recipe), {"params": list(reader.parameters()), "lr": recipe.head_rate}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    random = np.random.default_rng([seed, 1])
    total = recipe.epochs * len(feed.batches(recipe.batch))
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in groups], total_steps=total, pct_start=0.1, cycle_momentum=False
    )
    average, rows, step = _Average(network), [], 0
    network.train()
    with watched_state(network) as state:
        for epoch in range(recipe.epochs):
            seen = []
            for batch in feed.batches(recipe.batch, random):
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    logits = network(**feed(batch))
                loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), feed.labels[batch].flatten())
                told_loss = reader.loss(state[-1], torch.tensor(batch))
                optimizer.zero_grad(set_to_none=True)
                (loss + recipe.description_weight * told_loss).backward()
                nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 1.0)
                optimizer.step()
                scheduler.step()
                step += 1
                if step > total * (1.0 - recipe.averaged):
                    average.add()
                seen.append((loss.item(), told_loss.item()))
            means = np.mean(seen, axis=0)
            rows.append({"epoch": epoch + 1.0, "loss": float(means[0]), "description_loss": float(means[1])})
            _tell(tell, "fine-tuning", rows[-1])
    average.put()
    return rows


def _groups(network: MultimodalLLM, recipe: Recipe) -> list[dict[str, Any]]:
    rates = {"language.": recipe.rate, "vision.": recipe.projector_rate, "audio_projector.": recipe.projector_rate}
    parts: dict[float, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            rate = next((value for part, value in rates.items() if name.startswith(part)), recipe.head_rate)
            parts.setdefault(rate, []).append(parameter)
    return [{"params": found, "lr": rate} for rate, found in parts.items()]


class _Average:
    """Mean of the trainable weights over steps."""

    def __init__(self, network: nn.Module) -> None:
        self._live = [p for p in network.parameters() if p.requires_grad]
        self._mean: list[torch.Tensor] = []
        self._count = 0

    def add(self) -> None:
        self._count += 1
        if not self._mean:
            self._mean = [p.detach().clone() for p in self._live]
        for mean, live in zip(self._mean, self._live, strict=True):
            mean.lerp_(live.detach(), 1.0 / self._count)

    def put(self) -> None:
        with torch.no_grad():
            for mean, live in zip(self._mean, self._live, strict=False):
                live.copy_(mean)


def score(network: MultimodalLLM, encoder: TextEncoder, split: Split, recipe: Recipe) -> Floats:
    """P(positive) [N, K] of every clip."""
    feed, scores = Feed(split, network, encoder, recipe), np.zeros((len(split), len(ISSUES)))
    network.eval()
    for rows in feed.batches(64):
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            odds = network(**feed(rows)).float()
        scores[rows] = (odds[..., 1] - odds[..., 0]).double().sigmoid().numpy()
    return scores
