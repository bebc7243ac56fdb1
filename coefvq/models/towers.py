"""Frame, text and image-text towers of the base models, all through transformers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from coefvq.models.efficientnet_lite import EfficientNetLite, EfficientNetLiteSizes
from coefvq.models.frozen import READS, SEES, FrozenPart, Wider, is_frozen
from coefvq.models.language import positions_of
from coefvq.models.own_towers import own_tower, own_vectors
from coefvq.models.parts import (
    FrameTowerPart,
    LitePart,
    OwnFramePart,
    OwnTextPart,
    ResNetPart,
    SiglipPair,
    SwinPart,
    TextPart,
    TextTowerPart,
)
from coefvq.models.vision import frame_count, lite_cells, lite_settings, with_motion

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class FrameTower(nn.Module):
    """A 2-D network on each frame, mean over frames (the paper's ICD baseline).

    With ``motion`` the frame differences go through the same network, and their mean is put beside.
    """

    def __init__(self, part: FrameTowerPart, frame_size: int, motion: bool = False) -> None:
        super().__init__()
        self.encoder, width = _frame_encoder(part, frame_size)
        self.lite = isinstance(part, LitePart)
        self.motion, self._part = motion, part
        self.vector_size = width
        self.output_size = width * (2 if motion else 1)
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """pixel_values [B,F,3,S,S] in [-1,1] -> [B, output_size]."""
        return self.joined(self.vectors(pixel_values))

    def vectors(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """pixel_values [B,F,3,S,S] in [-1,1] -> vectors of frames, then of motion images, [B,T,vector_size]."""
        images = with_motion(pixel_values, self.motion)
        if self.lite:
            return lite_cells(self.encoder, images, side=1)
        return self._pooled(images.flatten(0, 1)).reshape(*images.shape[:2], self.vector_size)

    def joined(self, vectors: torch.Tensor) -> torch.Tensor:
        """Vectors [B,T,vector_size] -> their mean, with motion that of frames beside that of motion images."""
        if not self.motion:
            return vectors.mean(dim=1)
        frames = frame_count(vectors.shape[1])
        return torch.cat([vectors[:, :frames].mean(dim=1), vectors[:, frames:].mean(dim=1)], dim=1)

    def _pooled(self, images: torch.Tensor) -> torch.Tensor:
        """Of transformers' networks and own ones: images [N,3,S,S] in [-1,1] -> [N,vector_size]."""
        if isinstance(self._part, OwnFramePart):
            return own_vectors(self._part, self.encoder, images)
        scaled = (((images + 1.0) / 2.0 - self.mean) / self.std).to(images.dtype)
        pooled: torch.Tensor = self.encoder(scaled).pooler_output
        return pooled.flatten(1)

    def frozen_part(self) -> FrozenPart | None:
        """``vision_features`` [B,T,vector_size], as an MLLM with the same tower has them, where it does not train."""
        if not is_frozen(self):
            return None
        wider = None if self.motion else Wider(self._settings(True), 1)
        return FrozenPart("vision_features", SEES, self.vectors, (self.encoder,), self._settings(self.motion), wider)

    def _settings(self, motion: bool) -> dict[str, Any]:
        kind = {"kind": type(self._part).__name__, "vectors": True, "motion": motion, **asdict(self._part)}
        return lite_settings(1, motion) if self.lite else kind


def _frame_encoder(part: FrameTowerPart, frame_size: int) -> tuple[Any, int]:
    # each network is imported where it is made: transformers has a module for each
    if isinstance(part, OwnFramePart):
        return own_tower(part, frame_size=frame_size), part.width
    if isinstance(part, LitePart):
        network = EfficientNetLite(EfficientNetLiteSizes(part.width, part.depth))
        return network, network.output_size
    if isinstance(part, ResNetPart):
        from transformers import ResNetConfig, ResNetModel

        config = ResNetConfig(
            embedding_size=part.embedding_size,
            hidden_sizes=list(part.hidden_sizes),
            depths=list(part.depths),
            layer_type=part.layer_type,
        )
        return ResNetModel(config), part.hidden_sizes[-1]
    from transformers import SwinConfig, SwinModel

    return SwinModel(_swin_config(SwinConfig, part, frame_size)), part.embed_dim * 2 ** (len(part.depths) - 1)


def _swin_config(kind: Any, part: SwinPart, frame_size: int) -> Any:
    return kind(
        image_size=frame_size,
        embed_dim=part.embed_dim,
        depths=list(part.depths),
        num_heads=list(part.num_heads),
        window_size=part.window_size,
    )


class TextTower(nn.Module):
    """XLM-R or e5, mean over real tokens; or a tower of another package, which gives one vector itself."""

    def __init__(self, part: TextTowerPart, pad_token: int) -> None:
        super().__init__()
        self._part = part
        self.encoder: Any
        if isinstance(part, OwnTextPart):
            self.encoder = own_tower(part, vocab_size=part.vocab_size, pad_token=pad_token)
            self.output_size = part.width
        else:
            self.encoder, self.output_size = _text_encoder(part, pad_token), part.hidden_size

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """input_ids and attention_mask [B,L] -> [B,D]."""
        if isinstance(self._part, OwnTextPart):
            return own_vectors(self._part, self.encoder, input_ids, attention_mask)
        # RoBERTa counts positions from the padding itself; BERT must be told
        positions = {"position_ids": positions_of(attention_mask)} if self._part.model_type == "bert" else {}
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **positions).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        pooled: torch.Tensor = (states * mask).sum(dim=1) / mask.sum(dim=1)
        return pooled

    def frozen_part(self) -> FrozenPart | None:
        """``text_features`` [B,D], where the tower does not train."""
        if not is_frozen(self):
            return None
        return FrozenPart("text_features", READS, self, (self,), {"kind": "text", **asdict(self._part)})


def _text_encoder(part: TextPart, pad_token: int) -> Any:
    sizes = {
        "vocab_size": part.vocab_size,
        "hidden_size": part.hidden_size,
        "num_hidden_layers": part.num_hidden_layers,
        "num_attention_heads": part.num_attention_heads,
        "intermediate_size": part.intermediate_size,
        "max_position_embeddings": part.max_position_embeddings,
        "pad_token_id": pad_token,
    }
    if part.model_type == "bert":
        from transformers import BertConfig, BertModel

        return BertModel(BertConfig(**sizes), add_pooling_layer=False)
    from transformers import XLMRobertaConfig, XLMRobertaModel

    return XLMRobertaModel(XLMRobertaConfig(**sizes, type_vocab_size=1), add_pooling_layer=False)


class SiglipTower(nn.Module):
    """SigLIP's pooled image features (mean over frames) beside its pooled text features."""

    def __init__(self, part: SiglipPair, frame_size: int, pad_token: int) -> None:
        from transformers import SiglipConfig, SiglipModel

        super().__init__()
        vision = part.vision
        config = SiglipConfig(
            vision_config={
                "hidden_size": vision.hidden_size,
                "num_hidden_layers": vision.num_hidden_layers,
                "num_attention_heads": vision.num_attention_heads,
                "intermediate_size": vision.intermediate_size,
                "patch_size": vision.patch_size,
                "image_size": frame_size,
            },
            text_config={
                "hidden_size": part.text_hidden_size,
                "num_hidden_layers": part.text_layers,
                "num_attention_heads": part.text_heads,
                "intermediate_size": part.text_intermediate_size,
                "vocab_size": part.vocab_size,
                "max_position_embeddings": part.text_positions,
                "projection_size": vision.hidden_size,
                "pad_token_id": pad_token,
                "bos_token_id": pad_token,
                "eos_token_id": pad_token,
            },
        )
        self.encoder = SiglipModel(config)
        self.pad_token, self.positions = pad_token, part.text_positions
        self._part = part
        self.output_size = 2 * vision.hidden_size

    def forward(
        self, pixel_values: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> torch.Tensor:
        """pixel_values [B,F,3,S,S] in [-1,1], ids and mask [B,L] -> [B, 2*D]."""
        return torch.cat([self.see(pixel_values), self.read(input_ids, attention_mask)], dim=1)

    def see(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """pixel_values [B,F,3,S,S] in [-1,1] -> [B,D], mean over frames."""
        pooled = self.encoder.vision_model(pixel_values=pixel_values.flatten(0, 1)).pooler_output
        images: torch.Tensor = pooled.unflatten(0, pixel_values.shape[:2]).mean(dim=1)
        return images

    def read(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """ids and mask [B,L] -> [B,D]."""
        ids = right_padded(input_ids, attention_mask, self.positions, self.pad_token)
        pooled: torch.Tensor = self.encoder.text_model(input_ids=ids).pooler_output
        return pooled

    def frozen_parts(self) -> tuple[FrozenPart, ...]:
        """``frame_features`` and ``text_features`` [B,D] of the two halves, where they do not train."""
        seeing, reading = self.encoder.vision_model, self.encoder.text_model
        settings = {"kind": "siglip-pair", "positions": self.positions, "pad": self.pad_token, **asdict(self._part)}
        parts = [
            FrozenPart("frame_features", SEES, self.see, (seeing,), settings),
            FrozenPart("text_features", READS, self.read, (reading,), settings),
        ]
        return tuple(part for part in parts if is_frozen(*part.modules))


def right_padded(input_ids: torch.Tensor, attention_mask: torch.Tensor, length: int, pad: int) -> torch.Tensor:
    """Left-padded ids [B,L] -> right-padded to ``length`` [B,length]: SigLIP was trained so, without a mask."""
    rows = input_ids.new_full((input_ids.shape[0], length), pad)
    for row, ids, mask in zip(rows, input_ids, attention_mask.bool(), strict=True):
        own_ids = ids[mask][:length]
        row[: own_ids.numel()] = own_ids
    return rows
