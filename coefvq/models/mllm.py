"""The fused multimodal LLM of the paper: y = softmax(f_cl([H; H_a])) (section 2.1, Figure 1)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from coefvq.models.audio import AudioBranch
from coefvq.models.language import LanguageBranch
from coefvq.models.vision import CnnBranch, SiglipBranch

CLASSES = 2
Fusion = Literal["late", "early", "none"]


class MultimodalLLM(nn.Module):
    """Vision encoder, projector, language model, audio encoder and a linear head per issue.

    ``fusion`` says what becomes of the sound: ``late`` concatenates H and H_a, ``early`` makes the projected
    H_a the final input token (paper, Table 3), ``none`` leaves it out, as in the paper's ICD model.
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
        self.audio_projector = nn.Linear(audio.output_size, width) if audio is not None and fusion == "early" else None
        if audio is not None and fusion == "late":
            width += audio.output_size
        self.head = nn.Linear(width, CLASSES * heads)

    def hidden(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        sound: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """H, the hidden state of the final token: [B, D_lm]; ``sound`` is H_a [B, D_a] where fusion is early."""
        last = self.audio_projector(sound).unsqueeze(1) if self.audio_projector and sound is not None else None
        hidden: torch.Tensor = self.language(self.vision(pixel_values), input_ids, attention_mask, last)
        return hidden

    def forward(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        log_mel: torch.Tensor | None = None,
        has_audio: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """pixel_values [B,F,3,S,S], ids and mask [B,L], log_mel [B,80,T] -> logits [B,2], or [B,K,2] of K issues."""
        sound = None
        if self.audio is not None and log_mel is not None and has_audio is not None:
            sound = self.audio(log_mel, has_audio)
        H = self.norm(self.hidden(pixel_values, input_ids, attention_mask, sound).to(self.norm.weight.dtype))
        if self.fusion == "late" and sound is not None:
            H = torch.cat([H, sound.to(H.dtype)], dim=1)
        logits: torch.Tensor = self.head(H)
        return logits if self.heads == 1 else logits.view(-1, self.heads, CLASSES)
