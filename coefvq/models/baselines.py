"""The base models of the paper: frames only (ICD), multi-tower late fusion (UCC), SigLIP (both)."""

from __future__ import annotations

import torch
from torch import nn

from coefvq.models.audio import AudioBranch
from coefvq.models.towers import FrameTower, SiglipTower, TextTower

CLASSES = 2


def fusion_head(width: int) -> nn.Sequential:
    """One hidden layer over concatenated towers."""
    hidden = min(width // 2, 512)
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, CLASSES))


class FrameClassifier(nn.Module):
    """Mean of frame features -> linear head."""

    def __init__(self, frames: FrameTower) -> None:
        super().__init__()
        self.frames = frames
        self.head = nn.Linear(frames.output_size, CLASSES)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """pixel_values [B,F,3,S,S] -> logits [B,2]."""
        logits: torch.Tensor = self.head(self.frames(pixel_values))
        return logits


class MultiTower(nn.Module):
    """Frame, text and audio towers, fused late by one hidden layer (paper, section 3.1.2)."""

    def __init__(self, frames: FrameTower, text: TextTower, audio: AudioBranch) -> None:
        super().__init__()
        self.frames, self.text, self.audio = frames, text, audio
        self.head = fusion_head(frames.output_size + text.output_size + audio.output_size)

    def forward(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        log_mel: torch.Tensor,
        has_audio: torch.Tensor,
    ) -> torch.Tensor:
        """pixel_values [B,F,3,S,S], ids and mask [B,L], log_mel [B,80,T], has_audio [B] -> logits [B,2]."""
        towers = [self.frames(pixel_values), self.text(input_ids, attention_mask), self.audio(log_mel, has_audio)]
        logits: torch.Tensor = self.head(torch.cat(towers, dim=1))
        return logits


class SiglipClassifier(nn.Module):
    """SigLIP on frames and text, with or without sound, fused late (Table 1, "SIGLIP")."""

    def __init__(self, siglip: SiglipTower, audio: AudioBranch | None) -> None:
        super().__init__()
        self.siglip, self.audio = siglip, audio
        self.head = fusion_head(siglip.output_size + (audio.output_size if audio else 0))

    def forward(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        log_mel: torch.Tensor | None = None,
        has_audio: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """pixel_values [B,F,3,S,S], ids and mask [B,L], log_mel [B,80,T], has_audio [B] -> logits [B,2]."""
        features = self.siglip(pixel_values, input_ids, attention_mask)
        if self.audio is not None and log_mel is not None and has_audio is not None:
            features = torch.cat([features, self.audio(log_mel, has_audio)], dim=1)
        logits: torch.Tensor = self.head(features)
        return logits
