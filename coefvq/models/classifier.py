"""One trained classifier = a network, its text encoder, and the description both can be rebuilt from.

On disk it is a folder: config.json, model.safetensors, tokenizer.json, and chat.json where texts stand in a chat
template. Nothing is unpickled. Published weights
that were not trained are named by the preset and not copied.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import nn

from coefvq.config import AttentionLayers, BaseModelParams, Lora, MediaLimits, MediaSpec, MLLMParams
from coefvq.data.media.limits import kept_limits
from coefvq.errors import ConfigError, ModelError
from coefvq.files import atomic_path, check_regular, read_json, write_json
from coefvq.models.assembly import NetworkBuilder, TokenIds, check_frame_size, device
from coefvq.models.chat import load_template, published_template
from coefvq.models.dataset import Collator
from coefvq.models.heads import probabilities_of
from coefvq.models.mllm import MultimodalLLM
from coefvq.models.parts import Preset
from coefvq.models.precision import DTYPES, Dtype
from coefvq.models.presets import get_preset, preset_from
from coefvq.models.pretrained import weights_of
from coefvq.models.text import TextEncoder, check_fits, load_text_encoder, train_text_encoder
from coefvq.models.tokens import SpecialTokens

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_TEXT_TOWERS = ("multitower", "attention")  # architectures that read by the part tower_text
#: ``no_init_weights`` replaces torch's initialisers for the whole process: one thread at a time builds or loads
_INITIALISING = threading.RLock()


class ModelConfig(BaseModel):
    """config.json of a trained model; ``id2label`` as everywhere in transformers.

    ``issues`` are in the order of the heads; only an MLLM may have several. ``limits`` are the ``ingest.limits`` that
    it was trained under, for whoever decodes a clip for this model alone; a pair has its own in its preprocessing.
    ``definition`` is a user's own preset as its file says it, so that the folder can be loaded where that file is
    not; None for a preset that ships. ``aligned`` is the hash of the aligned file it started from, if it did.
    ``dtype`` is the precision of a frozen LLaVA-OneVision while it was trained, and so of the function it learnt.
    """

    # "model_type" is transformers' word, though pydantic would keep names that begin so for itself
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", protected_namespaces=())

    model_type: Literal["coefvq"] = "coefvq"
    format_version: Literal[3] = 3
    issues: Annotated[tuple[str, ...], Field(strict=False)]  # a list is what JSON has
    kind: Literal["base", "mllm"]
    preset: str
    definition: Mapping[str, Any] | None = None
    architecture: Literal["frames", "multitower", "siglip", "attention", "mllm"]
    media: MediaSpec
    limits: MediaLimits | None = None  # None: trained before they were kept
    fusion: Literal["late", "early", "none"] = "none"
    pooling: Literal["last", "mean"] = "last"
    text: bool = False
    audio: bool = False
    motion: bool = False
    freeze_towers: bool = False
    attention: AttentionLayers | None = None
    teacher: str | None = None  # SHA-256 of the MLLM's folder that a distilled base learned from
    lora_rank: int = 0
    lora_alpha: int = 0
    lora_target_modules: Annotated[tuple[str, ...], Field(strict=False)] | None = None  # None: every linear layer
    merged: bool = False
    aligned: str | None = None
    dtype: Dtype = "float32"
    id2label: dict[str, str] = Field(default_factory=lambda: {"0": "negative", "1": "positive"})

    @model_validator(mode="after")
    def _check_issues(self) -> Self:
        if not self.issues or len(set(self.issues)) < len(self.issues) or not all(self.issues):
            raise ValueError(f"issues = {list(self.issues)}: expected at least one name, each once")
        if len(self.issues) > 1 and self.kind == "base":
            raise ValueError(f"issues = {list(self.issues)}: a base model has one issue; train one for each")
        if (self.architecture == "attention") != (self.attention is not None):
            raise ValueError(f"architecture = {self.architecture}: expected attention's sizes with attention alone")
        return self

    @cached_property
    def parts(self) -> Preset:
        """The preset.

        Raises:
            ModelError: no preset of that name ships, and there is no definition.
            ConfigError: the definition does not fit.
        """
        if self.definition is None:
            return get_preset(self.preset)
        return preset_from(self.preset, self.definition, f"preset {self.preset}")

    @property
    def issue(self) -> str:
        """Its issue; several are joined by ``+``, for names of runs and folders."""
        return "+".join(self.issues)

    @property
    def reads_text(self) -> bool:
        """Whether batches need token ids (the MLLM always has at least its end token)."""
        return self.architecture != "frames"

    @property
    def hears(self) -> bool:
        """Whether batches need log-mel spectrograms."""
        return self.architecture == "multitower" or (self.audio and self.fusion != "none")


@dataclass(frozen=True)
class Classifier:
    """A network in eval or train mode with everything needed to feed it."""

    config: ModelConfig
    network: nn.Module
    text: TextEncoder | None

    @property
    def collator(self) -> Collator:
        """Turns examples into batches for this network."""
        tokens = self.network.visual_tokens if isinstance(self.network, MultimodalLLM) else 0
        return Collator(
            text=self.text,
            visual_tokens=tokens,
            audio_seconds=self.config.media.audio_seconds if self.config.hears else None,
            use_text=self.config.text,
        )

    @property
    def limits(self) -> MediaLimits:
        """What decoding a clip for this model may cost."""
        return kept_limits(self.config.limits)

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """The network's logits [B,2] or [B,K,2] -> P(positive) of each issue, float64 [B,K]."""
        return probabilities_of(logits, self.config.issues)

    def save(self, folder: Path) -> None:
        """Write config.json, model.safetensors and tokenizer.json.

        Frozen published weights are not copied: the preset names them, and they are megabytes to
        gigabytes. What was trained (adapter, head, projector, unfrozen towers) is all there.
        """
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        if self.text is not None:
            self.text.save(folder)
        left_out = published_names(self)
        state = self.network.state_dict()
        tensors = {name: value.detach().contiguous().clone() for name, value in state.items() if name not in left_out}
        with atomic_path(folder / _WEIGHTS) as temporary:
            save_file(tensors, temporary)
        write_json(folder / _CONFIG, self.config.model_dump(exclude_none=True))


def published_names(classifier: Classifier) -> frozenset[str]:
    """Names of the tensors that are as published: parameters that do not train, and buffers of frozen parts."""
    preset = classifier.config.parts
    if classifier.config.merged or not preset.pretrained or preset.local:
        return frozenset()
    network = classifier.network
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    training = {name.rpartition(".")[0] for name, p in network.named_parameters() if p.requires_grad}
    buffers = {name for name, _ in network.named_buffers() if name.rpartition(".")[0] not in training}
    return frozenset(frozen | buffers)


def base_config(
    issue: str, params: BaseModelParams, media: MediaSpec, definition: Mapping[str, Any] | None = None
) -> ModelConfig:
    """Description of a base model; ``definition`` is that of a user's own preset."""
    sees_only = params.architecture == "frames"
    return ModelConfig(
        issues=(issue,),
        kind="base",
        preset=params.preset,
        definition=definition,
        architecture=params.architecture,
        media=media,
        fusion="none" if sees_only else "late",
        text=not sees_only,
        audio=not sees_only and params.audio,
        motion=params.motion,
        freeze_towers=params.freeze_towers,
        attention=params.attention if params.architecture == "attention" else None,
    )


def mllm_config(
    issue: str | Sequence[str], params: MLLMParams, media: MediaSpec, definition: Mapping[str, Any] | None = None
) -> ModelConfig:
    """Description of an MLLM; several issues get a head each, in the order given.

    ``definition`` is that of a user's own preset.

    Raises:
        ModelError: it is to start from an aligned file, and the preset has none.
    """
    config = ModelConfig(
        issues=(issue,) if isinstance(issue, str) else tuple(issue),
        kind="mllm",
        preset=params.preset,
        definition=definition,
        architecture="mllm",
        media=media,
        fusion=params.fusion if params.audio else "none",
        pooling=params.pooling,
        text=params.text,
        audio=params.audio,
        motion=params.motion,
        lora_rank=params.lora.rank,
        lora_alpha=params.lora.alpha,
        lora_target_modules=params.lora.target_modules,
    )
    if not params.aligned:
        return config
    if (part := config.parts.aligned) is None:
        raise ModelError(f"preset {params.preset}: has no aligned file; set mllm.aligned: false, or give it one")
    return config.model_copy(update={"aligned": part.sha256})


def build(
    config: ModelConfig,
    text: TextEncoder | None,
    lora_dropout: float = 0.0,
    weights: bool = True,
    mapped: bool = False,
) -> Classifier:
    """A classifier ready to be trained: published weights where the preset has them, else random ones.

    torch's global generator decides the random weights; ``weights`` False leaves all random, ``mapped`` maps published
    ones from their files instead of copying them (for scoring).

    Raises:
        ModelError: unknown preset, a text encoder is needed and missing, weights cannot be had, or the
            preset's towers see another frame size.
    """
    with _INITIALISING:
        return _built(config, text, lora_dropout, weights, mapped)


def _built(
    config: ModelConfig, text: TextEncoder | None, lora_dropout: float, weights: bool, mapped: bool
) -> Classifier:
    preset = config.parts
    check_frame_size(preset, config.media)
    # a merged folder holds every weight itself
    make = NetworkBuilder(preset, config.media, weights and not config.merged, mapped, DTYPES[config.dtype])
    if config.architecture == "frames":
        return Classifier(config, make.frames(config.motion, config.freeze_towers), None)
    if text is None:
        raise ModelError(f"{config.kind} model of {config.issue}: {config.architecture} needs a text encoder")
    check_fits(text, _embeddings(config), f"{config.architecture} of preset {config.preset}", _vocabulary_key(config))
    ids = TokenIds(pad=text.pad_id, video=text.video_id)
    if config.architecture == "multitower":
        return Classifier(config, make.multitower(ids, config.motion, config.freeze_towers), text)
    if config.architecture == "attention" and config.attention is not None:
        attending = make.attention(ids, config.attention, config.hears, config.motion, config.freeze_towers)
        return Classifier(config, attending, text)
    if config.architecture == "siglip":
        return Classifier(config, make.siglip(ids, config.hears, config.freeze_towers), text)
    targets = config.lora_target_modules
    lora = Lora(rank=config.lora_rank, alpha=config.lora_alpha, dropout=lora_dropout, target_modules=targets)
    heads = len(config.issues)
    network = make.mllm(ids, lora=lora, fusion=config.fusion, pooling=config.pooling, motion=config.motion, heads=heads)
    return Classifier(config, network, text)


def text_encoder(config: ModelConfig, titles: Iterable[str]) -> TextEncoder | None:
    """The published tokenizer of the model's text part; a random preset trains one on ``titles``."""
    if not config.reads_text:
        return None
    role = _tokenizer_role(config)
    folder = None if role is None else weights_of(config.parts, role)
    if folder is None:
        return train_text_encoder(titles, _embeddings(config), text_limit(config))
    encoder = load_text_encoder(folder, text_limit(config), special_tokens(config))
    if not chats(config):
        return encoder
    return replace(encoder, chat=published_template(folder, encoder.tokenizer, encoder.tokens.video))


def chats(config: ModelConfig) -> bool:
    """Whether the model reads its texts in a chat template."""
    return config.kind == "mllm" and config.parts.chats


def _tokenizer_role(config: ModelConfig) -> str | None:
    """Role of the published part whose tokenizer the model reads with; None: one is trained on the titles."""
    if config.architecture == "mllm":
        return config.parts.tokenizer_role
    role = "tower_text" if config.architecture in _TEXT_TOWERS else "siglip"
    return role if role in config.parts.weights else None


def text_limit(config: ModelConfig) -> int:
    """Most tokens of a text: the preset's, or fewer where the text tower has no positions for so many.

    Start and end token need a position each, and RoBERTa's count begins at 2.
    """
    preset = config.parts
    if config.architecture == "siglip":
        return min(preset.max_text_tokens, preset.siglip.text_positions - 2)
    if config.architecture in _TEXT_TOWERS:
        part = preset.tower_text
        reserved = 4 if part.model_type == "xlm-roberta" else 2
        return min(preset.max_text_tokens, part.max_position_embeddings - reserved)
    return preset.max_text_tokens


def _embeddings(config: ModelConfig) -> int:
    preset = config.parts
    if config.architecture == "mllm":
        return preset.language.vocab_size
    return preset.tower_text.vocab_size if config.architecture in _TEXT_TOWERS else preset.siglip.vocab_size


def _vocabulary_key(config: ModelConfig) -> str:
    if config.architecture in _TEXT_TOWERS:
        return "tower_text.vocab_size"
    return {"mllm": "language.vocab_size", "siglip": "siglip.vocab_size"}[config.architecture]


def special_tokens(config: ModelConfig) -> SpecialTokens:
    """Names of the special tokens in the model's vocabulary."""
    preset = config.parts
    if _tokenizer_role(config) is None:
        return SpecialTokens()
    if config.architecture == "mllm":
        return preset.language.tokens
    return preset.tower_text.tokens if config.architecture in _TEXT_TOWERS else preset.siglip.tokens


def load(folder: Path) -> Classifier:
    """Rebuild a classifier from its folder, in eval mode, on the GPU where there is one.

    Raises:
        ModelError: a file is missing or does not fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from transformers.initialization import no_init_weights

    config, text = read_description(folder)
    # of local weights the folder holds every tensor, since they may not be on this machine
    with _INITIALISING, no_init_weights():  # every tensor comes from a file; missing ones are refused below
        classifier = build(config, text, weights=not config.parts.local, mapped=True)
    remedy = "train it again"
    check_regular(folder / _WEIGHTS, missing=remedy, remedy=remedy, error=ModelError)
    try:
        mismatch = classifier.network.load_state_dict(load_file(folder / _WEIGHTS), strict=False)
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{folder / _WEIGHTS}: does not fit config.json ({reason}); train it again") from error
    wrong = [*mismatch.unexpected_keys, *sorted(set(mismatch.missing_keys) - published_names(classifier))]
    if wrong:
        raise ModelError(
            f"{folder / _WEIGHTS}: does not fit config.json ({len(wrong)} tensors, e.g. {wrong[0]}); train it again"
        )
    classifier.network.to(device()).eval()
    return classifier


def read_description(folder: Path) -> tuple[ModelConfig, TextEncoder | None]:
    """What a trained model is and how it reads texts, without its weights.

    Raises:
        ModelError: a file is missing or does not fit.
    """
    config = read_config(folder)
    if not config.reads_text:
        return config, None
    text = load_text_encoder(folder, text_limit(config), special_tokens(config))
    return config, replace(text, chat=load_template(folder)) if chats(config) else text


def read_config(folder: Path) -> ModelConfig:
    """What a trained model is.

    Raises:
        ModelError: config.json is missing or does not fit.
    """
    if not (folder / _CONFIG).is_file():
        raise ModelError(f"{folder}: holds no {_CONFIG}; train the model or give another folder")
    raw = read_json(folder / _CONFIG, missing="train the model", remedy="train the model again", error=ModelError)
    try:
        config = ModelConfig.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ModelError(f"{folder / _CONFIG}: {key}: {first['msg']}; train the model again") from error
    try:
        config.parts  # noqa: B018  # refuses a definition that was changed by hand
    except ConfigError as error:
        raise ModelError(f"{folder / _CONFIG}: {error}") from error
    return config
