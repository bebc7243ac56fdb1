"""The vision encoder g and the projector p of the MLLM (paper, section 2.1): SigLIP, or a CNN's feature grid."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from coefvq.models.efficientnet_lite import EfficientNetLite, EfficientNetLiteSizes
from coefvq.models.frozen import SEES, FrozenPart, Wider, is_frozen
from coefvq.models.parts import LanguagePart, LitePart, SiglipPart

# of SiglipVisionConfig: what the weights' shapes do not tell
_SIGLIP_SETTINGS = ("num_attention_heads", "image_size", "patch_size", "hidden_act", "layer_norm_eps")


class SiglipBranch(nn.Module):
    """Z_f = g(X_f) and H_f = p(Z_f) by transformers' own LLaVA-OneVision, without its language model.

    Per frame the patch grid is projected and pooled to half its side (27 x 27 -> 14 x 14 = 196 tokens at 384
    pixels); one ``image_newline`` token ends the video.
    """

    def __init__(self, onevision: nn.Module) -> None:
        super().__init__()
        self.onevision: Any = onevision
        vision: Any = onevision.config.vision_config  # type: ignore[union-attr]
        self.tokens_per_frame = ((vision.image_size // vision.patch_size + 1) // 2) ** 2
        self.extra_tokens = 1

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """pixel_values [B,F,3,S,S] in [-1,1] -> H_f [B, F*tokens_per_frame + 1, D_lm]."""
        tokens: torch.Tensor = self.onevision.get_video_features(pixel_values, return_dict=True).pooler_output
        return tokens

    def encode(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """pixel_values [B,F,3,S,S] -> Z_f [B, F, patches, D_v], the layer that the projector reads."""
        config = self.onevision.config
        frames = pixel_values.flatten(0, 1)
        states = self.onevision.vision_tower(frames, output_hidden_states=True, return_dict=True).hidden_states
        layers = config.vision_feature_layer
        chosen = [states[layer] for layer in ([layers] if isinstance(layers, int) else layers)]
        features = torch.cat(chosen, dim=-1)
        if config.vision_feature_select_strategy == "default":
            features = features[:, 1:]
        return features.reshape(*pixel_values.shape[:2], *features.shape[1:])

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """Z_f [B, F, patches, D_v] -> H_f [B, F*tokens_per_frame + 1, D_lm], as ``forward`` gives it."""
        newline = self.onevision.image_newline
        # kept features may have another precision than the model that scores with them
        projected = self.onevision.multi_modal_projector(features.to(newline.dtype).flatten(0, 1))
        pooled = self.onevision.apply_pooling(projected)
        tokens = pooled.reshape(features.shape[0], -1, pooled.shape[-1])
        last = newline[None, None, :].expand(features.shape[0], 1, -1)
        return torch.cat([tokens, last.to(tokens.dtype)], dim=1)

    def frozen_part(self) -> FrozenPart | None:
        """``projected_features`` H_f or ``vision_features`` Z_f, whichever is smaller and still exact."""
        if not is_frozen(self.tower):
            return None
        settings = {"kind": "siglip", "layer": self.onevision.config.vision_feature_layer}
        settings |= {name: getattr(self.onevision.config.vision_config, name) for name in _SIGLIP_SETTINGS}
        if is_frozen(self.projector, self.onevision.image_newline) and self._projected_is_smaller():
            modules = (self.tower, self.projector, self.onevision.image_newline)
            return FrozenPart("projected_features", SEES, self, modules, settings)
        return FrozenPart("vision_features", SEES, self.encode, (self.tower,), settings)

    def _projected_is_smaller(self) -> bool:
        config = self.onevision.config
        patches = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
        width, seen_width = int(config.text_config.hidden_size), int(config.vision_config.hidden_size)
        return bool(self.tokens_per_frame * width <= patches * seen_width)

    @property
    def tower(self) -> nn.Module:
        """g."""
        tower: nn.Module = self.onevision.vision_tower
        return tower

    @property
    def projector(self) -> nn.Module:
        """p."""
        projector: nn.Module = self.onevision.multi_modal_projector
        return projector


class CnnBranch(nn.Module):
    """g = EfficientNet-Lite's grid, averaged to ``pooled_side`` squared cells; p = 2-layer MLP with GELU.

    ``motion`` adds tokens of frame differences seen by the same tower (``motion_images``).
    """

    def __init__(self, part: LitePart, output_size: int, motion: bool = False) -> None:
        super().__init__()
        self.tower = EfficientNetLite(EfficientNetLiteSizes(part.width, part.depth))
        self.projector = nn.Sequential(
            nn.LayerNorm(self.tower.output_size),
            nn.Linear(self.tower.output_size, output_size),
            nn.GELU(),
            nn.Linear(output_size, output_size),
            # fresh weights give tokens a fifth as long as the scale below says
            nn.LayerNorm(output_size, elementwise_affine=False),
        )
        # a new projector's output should start at the size of the language model's own embeddings
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.output_size, self.pooled_side = output_size, part.pooled_side
        self.motion = motion
        self.tokens_per_frame = part.pooled_side**2
        self.extra_tokens = 0

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """pixel_values [B,F,3,S,S] in [-1,1] -> H_f [B, images*tokens_per_frame, D_lm]."""
        return self.project(self.encode(pixel_values))

    def encode(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """pixel_values [B,F,3,S,S] -> Z_f [B, images*tokens_per_frame, D_v], the pooled cells."""
        pixels = pixel_values.to(self.scale.dtype)
        return lite_cells(self.tower, with_motion(pixels, self.motion), self.pooled_side)

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """Z_f [B, T_v, D_v] -> H_f [B, T_v, D_lm]."""
        projected: torch.Tensor = self.projector(features.to(self.scale.dtype)) * self.scale
        return projected

    def frozen_part(self) -> FrozenPart | None:
        """``vision_features`` Z_f, or ``projected_features`` H_f where p is frozen too and that is smaller."""
        if not is_frozen(self.tower):
            return None
        settings = lite_settings(self.pooled_side, self.motion)
        wider = None if self.motion else Wider(lite_settings(self.pooled_side, True), self.tokens_per_frame)
        if is_frozen(self.projector, self.scale) and self.output_size < self.tower.output_size:
            modules = (self.tower, self.projector, self.scale)
            return FrozenPart("projected_features", SEES, self, modules, settings, wider)
        return FrozenPart("vision_features", SEES, self.encode, (self.tower,), settings, wider)


def lite_cells(tower: nn.Module, images: torch.Tensor, side: int) -> torch.Tensor:
    """images [B,T,3,S,S] in [-1,1] -> EfficientNet-Lite's grid averaged to ``side`` squared cells, [B,T*side**2,D]."""
    batch, count = images.shape[:2]
    pooled = nn.functional.adaptive_avg_pool2d(tower(lite_input(images.flatten(0, 1))), side)
    cells: torch.Tensor = pooled.flatten(2).transpose(1, 2).reshape(batch, count * side**2, -1)
    return cells


def lite_settings(side: int, motion: bool) -> dict[str, Any]:
    """What decides ``lite_cells`` beside the weights: equal in a base model and an MLLM, they share a cache entry."""
    return {"kind": "efficientnet-lite", "pooled_side": side, "motion": motion}


def lite_input(pixel_values: torch.Tensor) -> torch.Tensor:
    """SigLIP's scale (x / 127.5 - 1) -> EfficientNet-Lite's ((x - 127) / 128)."""
    return (pixel_values * 127.5 + 0.5) / 128.0


def with_motion(pixel_values: torch.Tensor, motion: bool) -> torch.Tensor:
    """Frames [B,F,3,S,S], followed by their ``motion_images`` where ``motion`` is on."""
    return torch.cat([pixel_values, motion_images(pixel_values)], dim=1) if motion else pixel_values


def motion_images(pixel_values: torch.Tensor) -> torch.Tensor:
    """Three consecutive differences of grey frames as one colour image, [B,F,3,S,S] -> [B,M,3,S,S].

    M = ceil((F - 1) / 3), at least 1; the last triple is aligned to the last frame. The gain of 3 makes small
    motion visible; no motion is mid-grey (0). A single frame has no motion.
    """
    grey = pixel_values.mean(dim=2)
    change = (grey.diff(dim=1) if grey.shape[1] > 1 else torch.zeros_like(grey)) * 3.0
    steps = change.shape[1]
    count = motion_count(pixel_values.shape[1])
    starts = [min(3 * i, max(steps - 3, 0)) for i in range(count)]
    picked = [[min(start + k, steps - 1) for k in range(3)] for start in starts]
    return change[:, torch.tensor(picked, device=change.device)].clamp(-1.0, 1.0)


def motion_count(frames: int) -> int:
    """How many motion images ``frames`` frames give."""
    return max(-(-(frames - 1) // 3), 1)


def frame_count(images: int) -> int:
    """How many of so many images are frames, where their motion images follow them."""
    return next(frames for frames in range(images) if frames + motion_count(frames) == images)


def visual_tokens(branch: SiglipBranch | CnnBranch, frames: int) -> int:
    """T_v: visual tokens of one video."""
    images = frames + (motion_count(frames) if isinstance(branch, CnnBranch) and branch.motion else 0)
    return images * branch.tokens_per_frame + branch.extra_tokens


def onevision_config(vision: SiglipPart, language: LanguagePart, frame_size: int) -> Any:
    """transformers.LlavaOnevisionConfig of these sizes."""
    from transformers import LlavaOnevisionConfig, SiglipVisionConfig

    from coefvq.models.language import decoder_config

    return LlavaOnevisionConfig(
        text_config=decoder_config(language),
        vision_config=SiglipVisionConfig(
            hidden_size=vision.hidden_size,
            num_hidden_layers=vision.num_hidden_layers,
            num_attention_heads=vision.num_attention_heads,
            intermediate_size=vision.intermediate_size,
            image_size=frame_size,
            patch_size=vision.patch_size,
            vision_use_head=False,
        ),
    )


def split_onevision(model: Any) -> tuple[SiglipBranch, nn.Module]:
    """A ``LlavaOnevisionModel`` -> its seeing part and its decoder."""
    decoder: nn.Module = model.language_model
    model.language_model = nn.Identity()
    return SiglipBranch(model), decoder
