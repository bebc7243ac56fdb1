"""The light base models of the paper: ResNet on frames (ICD), multi-tower late fusion (UCC)."""

from __future__ import annotations

import torch
from torch import nn

from coefvq.config import MediaSpec
from coefvq.data.text import PAD, TextEncoder
from coefvq.models.audio import AudioBranch
from coefvq.models.presets import Preset, TextPart
from coefvq.models.vision import FrameTower

CLASSES = 2


class FrameClassifier(nn.Module):
    """Mean of frame features -> linear head."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.frames = FrameTower(preset.resnet)
        self.head = nn.Linear(self.frames.output_size, CLASSES)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """pixel_values [B,F,3,S,S] -> logits [B,2]."""
        logits: torch.Tensor = self.head(self.frames(pixel_values))
        return logits


class TextTower(nn.Module):
    """XLM-R-style encoder, mean over real tokens."""

    def __init__(self, part: TextPart, vocab_size: int, max_tokens: int, pad_token: int) -> None:
        from transformers import XLMRobertaConfig, XLMRobertaModel

        super().__init__()
        self.encoder = XLMRobertaModel(
            XLMRobertaConfig(
                vocab_size=vocab_size,
                hidden_size=part.hidden_size,
                num_hidden_layers=part.num_hidden_layers,
                num_attention_heads=part.num_attention_heads,
                intermediate_size=part.intermediate_size,
                # RoBERTa numbers positions from pad_token + 1, and the end token is one more
                max_position_embeddings=max_tokens + pad_token + 8,
                pad_token_id=pad_token,
                type_vocab_size=1,
            ),
            add_pooling_layer=False,
        )
        self.output_size = part.hidden_size

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """input_ids and attention_mask [B,L] -> [B,D]."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        pooled: torch.Tensor = (states * mask).sum(dim=1) / mask.sum(dim=1)
        return pooled


class MultiTower(nn.Module):
    """Frame, text and audio towers, fused late by one hidden layer (paper, section 3.1.2)."""

    def __init__(self, preset: Preset, media: MediaSpec, text: TextEncoder) -> None:
        super().__init__()
        self.frames = FrameTower(preset.resnet)
        self.text = TextTower(preset.text_tower, text.vocab_size, text.max_tokens, text.id_of(PAD))
        self.audio = AudioBranch(preset.audio, media.audio_seconds)
        width = self.frames.output_size + self.text.output_size + self.audio.output_size
        self.head = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width // 2), nn.GELU(), nn.Linear(width // 2, CLASSES)
        )

    def forward(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        log_mel: torch.Tensor,
        has_audio: torch.Tensor,
    ) -> torch.Tensor:
        """pixel_values [B,F,3,S,S], ids and mask [B,L], log_mel [B,80,T], has_audio [B] -> logits [B,2]."""
        towers = [
            self.frames(pixel_values),
            self.text(input_ids, attention_mask),
            self.audio(log_mel, has_audio),
        ]
        logits: torch.Tensor = self.head(torch.cat(towers, dim=1))
        return logits
