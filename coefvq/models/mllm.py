"""The fused multimodal LLM of the paper: y = softmax(f_cl([H; H_a])) (section 2.1, Figure 1)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from coefvq.models.audio import AudioBranch
from coefvq.models.frozen import FrozenPart, features_of
from coefvq.models.language import LanguageBranch
from coefvq.models.vision import CnnBranch, SiglipBranch

CLASSES = 2
Fusion = Literal["late", "early", "none"]


class MultimodalLLM(nn.Module):
    """Vision encoder, projector, language model, audio encoder and a linear head per issue.

    ``fusion`` is how sound joins: ``late`` concatenates H and H_a, ``early`` makes the projected H_a the final
    input token (paper, Table 3), ``none`` uses no sound, as in the paper's ICD model.
    """

    def __init__(
        self,
        vision: SiglipBranch | CnnBranch,
        language: LanguageBranch,
        audio: AudioBranch | None,
        *,
        fusion: Fusion,
        visual_tokens: int,
        heads: int = 1,
    ) -> None:
        super().__init__()
        self.vision, self.language, self.audio = vision, language, audio
        self.fusion, self.visual_tokens, self.heads = fusion, visual_tokens, heads
        width = language.output_size
        self.norm = nn.LayerNorm(width)
        self.audio_projector = _audio_projector(audio.output_size, language) if audio and fusion == "early" else None
        if audio is not None and fusion == "late":
            width += audio.output_size
        self.head = nn.Linear(width, CLASSES * heads)

    def hidden(
        self,
        visual: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        sound: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """H, the hidden state of the final token: H_f [B,T_v,D_lm] -> [B,D_lm]; ``sound`` is H_a [B,D_a] (early)."""
        last = self.audio_projector(sound).unsqueeze(1) if self.audio_projector and sound is not None else None
        hidden: torch.Tensor = self.language(visual, input_ids, attention_mask, last)
        return hidden

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        log_mel: torch.Tensor | None = None,
        has_audio: torch.Tensor | None = None,
        vision_features: torch.Tensor | None = None,
        projected_features: torch.Tensor | None = None,
        audio_features: torch.Tensor | None = None,
        hidden_features: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """pixel_values [B,F,3,S,S], ids and mask [B,L], log_mel [B,80,T] -> logits [B,2], or [B,K,2] of K issues.

        What ``frozen_features`` returned for the same videos may be given in place of the raw inputs:
        ``vision_features`` Z_f or ``projected_features`` H_f for pixels, ``audio_features`` H_a for log_mel; and what
        ``before_head`` returned, in place of all.
        """
        sound = self._sound(log_mel, has_audio, audio_features)
        if hidden_features is None:
            visual = self._visual(pixel_values, vision_features, projected_features)
            if input_ids is None or attention_mask is None:
                raise TypeError("the MLLM needs input_ids and attention_mask")
            hidden_features = self.hidden(visual, input_ids, attention_mask, sound)
        H = self.norm(hidden_features.to(self.norm.weight.dtype))
        if self.fusion == "late" and sound is not None:
            H = torch.cat([H, sound.to(H.dtype)], dim=1)
        logits: torch.Tensor = self.head(H)
        return logits if self.heads == 1 else logits.view(-1, self.heads, CLASSES)

    def before_head(self, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """H [B,D_lm] as ``hidden_features``, and with late fusion H_a [B,D_a] as ``audio_features``."""
        sound = self._sound(*(batch.get(name) for name in ("log_mel", "has_audio", "audio_features")))
        visual = self._visual(*(batch.get(name) for name in ("pixel_values", "vision_features", "projected_features")))
        H = self.hidden(visual, batch["input_ids"], batch["attention_mask"], sound)
        late = {"audio_features": sound} if self.fusion == "late" and sound is not None else {}
        return {"hidden_features": H, **late}

    def tokens(self, **batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Visual tokens, and the sound's token: H_f [B,T_v,D_lm], and with early fusion H_a's token [B,D_lm]."""
        inputs = (batch.get(name) for name in ("pixel_values", "vision_features", "projected_features"))
        sound = self._sound(*(batch.get(name) for name in ("log_mel", "has_audio", "audio_features")))
        projected = self.audio_projector(sound) if self.audio_projector and sound is not None else None
        return self._visual(*inputs), projected

    def frozen_parts(self) -> tuple[FrozenPart, ...]:
        """g (with p where it does not train either, if that is smaller) and a, where they are frozen."""
        parts = [self.vision.frozen_part(), self.audio.frozen_part() if self.audio is not None else None]
        return tuple(part for part in parts if part is not None)

    def frozen_features(self, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Outputs of the frozen parts, as ``forward`` takes them."""
        return features_of(self.frozen_parts(), batch)

    def _sound(
        self, log_mel: torch.Tensor | None, has_audio: torch.Tensor | None, features: torch.Tensor | None
    ) -> torch.Tensor | None:
        if features is None and self.audio is not None and log_mel is not None and has_audio is not None:
            features = self.audio(log_mel, has_audio)
        return features

    def _visual(
        self, pixels: torch.Tensor | None, features: torch.Tensor | None, projected: torch.Tensor | None
    ) -> torch.Tensor:
        if projected is not None:
            return projected
        visual: torch.Tensor = self.vision.project(features) if features is not None else self.vision(pixels)
        return visual


def _audio_projector(size: int, language: LanguageBranch) -> nn.Sequential:
    """H_a [B,size] -> a token [B,D_lm]."""
    width = language.output_size
    return nn.Sequential(nn.LayerNorm(size), nn.Linear(size, width), nn.LayerNorm(width))


def match_token_length(network: MultimodalLLM) -> None:
    """Give the projected sound the size that the language model's own tokens have, before it is trained.

    Whisper's mean vector is some 24 long and nearly the same for all clips; projected as it is, it is a token 4.6 times
    as long as SmolLM2's, and H, which is read at its place, holds little else.
    """
    embedding: torch.Tensor = network.language.decoder.get_input_embeddings().weight
    if network.audio_projector is not None and not embedding.is_meta:
        nn.init.constant_(network.audio_projector[-1].weight, float(embedding.detach().float().std()))  # type: ignore[arg-type]
