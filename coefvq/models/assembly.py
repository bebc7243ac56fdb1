"""Presets and settings -> networks. One code path for random miniatures and published weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from coefvq.config import AttentionLayers, Lora, MediaSpec
from coefvq.errors import ModelError
from coefvq.models import pretrained
from coefvq.models.adapters import with_lora
from coefvq.models.attention_base import AttentionClassifier
from coefvq.models.audio import AudioBranch
from coefvq.models.backbones import Backbone
from coefvq.models.baselines import FrameClassifier, MultiTower, SiglipClassifier
from coefvq.models.language import LanguageBranch, Pooling, decoder_config
from coefvq.models.mllm import Fusion, MultimodalLLM, match_token_length
from coefvq.models.parts import LitePart, Preset, SiglipPart, SoundPart
from coefvq.models.precision import fixed_precision
from coefvq.models.preset_checks import check_checkpoint
from coefvq.models.towers import FrameTower, SiglipTower, TextTower
from coefvq.models.vision import (
    CnnBranch,
    SiglipBranch,
    motion_count,
    onevision_config,
    split_onevision,
    visual_tokens,
)

# standard deviation of SmolLM2's embeddings: what a new projector's tokens should look like to it
_EMBEDDING_STD = 0.13


@dataclass(frozen=True)
class TokenIds:
    """Ids a network must know of its text encoder."""

    pad: int
    video: int


@dataclass(frozen=True)
class NetworkBuilder:
    """Makes networks of one preset; with ``weights`` False nothing is loaded (random, or the meta device).

    With ``mapped`` published weights stay in their files, as ``pretrained.load_into`` says. ``dtype`` is that of a
    published LLaVA-OneVision, which is frozen; what trains is float32. It is read to ``device`` tensor by tensor, and
    taken from ``backbone`` where one is given.
    """

    preset: Preset
    media: MediaSpec
    weights: bool = True
    mapped: bool = False
    dtype: torch.dtype = torch.float32
    device: torch.device | None = None
    backbone: Backbone | None = None

    def frames(self, motion: bool = False, freeze: bool = False) -> FrameClassifier:
        """Base model that sees frames only."""
        return FrameClassifier(self._frame_tower("frames", motion, freeze))

    def multitower(
        self, ids: TokenIds, motion: bool = False, freeze: bool = False, lora: Lora | None = None
    ) -> MultiTower:
        """Base model with frame, text and audio towers; ``lora`` is that of the text tower."""
        text = self._text_tower(ids, freeze, lora)
        frames = self._frame_tower("tower_frames", motion, freeze)
        audio = self._audio("tower_audio", self.preset.tower_audio, freeze)
        return MultiTower(frames, text, audio)

    def attention(
        self,
        ids: TokenIds,
        sizes: AttentionLayers,
        hears: bool,
        motion: bool = False,
        freeze: bool = False,
        lora: Lora | None = None,
    ) -> AttentionClassifier:
        """Base model that attends to the vectors of the multi-tower's towers, with or without sound."""
        text = self._text_tower(ids, freeze, lora)
        frames = self._frame_tower("tower_frames", motion, freeze)
        audio = self._audio("tower_audio", self.preset.tower_audio, freeze) if hears else None
        images = self.media.frames + (motion_count(self.media.frames) if motion else 0)
        return AttentionClassifier(frames, text, audio, images, sizes)

    def siglip(self, ids: TokenIds, hears: bool, freeze: bool = False) -> SiglipClassifier:
        """SigLIP on frames and text, with or without sound."""
        size = self.preset.frame_size or self.media.frame_size
        tower = SiglipTower(self.preset.siglip, size, ids.pad)
        if (folder := self._folder("siglip")) is not None:
            pretrained.load_siglip(tower.encoder, folder, self._key("siglip"), self.mapped)
        audio = self._audio("tower_audio", self.preset.tower_audio, freeze) if hears else None
        if freeze:
            freeze_module(tower)
        return SiglipClassifier(tower, audio)

    def mllm(
        self,
        ids: TokenIds,
        *,
        lora: Lora,
        fusion: Fusion,
        pooling: Pooling = "last",
        motion: bool = False,
        heads: int = 1,
    ) -> MultimodalLLM:
        """The fused multimodal LLM; g and a are frozen where they are pretrained, p only if it is too.

        Rank 0 is "only the head" (paper, Table 4): all else is frozen, random parts too, but for a projector
        that has no weights yet.
        """
        part = self.preset.vision
        vision, decoder = self._onevision(part) if isinstance(part, SiglipPart) else self._cnn(part, motion)
        frozen = "audio" in self.preset.weights or lora.rank == 0
        audio = self._audio("audio", self.preset.audio, frozen) if fusion != "none" else None
        language = LanguageBranch(decoder, ids.video, lora, pooling)
        if not self.preset.weights.keys() & {"onevision", "language"} and lora.rank > 0:
            # random embeddings hold nothing worth keeping frozen
            language.decoder.get_input_embeddings().requires_grad_(True)
        tokens = visual_tokens(vision, self.media.frames)
        if lora.rank == 0:
            freeze_module(vision.tower)
        network = MultimodalLLM(vision, language, audio, fusion=fusion, visual_tokens=tokens, heads=heads)
        if not self.mapped:  # else its weights come from a file, and the embeddings would be read for nothing
            match_token_length(network)
        return network

    def _onevision(self, part: SiglipPart) -> tuple[SiglipBranch | CnnBranch, nn.Module]:
        from transformers import LlavaOnevisionModel

        folder = self._folder("onevision")
        if folder is not None:
            check_checkpoint(folder, part, self._key("vision"), "vision_config")
            check_checkpoint(folder, self.preset.language, self._key("language"), "text_config")
            read = partial(pretrained.onevision_model, folder, self._key("onevision"), self.dtype, self.device)
            model = read() if self.backbone is None else self.backbone.around(read)
        else:
            size = self.preset.frame_size or self.media.frame_size
            model = LlavaOnevisionModel(onevision_config(part, self.preset.language, size))
            if "onevision" in self.preset.weights:
                with fixed_precision(model):
                    model.to(self.dtype)
            if (apart := self._folder("vision")) is not None:
                pretrained.load_siglip_vision(model.vision_tower, part, apart, self._key("vision"), self.mapped)
            if (apart := self._folder("language")) is not None:
                pretrained.load_decoder(
                    model.language_model, self.preset.language, apart, self._key("language"), self.mapped
                )
        vision, decoder = split_onevision(model)
        if "onevision" in self.preset.weights:
            freeze_module(vision)
        elif "vision" in self.preset.weights:
            freeze_module(vision.tower)
        return vision, decoder

    def _cnn(self, part: LitePart, motion: bool) -> tuple[SiglipBranch | CnnBranch, nn.Module]:
        language = self.preset.language
        vision = CnnBranch(part, language.hidden_size, motion)
        decoder = _decoder(decoder_config(language))
        if (folder := self._folder("vision")) is not None:
            pretrained.load_frame_encoder(vision.tower, part, folder, self._key("vision"), self.mapped)
            nn.init.constant_(vision.scale, _EMBEDDING_STD)
        if (folder := self._folder("language")) is not None:
            pretrained.load_decoder(decoder, language, folder, self._key("language"), self.mapped)
        if "vision" in self.preset.weights:
            freeze_module(vision.tower)
        return vision, decoder

    def _frame_tower(self, role: Literal["frames", "tower_frames"], motion: bool, freeze: bool) -> FrameTower:
        part = self.preset.frames if role == "frames" else self.preset.tower_frames
        tower = FrameTower(part, self.preset.frame_size or self.media.frame_size, motion)
        if (folder := self._folder(role)) is not None:
            pretrained.load_frame_encoder(tower.encoder, part, folder, self._key(role), self.mapped)
        if freeze:
            freeze_module(tower)
        return tower

    def _text_tower(self, ids: TokenIds, freeze: bool, lora: Lora | None) -> TextTower:
        part = self.preset.tower_text
        tower = TextTower(part, ids.pad)
        if (folder := self._folder("tower_text")) is not None:
            pretrained.load_text_tower(tower.encoder, part, folder, self._key("tower_text"), self.mapped)
        if lora is not None and lora.rank > 0:
            tower.encoder = with_lora(tower.encoder, lora, "base.text_lora")
        elif freeze:
            freeze_module(tower)
        return tower

    def _audio(self, role: str, part: SoundPart, freeze: bool) -> AudioBranch:
        branch = AudioBranch(part, self.media.audio_seconds)
        if (folder := self._folder(role)) is not None:
            pretrained.load_sound_tower(branch.encoder, part, folder, self._key(role), self.mapped)
        if freeze:
            freeze_module(branch)
        return branch

    def _key(self, role: str) -> str:
        return f"preset {self.preset.name}: {role}"

    def _folder(self, role: str) -> Any:
        return pretrained.weights_of(self.preset, role) if self.weights else None


def freeze_module(module: nn.Module) -> None:
    """No gradients, and evaluation mode for good: a frozen BatchNorm must not follow the batches."""
    module.requires_grad_(False)
    module.eval()
    module.train = lambda mode=True: module  # type: ignore[method-assign]


def _decoder(config: Any) -> nn.Module:
    from transformers import AutoModel

    decoder: nn.Module = AutoModel.from_config(config)
    return decoder


def check_frame_size(preset: Preset, media: MediaSpec) -> None:
    """Refuse frames of another size than the preset's towers were made for.

    Raises:
        ModelError: they differ.
    """
    if preset.frame_size is not None and media.frame_size != preset.frame_size:
        raise ModelError(
            f"preset {preset.name}: its towers see {preset.frame_size} px, media.frame_size is {media.frame_size}; "
            f"set media.<issue>.frame_size: {preset.frame_size}"
        )


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
