"""The audio encoder a: openai-whisper's AudioEncoder, averaged over time."""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import nn

from coefvq.models.frozen import HEARS, FrozenPart, is_frozen
from coefvq.models.parts import AudioPart


class AudioBranch(nn.Module):
    """H_a = mean_t a(X_a) (paper, section 2.1).

    Clips without sound give a zero vector: the computation is the same for every row, so that a batch
    or a rank without any sound takes part in every collective step.
    """

    def __init__(self, part: AudioPart, audio_seconds: float) -> None:
        from whisper.model import AudioEncoder

        super().__init__()
        # Whisper's second convolution halves 100 mel frames per second to 50 positions
        self.encoder = AudioEncoder(part.n_mels, round(audio_seconds * 50), part.n_state, part.n_head, part.n_layer)
        self.output_size = part.n_state
        self._part = part

    def forward(self, log_mel: torch.Tensor, has_audio: torch.Tensor) -> torch.Tensor:
        """log_mel [B,80,T], has_audio bool [B] -> H_a [B, n_state]."""
        pooled = self.encoder(log_mel).mean(dim=1)
        mask: torch.Tensor = has_audio.to(pooled.dtype).unsqueeze(1)
        vector: torch.Tensor = pooled * mask
        return vector

    def frozen_part(self) -> FrozenPart | None:
        """``audio_features`` H_a [B, n_state], where the encoder does not train."""
        if not is_frozen(self):
            return None
        return FrozenPart("audio_features", HEARS, self, (self,), {"kind": "whisper", **asdict(self._part)})
