"""Every model part of every preset, as data: sizes, where weights come from, what they weigh.

``tiny``            random, seconds: tests, demos and wiring, not quality
``starter``         small pretrained parts that the package index carries; trains on two CPU cores
``onevision-0.5b``  LLaVA-OneVision 0.5B and Whisper-small from the model hub
``paper``           the models of the paper (section 3.1.2 and Table 1) from the model hub

Sizes of ``paper`` and ``onevision-0.5b`` are those of the published checkpoints' config.json, so that a model
can be counted and planned on the meta device without any download.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from coefvq.data.tokens import SpecialTokens
from coefvq.errors import ModelError


@dataclass(frozen=True)
class SiglipPart:
    """SigLIP vision tower; a patch grid of side s is pooled to ceil(s / 2) by LLaVA-OneVision."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    patch_size: int


@dataclass(frozen=True)
class LitePart:
    """EfficientNet-Lite: width and depth multipliers; the MLLM sees a grid of ``pooled_side`` squared tokens."""

    width: float
    depth: float
    pooled_side: int = 1


@dataclass(frozen=True)
class ResNetPart:
    """transformers.ResNetConfig."""

    embedding_size: int
    hidden_sizes: tuple[int, ...]
    depths: tuple[int, ...]
    layer_type: Literal["basic", "bottleneck"] = "basic"


@dataclass(frozen=True)
class SwinPart:
    """transformers.SwinConfig."""

    embed_dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window_size: int


@dataclass(frozen=True)
class LanguagePart:
    """A decoder of transformers without its language-model head.

    ``layers_used`` cuts the upper layers off; ``tied_head`` says that the published head is the embedding.
    """

    model_type: Literal["qwen2", "llama"]
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    vocab_size: int
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-6
    layers_used: int | None = None
    tied_head: bool = True
    tokens: SpecialTokens = field(default_factory=SpecialTokens)


@dataclass(frozen=True)
class AudioPart:
    """openai-whisper AudioEncoder: state size, heads, layers."""

    n_state: int
    n_head: int
    n_layer: int
    n_mels: int = 80


@dataclass(frozen=True)
class TextPart:
    """Text tower of the baseline: XLM-R, or e5 (a BERT with XLM-R's vocabulary)."""

    model_type: Literal["xlm-roberta", "bert"]
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    vocab_size: int
    max_position_embeddings: int
    tokens: SpecialTokens = field(default_factory=SpecialTokens)


@dataclass(frozen=True)
class SiglipPair:
    """SigLIP with both towers, as the baseline "industry as usual" of Table 1."""

    vision: SiglipPart
    text_hidden_size: int
    text_layers: int
    text_heads: int
    text_intermediate_size: int
    vocab_size: int
    text_positions: int = 64
    tokens: SpecialTokens = field(default_factory=SpecialTokens)


FrameTowerPart = ResNetPart | SwinPart | LitePart


@dataclass(frozen=True)
class Preset:
    """Parts by role; ``weights`` names for each pretrained role its source (a hub repository or weights.sources).

    ``frame_size`` is what the towers were trained on (None: any). Roles of ``weights``: onevision (vision,
    projector and language in one checkpoint), vision, language, audio, frames, tower_frames, tower_text,
    tower_audio, siglip. A role that is not named starts random.
    """

    name: str
    summary: str
    vision: SiglipPart | LitePart
    language: LanguagePart
    audio: AudioPart
    frames: FrameTowerPart
    tower_frames: FrameTowerPart
    tower_text: TextPart
    tower_audio: AudioPart
    siglip: SiglipPair
    max_text_tokens: int
    frame_size: int | None = None
    weights: dict[str, str] = field(default_factory=dict)
    licence: str = ""

    @property
    def pretrained(self) -> bool:
        """Whether parts come with weights; a random preset trains all but the decoder's layers."""
        return bool(self.weights)


_TINY_FRAMES = ResNetPart(16, (16, 32, 64), (1, 1, 1))
_TINY_SIGLIP = SiglipPart(64, 2, 4, 128, patch_size=16)
_TINY = Preset(
    name="tiny",
    summary="random miniature of every part, for tests and demos",
    vision=_TINY_SIGLIP,
    language=LanguagePart("qwen2", 64, 2, 4, 2, 160, vocab_size=2048),
    audio=AudioPart(n_state=48, n_head=4, n_layer=1),
    frames=_TINY_FRAMES,
    tower_frames=_TINY_FRAMES,
    tower_text=TextPart("xlm-roberta", 48, 1, 4, 96, vocab_size=2048, max_position_embeddings=72),
    tower_audio=AudioPart(n_state=48, n_head=4, n_layer=1),
    siglip=SiglipPair(_TINY_SIGLIP, 64, 2, 4, 128, vocab_size=2048, text_positions=72),
    max_text_tokens=64,
    licence="none needed",
)

_LITE2 = LitePart(1.1, 1.2)
_WHISPER_BASE = AudioPart(n_state=512, n_head=8, n_layer=6)
_WHISPER_SMALL = AudioPart(n_state=768, n_head=12, n_layer=12)
_XLMR_TOKENS = SpecialTokens(pad="<pad>", video="<mask>", end="</s>", start="<s>")
_XLMR_BASE = TextPart("xlm-roberta", 768, 12, 12, 3072, 250_002, 514, tokens=_XLMR_TOKENS)
_E5_SMALL = TextPart(
    "bert",
    384,
    12,
    12,
    1536,
    250_037,
    512,
    tokens=SpecialTokens(pad="<pad>", video="<unk>", end="</s>", start="<s>", prompt="query: "),
)
_SIGLIP_LARGE = SiglipPair(
    SiglipPart(1024, 24, 16, 4096, patch_size=16),
    text_hidden_size=1024,
    text_layers=24,
    text_heads=16,
    text_intermediate_size=4096,
    vocab_size=32_000,
    tokens=SpecialTokens(pad="</s>", video="<unk>", end="</s>"),
)

_STARTER = Preset(
    name="starter",
    summary="EfficientNet-Lite2 grid, SmolLM2-135M (first 4 layers), Whisper-base; base with e5-small",
    vision=_LITE2,
    language=LanguagePart(
        "llama",
        576,
        30,
        9,
        3,
        1536,
        vocab_size=49_152,
        rope_theta=100_000.0,
        rms_norm_eps=1e-5,
        layers_used=4,
        tokens=SpecialTokens(pad="<|endoftext|>", video="<repo_name>", end="<|im_end|>"),
    ),
    audio=_WHISPER_BASE,
    frames=_LITE2,
    tower_frames=_LITE2,
    tower_text=_E5_SMALL,
    tower_audio=_WHISPER_BASE,
    siglip=_TINY.siglip,
    max_text_tokens=64,
    weights={
        "vision": "efficientnet-lite2",
        "language": "smollm2-135m",
        "audio": "whisper-base-encoder",
        "frames": "efficientnet-lite2",
        "tower_frames": "efficientnet-lite2",
        "tower_text": "multilingual-e5-small",
        "tower_audio": "whisper-base-encoder",
    },
    licence="Apache-2.0 and MIT",
)

_SO400M = SiglipPart(1152, 26, 16, 4304, patch_size=14)
_QWEN_TOKENS = SpecialTokens(pad="<|endoftext|>", video="<video>", end="<|im_end|>")
_PAPER_PARTS = {
    "audio": "hub:openai/whisper-small",
    "frames": "hub:microsoft/resnet-50",
    "tower_frames": "hub:microsoft/swin-large-patch4-window12-384-in22k",
    "tower_text": "hub:FacebookAI/xlm-roberta-base",
    "tower_audio": "hub:openai/whisper-base",
    "siglip": "hub:google/siglip-large-patch16-384",
}
_RESNET50 = ResNetPart(64, (256, 512, 1024, 2048), (3, 4, 6, 3), "bottleneck")
_SWIN_LARGE = SwinPart(192, (2, 2, 18, 2), (6, 12, 24, 48), window_size=12)

_PAPER = Preset(
    name="paper",
    summary="LLaVA-OneVision-7B with Whisper-small; ResNet-50; Swin-L, XLM-R and Whisper-base; SigLIP-L",
    vision=_SO400M,
    language=LanguagePart(
        "qwen2",
        3584,
        28,
        28,
        4,
        18_944,
        vocab_size=152_128,
        rope_theta=1_000_000.0,
        tied_head=False,
        tokens=_QWEN_TOKENS,
    ),
    audio=_WHISPER_SMALL,
    frames=_RESNET50,
    tower_frames=_SWIN_LARGE,
    tower_text=_XLMR_BASE,
    tower_audio=_WHISPER_BASE,
    siglip=_SIGLIP_LARGE,
    max_text_tokens=512,
    frame_size=384,
    weights={
        "onevision": "hub:llava-hf/llava-onevision-qwen2-7b-ov-hf",
        **_PAPER_PARTS,
    },
    licence="Apache-2.0 (LLaVA-OneVision, Qwen2, SigLIP, ResNet, Swin), MIT (Whisper, XLM-R)",
)

_ONEVISION_HALF = Preset(
    name="onevision-0.5b",
    summary="LLaVA-OneVision-0.5B with Whisper-small; the baselines of the paper",
    vision=_SO400M,
    language=LanguagePart(
        "qwen2", 896, 24, 14, 2, 4864, vocab_size=152_000, rope_theta=1_000_000.0, tokens=_QWEN_TOKENS
    ),
    audio=_WHISPER_SMALL,
    frames=_RESNET50,
    tower_frames=_SWIN_LARGE,
    tower_text=_XLMR_BASE,
    tower_audio=_WHISPER_BASE,
    siglip=_SIGLIP_LARGE,
    max_text_tokens=512,
    frame_size=384,
    weights={
        "onevision": "hub:llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
        **_PAPER_PARTS,
    },
    licence=_PAPER.licence,
)

PRESETS = {preset.name: preset for preset in (_TINY, _STARTER, _ONEVISION_HALF, _PAPER)}


def get_preset(name: str) -> Preset:
    """A preset by name.

    Raises:
        ModelError: there is none of that name.
    """
    if name not in PRESETS:
        raise ModelError(f"preset {name!r}: unknown; expected one of {', '.join(sorted(PRESETS))}")
    return PRESETS[name]
