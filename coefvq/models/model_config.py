"""config.json of a trained model: what the network is made of, so that it can be rebuilt."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from coefvq.config import AttentionLayers, BaseModelParams, Lora, MediaLimits, MediaSpec, MLLMParams
from coefvq.errors import ConfigError, ModelError
from coefvq.files import read_json
from coefvq.models.parts import ALIGNED_KEYS, Preset
from coefvq.models.precision import Dtype
from coefvq.models.presets import get_preset, preset_from

CONFIG_FILE = "config.json"
_TOWERS = ("tower_frames", "tower_text", "tower_audio")
#: roles of the published weights that a model of an architecture starts from
ROLES: Mapping[str, tuple[str, ...]] = {
    "frames": ("frames",),
    "multitower": _TOWERS,
    "attention": _TOWERS,
    "siglip": ("siglip", "tower_audio"),
    "mllm": ("onevision", "vision", "language", "audio"),
}


class ModelConfig(BaseModel):
    """config.json of a trained model; ``id2label`` as everywhere in transformers.

    ``issues`` are in the order of the heads; only an MLLM may have several. ``limits`` are the ``ingest.limits`` that
    it was trained under, for whoever decodes a clip for this model alone; a pair has its own in its preprocessing.
    ``definition`` is a user's own preset as its file says it, so that the folder can be loaded where that file is
    not; None for a preset that ships. ``aligned`` is the hash of the aligned file it started from, if it did.
    ``dtype`` is the precision of a frozen LLaVA-OneVision while it was trained, and so of the function it learnt.
    ``lora_*`` are those of the MLLM's decoder, or of a base model's text tower.
    ``published`` are its weights from the model hub with their revisions, by role; None for a preset that brings its
    definition along, or without such weights.
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
    published: Mapping[str, str] | None = None
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


def base_config(
    issue: str, params: BaseModelParams, media: MediaSpec, definition: Mapping[str, Any] | None = None
) -> ModelConfig:
    """Description of a base model; ``definition`` is that of a user's own preset.

    Raises:
        ModelError: an attention base is to start from an aligned file, and the preset has none.
    """
    sees_only = params.architecture == "frames"
    config = ModelConfig(
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
        **_adapters(params.text_lora),
        attention=params.attention if params.architecture == "attention" else None,
    )
    config = config.model_copy(update={"published": _published(config)})
    return _aligned(config, params.aligned and params.architecture == "attention")


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
        **_adapters(params.lora),
    )
    config = config.model_copy(update={"published": _published(config)})
    return _aligned(config, params.aligned)


def _adapters(lora: Lora | None) -> dict[str, Any]:
    if lora is None:
        return {}
    return {"lora_rank": lora.rank, "lora_alpha": lora.alpha, "lora_target_modules": lora.target_modules}


def _aligned(config: ModelConfig, asked: bool) -> ModelConfig:
    if not asked:
        return config
    if (part := config.parts.aligned_for(config.kind)) is None:
        key = ALIGNED_KEYS[config.kind]
        raise ModelError(f"preset {config.preset}: has no {key} file; set {config.kind}.aligned: false, or give it one")
    return config.model_copy(update={"aligned": part.sha256})


def _published(config: ModelConfig) -> dict[str, str] | None:
    """Names of hub weights, in which a pinned revision stands, by role; None where there are none to name."""
    weights = config.parts.weights if config.definition is None else {}
    named = {role: weights[role].name for role in ROLES[config.architecture] if role in weights and weights[role].hub}
    return named or None


def read_config(folder: Path) -> ModelConfig:
    """What a trained model is.

    Raises:
        ModelError: config.json is missing or does not fit, or this version's preset has other weights.
    """
    if not (folder / CONFIG_FILE).is_file():
        raise ModelError(f"{folder}: holds no {CONFIG_FILE}; train the model or give another folder")
    raw = read_json(folder / CONFIG_FILE, missing="train the model", remedy="train the model again", error=ModelError)
    try:
        config = ModelConfig.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ModelError(f"{folder / CONFIG_FILE}: {key}: {first['msg']}; train the model again") from error
    try:
        config.parts  # noqa: B018  # refuses a definition that was changed by hand
    except ConfigError as error:
        raise ModelError(f"{folder / CONFIG_FILE}: {error}") from error
    now = _published(config) or {}
    for role, name in ({} if config.merged else config.published or {}).items():
        if now.get(role) != name:
            raise ModelError(
                f"{folder / CONFIG_FILE}: trained on {role} {name}, preset {config.preset} has {now.get(role)} here; "
                "install the coefvq that trained it, or train again"
            )
    return config
