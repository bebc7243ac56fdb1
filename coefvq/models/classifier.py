"""One trained classifier = a network, its text encoder, and the description both can be rebuilt from.

On disk it is a folder: config.json, model.safetensors, tokenizer.json. Nothing is unpickled.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from coefvq.config import BaseModelParams, Lora, MediaSpec, MLLMParams
from coefvq.data.dataset import Collator
from coefvq.data.text import TextEncoder, load_text_encoder
from coefvq.errors import ModelError
from coefvq.files import atomic_path, write_json
from coefvq.models.baselines import FrameClassifier, MultiTower
from coefvq.models.mllm import MultimodalLLM
from coefvq.models.presets import get_preset

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"


class ModelConfig(BaseModel):
    """config.json of a trained model; ``id2label`` as everywhere in transformers."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", populate_by_name=True)

    format_version: Literal[1] = 1
    issue: str
    kind: Literal["base", "mllm"]
    preset: str
    architecture: Literal["resnet", "multitower", "mllm"]
    media: MediaSpec
    fusion: Literal["late", "none"] = "none"
    text: bool = False
    audio: bool = False
    lora_rank: int = 0
    lora_alpha: int = 0
    id2label: dict[str, str] = Field(default_factory=lambda: {"0": "negative", "1": "positive"})

    @property
    def reads_text(self) -> bool:
        """Whether batches need token ids (the MLLM always has at least its end token)."""
        return self.architecture != "resnet"

    @property
    def hears(self) -> bool:
        """Whether batches need log-mel spectrograms."""
        return self.architecture == "multitower" or (self.audio and self.fusion == "late")


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

    def save(self, folder: Path) -> None:
        """Write config.json, model.safetensors and tokenizer.json."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        if self.text is not None:
            self.text.save(folder)
        tensors = {name: value.detach().contiguous().clone() for name, value in self.network.state_dict().items()}
        with atomic_path(folder / _WEIGHTS) as temporary:
            save_file(tensors, temporary)
        write_json(folder / _CONFIG, self.config.model_dump())


def base_config(issue: str, params: BaseModelParams, media: MediaSpec) -> ModelConfig:
    """Description of a base model."""
    sees_all = params.architecture == "multitower"
    return ModelConfig(
        issue=issue,
        kind="base",
        preset=params.preset,
        architecture=params.architecture,
        media=media,
        fusion="late" if sees_all else "none",
        text=sees_all,
        audio=sees_all,
    )


def mllm_config(issue: str, params: MLLMParams, media: MediaSpec) -> ModelConfig:
    """Description of an MLLM."""
    return ModelConfig(
        issue=issue,
        kind="mllm",
        preset=params.preset,
        architecture="mllm",
        media=media,
        fusion=params.fusion,
        text=params.text,
        audio=params.audio,
        lora_rank=params.lora.rank,
        lora_alpha=params.lora.alpha,
    )


def build(config: ModelConfig, text: TextEncoder | None, lora_dropout: float = 0.0) -> Classifier:
    """A freshly initialised classifier (torch's global generator decides the weights).

    Raises:
        ModelError: unknown preset, or a text encoder is needed and missing.
    """
    preset = get_preset(config.preset)
    if config.architecture == "resnet":
        return Classifier(config, FrameClassifier(preset), None)
    if text is None:
        raise ModelError(f"{config.kind} model of {config.issue}: {config.architecture} needs a text encoder")
    if config.architecture == "multitower":
        return Classifier(config, MultiTower(preset, config.media, text), text)
    lora = Lora(rank=config.lora_rank, alpha=config.lora_alpha, dropout=lora_dropout)
    network = MultimodalLLM(preset, lora=lora, hears=config.hears, media=config.media, text=text)
    return Classifier(config, network, text)


def load(folder: Path) -> Classifier:
    """Rebuild a classifier from its folder, in eval mode, on the GPU where there is one.

    Raises:
        ModelError: a file is missing or does not fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not (folder / _CONFIG).is_file():
        raise ModelError(f"{folder}: holds no {_CONFIG}; train the model or give another folder")
    try:
        config = ModelConfig.model_validate_json((folder / _CONFIG).read_text(encoding="utf-8"))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ModelError(f"{folder / _CONFIG}: {key}: {first['msg']}; train the model again") from error
    limit = get_preset(config.preset).max_text_tokens
    text = load_text_encoder(folder, limit) if config.reads_text else None
    classifier = build(config, text)
    try:
        classifier.network.load_state_dict(load_file(folder / _WEIGHTS))
    except (FileNotFoundError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{folder / _WEIGHTS}: does not fit config.json ({reason}); train it again") from error
    classifier.network.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return classifier
