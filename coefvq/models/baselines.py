"""The base models of the paper: frames only (ICD), multi-tower late fusion (UCC), SigLIP (both)."""

from __future__ import annotations

import torch
from torch import nn

from coefvq.models.audio import AudioBranch
from coefvq.models.frozen import FrozenPart, features_of
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

    def forward(
        self, pixel_values: torch.Tensor | None = None, vision_features: torch.Tensor | None = None
    ) -> torch.Tensor:
        """pixel_values [B,F,3,S,S], or the vectors of their images [B,T,D] in their place -> logits [B,2]."""
        logits: torch.Tensor = self.head(_seen(self.frames, pixel_values, vision_features))
        return logits

    def frozen_parts(self) -> tuple[FrozenPart, ...]:
        """The tower, where it does not train."""
        return _found(self.frames.frozen_part())

    def frozen_features(self, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Outputs of the frozen parts, as ``forward`` takes them."""
        return features_of(self.frozen_parts(), batch)


class MultiTower(nn.Module):
    """Frame, text and audio towers, fused late by one hidden layer (paper, section 3.1.2)."""

    def __init__(self, frames: FrameTower, text: TextTower, audio: AudioBranch) -> None:
        super().__init__()
        self.frames, self.text, self.audio = frames, text, audio
        self.head = fusion_head(frames.output_size + text.output_size + audio.output_size)

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

        A tower's output may be given in place of what it reads: of images [B,T,D], of text and sound [B,D].
        """
        towers = [
            _seen(self.frames, pixel_values, vision_features),
            self.text(input_ids, attention_mask) if text_features is None else text_features,
            self.audio(log_mel, has_audio) if audio_features is None else audio_features,
        ]
        logits: torch.Tensor = self.head(torch.cat(towers, dim=1))
        return logits

    def frozen_parts(self) -> tuple[FrozenPart, ...]:
        """The towers that do not train."""
        return _found(self.frames.frozen_part(), self.text.frozen_part(), self.audio.frozen_part())

    def frozen_features(self, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Outputs of the frozen parts, as ``forward`` takes them."""
        return features_of(self.frozen_parts(), batch)


class SiglipClassifier(nn.Module):
    """SigLIP on frames and text, with or without sound, fused late (Table 1, "SIGLIP")."""

    def __init__(self, siglip: SiglipTower, audio: AudioBranch | None) -> None:
        super().__init__()
        self.siglip, self.audio = siglip, audio
        self.head = fusion_head(siglip.output_size + (audio.output_size if audio else 0))

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        log_mel: torch.Tensor | None = None,
        has_audio: torch.Tensor | None = None,
        frame_features: torch.Tensor | None = None,
        text_features: torch.Tensor | None = None,
        audio_features: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """pixel_values [B,F,3,S,S], ids and mask [B,L], log_mel [B,80,T], has_audio [B] -> logits [B,2].

        A tower's output [B,D] may be given in place of what it reads.
        """
        if frame_features is None and pixel_values is not None:
            frame_features = self.siglip.see(pixel_values)
        if text_features is None and input_ids is not None and attention_mask is not None:
            text_features = self.siglip.read(input_ids, attention_mask)
        if frame_features is None or text_features is None:
            raise TypeError("SigLIP needs pixel_values and input_ids, or their features")
        towers = [frame_features, text_features]
        if audio_features is None and self.audio is not None and log_mel is not None and has_audio is not None:
            audio_features = self.audio(log_mel, has_audio)
        if audio_features is not None:
            towers.append(audio_features)
        logits: torch.Tensor = self.head(torch.cat(towers, dim=1))
        return logits

    def frozen_parts(self) -> tuple[FrozenPart, ...]:
        """The towers that do not train."""
        audio = self.audio.frozen_part() if self.audio is not None else None
        return (*self.siglip.frozen_parts(), *_found(audio))

    def frozen_features(self, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Outputs of the frozen parts, as ``forward`` takes them."""
        return features_of(self.frozen_parts(), batch)


def _found(*parts: FrozenPart | None) -> tuple[FrozenPart, ...]:
    return tuple(part for part in parts if part is not None)


def _seen(frames: FrameTower, pixels: torch.Tensor | None, vectors: torch.Tensor | None) -> torch.Tensor:
    seen: torch.Tensor = frames(pixels) if vectors is None else frames.joined(vectors)
    return seen
