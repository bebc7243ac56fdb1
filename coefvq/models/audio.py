"""The audio encoder a: openai-whisper's AudioEncoder, averaged over time, or a tower of another package."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from coefvq.models.frozen import HEARS, FrozenPart, is_frozen
from coefvq.models.own_towers import own_tower, own_vectors
from coefvq.models.parts import AudioPart, OwnSoundPart, SoundPart


class AnyLayerNorm(nn.LayerNorm):
    """Whisper's own, computed in float32, with weights of any precision; theirs must be float32."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., D] -> [..., D] in the type of x."""
        shape, weight, bias = self.normalized_shape, self.weight.float(), self.bias.float()
        return nn.functional.layer_norm(x.float(), shape, weight, bias, self.eps).to(x.dtype)


class AudioBranch(nn.Module):
    """H_a = mean_t a(X_a) (paper, section 2.1).

    Clips without sound give a zero vector: the computation is the same for every row, so that a batch
    or a rank without any sound takes part in every collective step. A frozen encoder computes in the precision of its
    weights, under autocast too, so that H_a is what a cache of it holds.
    """

    def __init__(self, part: SoundPart, audio_seconds: float) -> None:
        super().__init__()
        self._part = part
        self.encoder: Any
        if isinstance(part, OwnSoundPart):
            self.encoder, self.output_size = own_tower(part, audio_seconds=audio_seconds), part.width
        else:
            self.encoder, self.output_size = _whisper_encoder(part, audio_seconds), part.n_state

    def forward(self, log_mel: torch.Tensor, has_audio: torch.Tensor) -> torch.Tensor:
        """log_mel [B,80,T], has_audio bool [B] -> H_a [B, output_size]."""
        pooled = self._mean_state(log_mel)
        mask: torch.Tensor = has_audio.to(pooled.dtype).unsqueeze(1)
        vector: torch.Tensor = pooled * mask
        return vector

    def _mean_state(self, log_mel: torch.Tensor) -> torch.Tensor:
        weight = next(self.encoder.parameters(), log_mel)
        if weight.requires_grad:
            return self._vectors(log_mel)
        with without_autocast(log_mel.device.type):
            frozen = self._vectors(log_mel.to(weight.dtype))
        return frozen.to(log_mel.dtype)

    def _vectors(self, log_mel: torch.Tensor) -> torch.Tensor:
        if isinstance(self._part, OwnSoundPart):
            return own_vectors(self._part, self.encoder, log_mel)
        mean: torch.Tensor = self.encoder(log_mel).mean(dim=1)
        return mean

    def frozen_part(self) -> FrozenPart | None:
        """``audio_features`` H_a [B, output_size], where the encoder does not train."""
        if not is_frozen(self):
            return None
        kind = "own" if isinstance(self._part, OwnSoundPart) else "whisper"
        return FrozenPart("audio_features", HEARS, self, (self,), {"kind": kind, **asdict(self._part)})


def without_autocast(device: str) -> AbstractContextManager[Any]:
    """Within it operations compute in the types that they are given."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def _whisper_encoder(part: AudioPart, audio_seconds: float) -> Any:
    from whisper.model import AudioEncoder

    # Whisper's second convolution halves 100 mel frames per second to 50 positions
    return _with_any_layer_norm(
        AudioEncoder(part.n_mels, round(audio_seconds * 50), part.n_state, part.n_head, part.n_layer)
    )


def _with_any_layer_norm(encoder: Any) -> Any:
    for module in list(encoder.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.LayerNorm):
                norm = AnyLayerNorm(child.normalized_shape, child.eps, device=child.weight.device)
                norm.weight, norm.bias = child.weight, child.bias
                setattr(module, name, norm)
    return encoder
