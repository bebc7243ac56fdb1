"""Parts of a model as values: sizes, and where weights come from. ``models/presets.py`` reads them from YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, with_config

from coefvq.models.tokens import SpecialTokens
from coefvq.models.weights.sources import Source

Size = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0.0)]
# how the reader of YAML checks a part; the values themselves are plain dataclasses
_checked = with_config(ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))


@_checked
@dataclass(frozen=True)
class SiglipPart:
    """SigLIP vision tower; a patch grid of side s is pooled to ceil(s / 2) by LLaVA-OneVision."""

    hidden_size: Size
    num_hidden_layers: Size
    num_attention_heads: Size
    intermediate_size: Size
    patch_size: Size


@_checked
@dataclass(frozen=True)
class LitePart:
    """EfficientNet-Lite: width and depth multipliers; the MLLM sees a grid of ``pooled_side`` squared tokens."""

    width: Positive
    depth: Positive
    pooled_side: Size = 1


@_checked
@dataclass(frozen=True)
class ResNetPart:
    """transformers.ResNetConfig."""

    embedding_size: Size
    hidden_sizes: tuple[Size, ...]
    depths: tuple[Size, ...]
    layer_type: Literal["basic", "bottleneck"] = "basic"


@_checked
@dataclass(frozen=True)
class SwinPart:
    """transformers.SwinConfig."""

    embed_dim: Size
    depths: tuple[Size, ...]
    num_heads: tuple[Size, ...]
    window_size: Size


@_checked
@dataclass(frozen=True)
class OwnFramePart:
    """A frame tower of another package, by its name in ``coefvq.frame_towers``; ``width`` is the size of its vectors.

    It is called with ``frame_size`` and ``options``, and returns a module: images [N,3,S,S] in [-1,1] -> [N,width].
    """

    name: Annotated[str, Field(min_length=1)]
    width: Size
    options: dict[str, Any] = field(default_factory=dict)


@_checked
@dataclass(frozen=True)
class OwnTextPart:
    """A text tower of another package, by its name in ``coefvq.text_towers``; ``width`` is the size of its vectors.

    It is called with ``vocab_size``, ``pad_token`` (an id) and ``options``, and returns a module: input_ids and
    attention_mask [B,L], padded on the left -> [B,width], which must not depend on the padding. ``positions`` is how
    many tokens it takes; None: any number.
    """

    name: Annotated[str, Field(min_length=1)]
    width: Size
    vocab_size: Size
    positions: Size | None = None
    options: dict[str, Any] = field(default_factory=dict)
    tokens: SpecialTokens = field(default_factory=SpecialTokens)


@_checked
@dataclass(frozen=True)
class OwnSoundPart:
    """A sound tower of another package, by its name in ``coefvq.sound_towers``; ``width`` is the size of its vectors.

    It is called with ``audio_seconds`` and ``options``, and returns a module: log_mel [B,80,T], 100 columns a second
    -> [B,width].
    """

    name: Annotated[str, Field(min_length=1)]
    width: Size
    options: dict[str, Any] = field(default_factory=dict)


@_checked
@dataclass(frozen=True)
class LanguagePart:
    """A decoder of transformers without its language-model head.

    ``layers_used`` cuts the upper layers off; ``tied_head`` says that the published head is the embedding. ``chat``
    puts texts into the checkpoint's chat template; a decoder without a published tokenizer has none.
    """

    model_type: Literal["qwen2", "llama"]
    hidden_size: Size
    num_hidden_layers: Size
    num_attention_heads: Size
    num_key_value_heads: Size
    intermediate_size: Size
    vocab_size: Size
    rope_theta: Positive = 10_000.0
    rms_norm_eps: Positive = 1e-6
    layers_used: Size | None = None
    tied_head: bool = True
    chat: bool = False
    tokens: SpecialTokens = field(default_factory=SpecialTokens)


@_checked
@dataclass(frozen=True)
class AudioPart:
    """openai-whisper AudioEncoder: state size, heads, layers."""

    n_state: Size
    n_head: Size
    n_layer: Size
    n_mels: Size = 80


@_checked
@dataclass(frozen=True)
class TextPart:
    """Text tower of the baseline: XLM-R, or e5 (a BERT with XLM-R's vocabulary)."""

    model_type: Literal["xlm-roberta", "bert"]
    hidden_size: Size
    num_hidden_layers: Size
    num_attention_heads: Size
    intermediate_size: Size
    vocab_size: Size
    max_position_embeddings: Size
    tokens: SpecialTokens = field(default_factory=SpecialTokens)


@_checked
@dataclass(frozen=True)
class SiglipPair:
    """SigLIP with both towers, as the baseline "industry as usual" of Table 1."""

    vision: SiglipPart
    text_hidden_size: Size
    text_layers: Size
    text_heads: Size
    text_intermediate_size: Size
    vocab_size: Size
    text_positions: Size = 64
    tokens: SpecialTokens = field(default_factory=SpecialTokens)


@_checked
@dataclass(frozen=True)
class AlignedPart:
    """A file of weights that were trained on descriptions (``models/aligned.py``), and its hash."""

    file: Path
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


FrameTowerPart = ResNetPart | SwinPart | LitePart | OwnFramePart
TextTowerPart = TextPart | OwnTextPart
SoundPart = AudioPart | OwnSoundPart


#: where a preset names its aligned file, by the kind of model
ALIGNED_KEYS = {"mllm": "aligned", "base": "aligned_base"}


@dataclass(frozen=True)
class Preset:
    """Parts by role; ``weights`` holds the source of each pretrained role, the others start random.

    ``frame_size`` is what the towers were trained on (None: any). Roles of ``weights``: onevision (vision,
    projector and language in one checkpoint), vision, language, audio, frames, tower_frames, tower_text,
    tower_audio, siglip. ``aligned`` is the file that a fresh MLLM may start from, ``aligned_base`` that
    of an attention base. ``definition`` is the YAML of a user's own preset, kept with each model made of it; None for a
    preset that ships, which is known by its name.
    """

    name: str
    summary: str
    vision: SiglipPart | LitePart
    language: LanguagePart
    audio: SoundPart
    frames: FrameTowerPart
    tower_frames: FrameTowerPart
    tower_text: TextTowerPart
    tower_audio: SoundPart
    siglip: SiglipPair
    max_text_tokens: int
    frame_size: int | None = None
    weights: Mapping[str, Source] = field(default_factory=dict)
    aligned: AlignedPart | None = None
    aligned_base: AlignedPart | None = None
    licence: str = ""
    definition: Mapping[str, Any] | None = None

    def aligned_for(self, kind: str) -> AlignedPart | None:
        """The file that a fresh model of this kind, ``base`` or ``mllm``, may start from."""
        return self.aligned if kind == "mllm" else self.aligned_base

    @property
    def tokenizer_role(self) -> str | None:
        """Role of the weights that bring the language model's tokenizer; None: one is trained on the titles."""
        return next((role for role in ("onevision", "language") if role in self.weights), None)

    @property
    def chats(self) -> bool:
        """Whether the MLLM reads its texts in a chat template."""
        return self.language.chat and self.tokenizer_role is not None

    @property
    def pretrained(self) -> bool:
        """Whether parts come with weights."""
        return bool(self.weights)

    @property
    def local(self) -> bool:
        """Whether weights come from a folder of this machine; a trained model then holds all of them itself."""
        return any(source.folder is not None for source in self.weights.values())
