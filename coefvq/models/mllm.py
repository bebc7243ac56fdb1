"""The fused multimodal LLM of the paper: y = softmax(f_cl([H; H_a])) (section 2.1, Figure 1)."""

from __future__ import annotations

import torch
from torch import nn

from coefvq.config import Lora, MediaSpec
from coefvq.data.text import PAD, VIDEO, TextEncoder
from coefvq.models.audio import AudioBranch
from coefvq.models.language import LanguageBranch
from coefvq.models.presets import Preset
from coefvq.models.vision import VisionBranch

CLASSES = 2


class MultimodalLLM(nn.Module):
    """Vision encoder, projector, language model, audio encoder and one linear head.

    ``hears`` concatenates H and H_a (late fusion); without it the sound is left out, as in the paper's
    ICD model.
    """

    def __init__(self, preset: Preset, *, lora: Lora, hears: bool, media: MediaSpec, text: TextEncoder) -> None:
        super().__init__()
        self.vision = VisionBranch(preset.vision, media.frame_size, preset.language.hidden_size)
        self.language = LanguageBranch(preset.language, text.vocab_size, text.id_of(VIDEO), text.id_of(PAD), lora)
        self.audio = AudioBranch(preset.audio, media.audio_seconds) if hears else None
        width = self.language.output_size + (self.audio.output_size if self.audio else 0)
        self.norm = nn.LayerNorm(self.language.output_size)
        self.head = nn.Linear(width, CLASSES)
        self.visual_tokens = media.frames * self.vision.tokens_per_frame
        if not preset.pretrained and lora.rank > 0:
            # random embeddings hold nothing worth keeping frozen
            self.language.decoder.get_input_embeddings().requires_grad_(True)

    def forward(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        log_mel: torch.Tensor | None = None,
        has_audio: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """pixel_values [B,F,3,S,S], ids and mask [B,L], log_mel [B,80,T] -> logits [B,2]."""
        H = self.norm(self.language(self.vision(pixel_values), input_ids, attention_mask))
        if self.audio is not None and log_mel is not None and has_audio is not None:
            H = torch.cat([H, self.audio(log_mel, has_audio)], dim=1)
        logits: torch.Tensor = self.head(H)
        return logits
