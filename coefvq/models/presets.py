"""Sizes of every model part, as data.

``tiny`` is random and trains in seconds: for tests, demos and wiring, not for quality.
"""

from __future__ import annotations

from dataclasses import dataclass

from coefvq.errors import ModelError


@dataclass(frozen=True)
class VisionPart:
    """SigLIP-style tower: hidden size, layers, heads, patch side in pixels, side of the pooled grid."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    patch_size: int
    pooled_side: int


@dataclass(frozen=True)
class LanguagePart:
    """Qwen2-style decoder without its language-model head."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int


@dataclass(frozen=True)
class AudioPart:
    """openai-whisper AudioEncoder: state size, heads, layers."""

    n_state: int
    n_head: int
    n_layer: int
    n_mels: int = 80


@dataclass(frozen=True)
class ResNetPart:
    """transformers.ResNetConfig with basic blocks."""

    embedding_size: int
    hidden_sizes: tuple[int, ...]
    depths: tuple[int, ...]


@dataclass(frozen=True)
class TextPart:
    """XLM-R-style text tower."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int


@dataclass(frozen=True)
class Preset:
    """Every part by name; ``pretrained`` False: random weights, so all but the decoder layers train."""

    name: str
    pretrained: bool
    vision: VisionPart
    language: LanguagePart
    audio: AudioPart
    resnet: ResNetPart
    text_tower: TextPart
    vocab_size: int
    max_text_tokens: int


_TINY = Preset(
    name="tiny",
    pretrained=False,
    vision=VisionPart(64, 2, 4, 128, patch_size=16, pooled_side=2),
    language=LanguagePart(64, 2, 4, 2, 160),
    audio=AudioPart(n_state=48, n_head=4, n_layer=1),
    resnet=ResNetPart(16, (16, 32, 64), (1, 1, 1)),
    text_tower=TextPart(48, 1, 4, 96),
    vocab_size=2048,
    max_text_tokens=64,
)

PRESETS = {preset.name: preset for preset in (_TINY,)}


def get_preset(name: str) -> Preset:
    """A preset by name.

    Raises:
        ModelError: there is none of that name.
    """
    if name not in PRESETS:
        raise ModelError(f"preset {name!r}: unknown; expected one of {', '.join(sorted(PRESETS))}")
    return PRESETS[name]
