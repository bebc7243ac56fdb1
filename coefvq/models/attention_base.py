"""Base model whose heads are small transformers over the vectors of frozen towers: images, text and sound."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import nn
from torch.nn.functional import relu, scaled_dot_product_attention

from coefvq.config import AttentionLayers
from coefvq.models.audio import AudioBranch
from coefvq.models.frozen import FrozenPart, features_of
from coefvq.models.towers import FrameTower, TextTower

CLASSES = 2
_INITIAL_STD = 0.02
_OUTPUT = ("out", "bias")
_LEAST_STD = 1e-4  # of a number that never changes, such as a dead channel


class VectorTokens(nn.Module):
    """Vectors of one kind as tokens: standardised, noised in training, projected, each with a place of its own."""

    def __init__(self, size: int, count: int, width: int, noise: float) -> None:
        super().__init__()
        self.linear = nn.Linear(size, width)
        # a parameter of this very module: what is saved goes by it (classifier.published_names)
        self.place = nn.Parameter(_INITIAL_STD * torch.randn(count, width))
        self.noise = noise
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """vectors [B,count,size] -> tokens [B,count,width]."""
        standard = (vectors - self.mean) / self.std
        if self.training and self.noise > 0.0:
            standard = standard + self.noise * torch.randn_like(standard)
        tokens: torch.Tensor = self.linear(standard) + self.place
        return tokens


class AttentionLayer(nn.Module):
    """A pre-norm transformer layer of plain linear layers, which scoring can pack."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.joint, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        """state [B,T,width] -> [B,T,width]."""
        parts = self.joint(self.attention_norm(state)).chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        rate = self.dropout.p if self.training else 0.0
        mixed = scaled_dot_product_attention(query, key, value, dropout_p=rate).transpose(1, 2).flatten(2)
        state = state + self.dropout(self.out(mixed))
        changed: torch.Tensor = self.narrow(self.dropout(relu(self.widen(self.mlp_norm(state)))))
        changed = self.dropout(changed)
        return state + changed


class AttentionHead(nn.Module):
    """A query token per class attends to the tokens of images, text and sound; its state gives the class's logit."""

    def __init__(self, counts: Mapping[str, tuple[int, int]], sizes: AttentionLayers) -> None:
        """``counts``: size and number of the vectors of each kind."""
        super().__init__()
        width, noise = sizes.width, sizes.feature_noise
        self.tokens = nn.ModuleDict({name: VectorTokens(*count, width, noise) for name, count in counts.items()})
        self.query = nn.Parameter(_INITIAL_STD * torch.randn(CLASSES, width))
        self.layers = nn.ModuleList(AttentionLayer(width, sizes.heads, sizes.dropout) for _ in range(sizes.layers))
        self.dropout, self.norm = nn.Dropout(sizes.dropout), nn.LayerNorm(width)
        self.out = nn.Parameter(_INITIAL_STD * torch.randn(CLASSES, width))
        self.bias = nn.Parameter(torch.zeros(CLASSES))

    def forward(self, vectors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Vectors [B,count,size] by kind -> logits [B,2]."""
        logits: torch.Tensor = (self.states(vectors) * self.out).sum(dim=-1) + self.bias
        return logits

    def states(self, vectors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Vectors [B,count,size] by kind -> what the query of each class came to [B,2,width]."""
        tokens = torch.cat([self.tokens[name](part) for name, part in vectors.items()], dim=1)
        state = torch.cat([self.query.expand(len(tokens), -1, -1), self.dropout(tokens)], dim=1)
        for layer in self.layers:
            state = layer(state)
        found: torch.Tensor = self.norm(state[:, :CLASSES])
        return found

    def standardise(self, name: str, mean: torch.Tensor, std: torch.Tensor) -> None:
        """As ``AttentionClassifier.standardise``."""
        buffers = dict(self.tokens[name].named_buffers())
        buffers["mean"].copy_(mean)
        buffers["std"].copy_(std + _LEAST_STD)


def learning_parts(head: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters of a head that can learn from descriptions, by name; its output waits for labels."""
    return {name: parameter for name, parameter in head.named_parameters() if name not in _OUTPUT}


class AttentionClassifier(nn.Module):
    """Heads over the vectors of the same towers; each learns by itself, and their mean probability is the score."""

    def __init__(
        self, frames: FrameTower, text: TextTower, audio: AudioBranch | None, images: int, sizes: AttentionLayers
    ) -> None:
        super().__init__()
        self.frames, self.text, self.audio = frames, text, audio
        counts = {"images": (frames.vector_size, images), "text": (text.output_size, 1)}
        if audio is not None:
            counts["sound"] = (audio.output_size, 1)
        self.heads = nn.ModuleList(AttentionHead(counts, sizes) for _ in range(sizes.members))

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        log_mel: torch.Tensor | None = None,
        has_audio: torch.Tensor | None = None,
        vision_features: torch.Tensor | None = None,
        text_features: torch.Tensor | None = None,
        audio_features: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """pixel_values [B,F,3,S,S], ids and mask [B,L], log_mel [B,80,T], has_audio [B] -> logits [B,2].

        A tower's output, [B,images,D] or [B,D], may be given in place of what it reads. While it trains, the batch
        comes once for each head, [members * B,2], so that the loss is that of each head by itself.
        """
        inputs = {
            "pixel_values": pixel_values,
            **{"input_ids": input_ids, "attention_mask": attention_mask, "log_mel": log_mel, "has_audio": has_audio},
            **{"vision_features": vision_features, "text_features": text_features, "audio_features": audio_features},
        }
        vectors = self.vectors({name: tensor for name, tensor in inputs.items() if tensor is not None})
        logits = [head(vectors) for head in self.heads]
        return torch.cat(logits) if self.training else mean_of(logits)

    def vectors(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Outputs of the towers: ``images`` [B,images,D], ``text`` [B,1,D], with audio ``sound`` [B,1,D]."""
        images, text, sound = (batch.get(name) for name in ("vision_features", "text_features", "audio_features"))
        towers = {
            "images": self.frames.vectors(batch["pixel_values"]) if images is None else images,
            "text": (self.text(batch["input_ids"], batch["attention_mask"]) if text is None else text).unsqueeze(1),
        }
        if self.audio is not None:
            sound_vector: torch.Tensor = self.audio(batch["log_mel"], batch["has_audio"]) if sound is None else sound
            towers["sound"] = sound_vector.unsqueeze(1)
        return towers

    def standardise(self, name: str, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Scale the vectors ``name`` by their mean and standard deviation [size] over the training videos."""
        for head in self.heads:
            cast(AttentionHead, head).standardise(name, mean, std)

    def frozen_parts(self) -> tuple[FrozenPart, ...]:
        """The towers that do not train."""
        audio = self.audio.frozen_part() if self.audio is not None else None
        parts = (self.frames.frozen_part(), self.text.frozen_part(), audio)
        return tuple(part for part in parts if part is not None)

    def frozen_features(self, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Outputs of the frozen parts, as ``forward`` takes them."""
        return features_of(self.frozen_parts(), batch)


def mean_of(logits: Sequence[torch.Tensor]) -> torch.Tensor:
    """Logits [B,2] of each head -> logits [B,2] of their mean probability (log-probabilities, but for one head)."""
    if len(logits) == 1:
        return logits[0]
    return torch.stack([part.log_softmax(dim=-1) for part in logits]).logsumexp(dim=0) - math.log(len(logits))
