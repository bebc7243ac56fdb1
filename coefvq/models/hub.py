"""A trained classifier under Hugging Face's conventions: config, model, processor, model card.

    register()
    model = AutoModelForVideoClassification.from_pretrained(folder)
    inputs = CoefVQProcessor.from_pretrained(folder)(videos=["a.mp4"], text=["a title"])
    model(**inputs).logits

A folder is what ``Classifier.save`` writes (published weights by reference, adapter and head as safetensors),
or, with ``merged=True``, every weight with LoRA folded in, which needs nothing else.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForVideoClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from coefvq.compute.workers import LimitedPool
from coefvq.config import MediaLimits
from coefvq.data.media.clips import ClipStore
from coefvq.data.media.decode import Clip
from coefvq.data.media.limits import kept_limits
from coefvq.errors import DataError
from coefvq.files import read_json, sha256_json, write_json, write_text
from coefvq.models.card import model_card
from coefvq.models.classifier import Classifier, load, read_description
from coefvq.models.dataset import Collator, Example, text_of
from coefvq.models.heads import MISSING_LABEL
from coefvq.models.model_config import ModelConfig
from coefvq.records import VideoInput

Video = str | Path | bytes | Clip
_PROCESSOR = "preprocessor_config.json"


class CoefVQConfig(PreTrainedConfig):
    """``ModelConfig`` as transformers sees it; ``classifier`` holds its fields."""

    model_type = "coefvq"

    def __init__(self, **fields: Any) -> None:
        own = {name: fields.pop(name) for name in list(fields) if name in ModelConfig.model_fields}
        own.pop("model_type", None)
        id2label = own.get("id2label", {"0": "negative", "1": "positive"})
        super().__init__(id2label={int(key): label for key, label in id2label.items()}, **fields)
        self.classifier = own


class CoefVQForVideoClassification(PreTrainedModel):
    """A classifier as a transformers model; ``forward`` returns ``SequenceClassifierOutput``."""

    config_class = CoefVQConfig
    main_input_name = "pixel_values"

    def __init__(self, config: CoefVQConfig, classifier: Classifier) -> None:
        super().__init__(config)
        self.network = classifier.network
        self._classifier = classifier

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, *_: Any, **options: Any) -> Self:
        """Load a local folder, or a repository of the model hub.

        Raises:
            ModelError: the folder is incomplete or does not fit.
        """
        folder = _local(pretrained_model_name_or_path, options.get("revision"))
        classifier = load(folder)
        return cls(CoefVQConfig(**classifier.config.model_dump()), classifier)

    def save_pretrained(self, save_directory: str | Path, *, merged: bool = False, **_: Any) -> None:
        """Write config.json, model.safetensors, tokenizer.json and a model card (README.md).

        ``merged`` folds LoRA into the decoder and writes all weights, so that no published base is needed.
        """
        folder = Path(save_directory)
        classifier = merge(self._classifier) if merged else self._classifier
        classifier.save(folder)
        write_text(folder / "README.md", model_card(classifier))

    def forward(self, labels: torch.Tensor | None = None, **inputs: torch.Tensor) -> SequenceClassifierOutput:
        """Inputs as ``CoefVQProcessor`` makes them -> logits [B,2] and, with labels [B], the loss.

        A model of K issues gives [B,K,2] and takes labels [B,K], -100 where one is missing.
        """
        logits = self.network(**inputs)
        loss = None if labels is None else _mean_cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


def _mean_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean over issues of each issue's mean over its labels, as in training; an issue without labels counts 0."""
    each = zip(logits.reshape(len(labels), -1, 2).unbind(1), labels.reshape(len(labels), -1).unbind(1), strict=True)
    losses = [
        torch.nn.functional.cross_entropy(scores.float(), truth, ignore_index=MISSING_LABEL)
        if (truth != MISSING_LABEL).any()
        else 0.0 * scores.float().sum()
        for scores, truth in each
    ]
    return torch.stack(losses).mean()


class CoefVQProcessor:
    """Files, bytes or decoded clips and their texts -> a batch of tensors.

    Files are decoded in a process of their own: what a hostile one may cost is bounded by the limits that the model
    was trained under, or by the caller's ``limits``.
    """

    def __init__(self, collator: Collator, config: ModelConfig, limits: MediaLimits | None = None) -> None:
        self._collator, self._config, self._media = collator, config, config.media
        self._limits = kept_limits(config.limits) if limits is None else limits

    @cached_property
    def _pool(self) -> LimitedPool:
        return LimitedPool(self._limits, 1)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        revision: str | None = None,
        limits: MediaLimits | None = None,
    ) -> Self:
        """The processor of a saved model; of one that ``save_pretrained`` wrote no weights are read."""
        folder = _local(pretrained_model_name_or_path, revision)
        config, text = read_description(folder)
        saved: dict[str, Any] = read_json(folder / _PROCESSOR) if (folder / _PROCESSOR).is_file() else {}
        if saved.get("config_sha256") != _digest(config):  # none yet, or another model was saved here since
            classifier = load(folder)
            return cls(classifier.collator, classifier.config, limits)
        seconds = config.media.audio_seconds if config.hears else None
        return cls(Collator(text, int(saved["visual_tokens"]), seconds, config.text), config, limits)

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write config.json, tokenizer.json and preprocessor_config.json; the weights may be in the folder or not."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        if self._collator.text is not None:
            self._collator.text.save(folder)
        write_json(folder / "config.json", self._config.model_dump(exclude_none=True))
        facts = {"processor_class": "CoefVQProcessor", "visual_tokens": self._collator.visual_tokens}
        write_json(folder / _PROCESSOR, {**facts, "config_sha256": _digest(self._config)})

    def __call__(
        self,
        videos: Sequence[Video],
        text: Sequence[str] | None = None,
        stickers: Sequence[Sequence[str]] | None = None,
    ) -> dict[str, torch.Tensor]:
        """``videos`` are paths, the bytes of files, or ``Clip`` arrays of the model's own media settings.

        Raises:
            DataError: lengths differ, or an array has another shape than the model takes.
            MediaError: a file does not decode, or goes beyond a limit.
        """
        titles = list(text) if text is not None else [""] * len(videos)
        shown = list(stickers) if stickers is not None else [()] * len(videos)
        if not len(videos) == len(titles) == len(shown):
            raise DataError(f"{len(videos)} videos, {len(titles)} texts, {len(shown)} stickers: give as many of each")
        rows = [
            Example(clip, text_of(VideoInput("", Path(), title, tuple(stuck))), None)
            for clip, title, stuck in zip(self._clips(videos), titles, shown, strict=True)
        ]
        return self._collator(rows)

    def _clips(self, videos: Sequence[Video]) -> list[Clip]:
        with tempfile.TemporaryDirectory(prefix="coefvq-processor-") as scratch:
            store = ClipStore(Path(scratch), self._media, self._limits)
            encoded = [(i, video) for i, video in enumerate(videos) if not isinstance(video, Clip)]
            files = [
                store.hashed(VideoInput(f"video {i}", _file(video, Path(scratch, f"video-{i}"))))
                for i, video in encoded
            ]
            for error in store.try_fill(files, 1, pool=self._pool).values() if files else ():
                raise error
            decoded = iter([store.get(file) for file in files])
            return [self._checked(video) if isinstance(video, Clip) else next(decoded) for video in videos]

    def _checked(self, clip: Clip) -> Clip:
        media = self._media
        wanted = (media.frames, 3, media.frame_size, media.frame_size)
        if clip.frames.shape != wanted or clip.frames.dtype != np.uint8:
            raise DataError(f"frames {clip.frames.dtype} of shape {clip.frames.shape}: expected uint8 {wanted}")
        if clip.waveform.ndim != 1 or clip.waveform.dtype != np.int16:
            received = f"{clip.waveform.dtype} of shape {clip.waveform.shape}"
            raise DataError(f"waveform {received}: expected int16 [N], mono 16 kHz, empty without sound")
        return clip


def _digest(config: ModelConfig) -> str:
    return sha256_json(config.model_dump(mode="json", exclude_none=True))


def _file(video: str | Path | bytes, place: Path) -> Path:
    if isinstance(video, bytes):
        place.write_bytes(video)
        return place
    return Path(video)


def merge(classifier: Classifier) -> Classifier:
    """A classifier whose LoRA is folded in and whose folder needs no published weights. Works on a copy."""
    from copy import deepcopy

    network = deepcopy(classifier.network)
    language = getattr(network.float(), "language", None)
    if language is not None and hasattr(language.decoder, "merge_and_unload"):
        language.decoder = language.decoder.merge_and_unload()
    changes = {"merged": True, "lora_rank": 0, "lora_alpha": 0, "lora_target_modules": None, "dtype": "float32"}
    config = classifier.config.model_copy(update=changes)
    return replace(classifier, config=config, network=network)


def register() -> None:
    """Make the Auto classes of transformers know the type "coefvq"."""
    AutoConfig.register("coefvq", CoefVQConfig, exist_ok=True)
    AutoModelForVideoClassification.register(CoefVQConfig, CoefVQForVideoClassification, exist_ok=True)


def _local(name: str | Path, revision: str | None) -> Path:
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    wanted = ["config.json", "model.safetensors", "tokenizer.json", "chat.json", _PROCESSOR]
    return Path(snapshot_download(str(name), revision=revision, allow_patterns=wanted))
