"""Count parameters on the meta device: no memory, no download, the real classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from coefvq.config import AttentionLayers, Lora, MediaSpec
from coefvq.models.assembly import NetworkBuilder, TokenIds
from coefvq.models.mllm import Fusion, MultimodalLLM
from coefvq.models.parts import Preset

_IDS = TokenIds(pad=0, video=1)
_ATTENTION = AttentionLayers(width=192, heads=4, layers=1, dropout=0.0, feature_noise=0.0)  # of recipe starter


@dataclass(frozen=True)
class Counted:
    """One network's parameters: by part, those that train, and those of the lm_head, which is not built."""

    parts: dict[str, int]
    trainable: int
    left_out_lm_head: int = 0

    @property
    def total(self) -> int:
        """All parameters of the network as it is built."""
        return sum(self.parts.values())


def count_base(preset: Preset, architecture: str, media: MediaSpec, *, audio: bool = True) -> Counted:
    """Parameters of a base model: ``frames``, ``multitower``, ``siglip``, or ``attention`` as recipe starter has it."""
    make = NetworkBuilder(preset, media, weights=False)
    with torch.device("meta"):
        network: nn.Module
        if architecture == "frames":
            network = make.frames()
        elif architecture == "multitower":
            network = make.multitower(_IDS)
        elif architecture == "attention":
            network = make.attention(_IDS, _ATTENTION, audio)
        else:
            network = make.siglip(_IDS, hears=audio)
    parts = _parts(network)
    if architecture == "attention":
        towers = {name: parts.get(name, 0) for name in ("frames", "text", "audio")}
        parts = {**towers, "head": _size(network) - sum(towers.values())}
    return Counted(parts, _trainable(network))


def meta_mllm(preset: Preset, media: MediaSpec, lora: Lora, fusion: Fusion) -> MultimodalLLM:
    """The MLLM on the meta device: sizes without values."""
    make = NetworkBuilder(preset, media, weights=False)
    with torch.device("meta"):
        return make.mllm(_IDS, lora=lora, fusion=fusion)


def count_mllm(network: MultimodalLLM, preset: Preset) -> Counted:
    """Parameters of the MLLM by vision encoder, projector, language model, LoRA, audio encoder and head."""
    vision, language = network.vision, network.language
    adapter = sum(p.numel() for name, p in language.named_parameters() if "lora_" in name)
    parts = {
        "vision encoder": _size(vision.tower),
        "projector": _size(vision) - _size(vision.tower),
        "language model": _size(language) - adapter,
        "LoRA": adapter,
        "audio encoder": _size(network.audio) if network.audio is not None else 0,
    }
    parts["head"] = _size(network) - sum(parts.values())
    head = 0 if preset.language.tied_head else preset.language.vocab_size * preset.language.hidden_size
    return Counted(parts, _trainable(network), head)


def _parts(network: nn.Module) -> dict[str, int]:
    return {name: _size(module) for name, module in network.named_children()}


def _size(module: nn.Module | torch.Tensor) -> int:
    return sum(parameter.numel() for parameter in module.parameters()) if isinstance(module, nn.Module) else 0


def _trainable(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
