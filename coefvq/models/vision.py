"""The vision encoder g and the projector p of the MLLM, and the frame tower of the baselines."""

from __future__ import annotations

import torch
from torch import nn

from coefvq.models.presets import ResNetPart, VisionPart


class VisionBranch(nn.Module):
    """Z_f = g(X_f), pooled to a small grid, then H_f = p(Z_f) (paper, section 2.1).

    g is a SigLIP tower without its pooling head; the patch grid is reduced bilinearly after the
    projector, as LLaVA-OneVision does for video; p is a 2-layer MLP with GELU.
    """

    def __init__(self, part: VisionPart, frame_size: int, output_size: int) -> None:
        from transformers import SiglipVisionConfig, SiglipVisionModel

        super().__init__()
        self.tower = SiglipVisionModel(
            SiglipVisionConfig(
                hidden_size=part.hidden_size,
                num_hidden_layers=part.num_hidden_layers,
                num_attention_heads=part.num_attention_heads,
                intermediate_size=part.intermediate_size,
                image_size=frame_size,
                patch_size=part.patch_size,
                vision_use_head=False,
            )
        )
        self.projector = nn.Sequential(
            nn.Linear(part.hidden_size, output_size), nn.GELU(), nn.Linear(output_size, output_size)
        )
        self.grid_side = frame_size // part.patch_size
        self.pooled_side = min(part.pooled_side, self.grid_side)
        self.tokens_per_frame = self.pooled_side**2

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """pixel_values [B,F,3,S,S] -> H_f [B, F*tokens_per_frame, D_lm]."""
        batch, frames = pixel_values.shape[:2]
        patches = self.tower(pixel_values.flatten(0, 1)).last_hidden_state
        projected = self.projector(patches)
        grid = projected.transpose(1, 2).unflatten(2, (self.grid_side, self.grid_side))
        pooled = nn.functional.interpolate(grid, size=(self.pooled_side,) * 2, mode="bilinear")
        return pooled.flatten(2).transpose(1, 2).reshape(batch, frames * self.tokens_per_frame, -1)


class FrameTower(nn.Module):
    """ResNet on each frame, mean over frames (the paper's ICD baseline)."""

    def __init__(self, part: ResNetPart) -> None:
        from transformers import ResNetConfig, ResNetModel

        super().__init__()
        self.resnet = ResNetModel(
            ResNetConfig(
                embedding_size=part.embedding_size,
                hidden_sizes=list(part.hidden_sizes),
                depths=list(part.depths),
                layer_type="basic",
            )
        )
        self.output_size = part.hidden_sizes[-1]

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """pixel_values [B,F,3,S,S] -> [B, D]."""
        batch, frames = pixel_values.shape[:2]
        pooled = self.resnet(pixel_values.flatten(0, 1)).pooler_output.flatten(1)
        features: torch.Tensor = pooled.unflatten(0, (batch, frames)).mean(dim=1)
        return features
