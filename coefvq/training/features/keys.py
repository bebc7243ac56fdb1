"""Addresses of cached features: a part of a model, and what it was given.

Part key = SHA-256 over the weights and settings of the frozen part, the decode or tokenizer settings of its
input, dtype, kind of device and code version. Entry = SHA-256 of the media file, or of the text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from coefvq.config import MediaSpec
from coefvq.data.media.clips import FORMAT_VERSION
from coefvq.files import sha256_file, sha256_json
from coefvq.models.dataset import Collator, text_of
from coefvq.models.frozen import HEARS, READS, SEES, FrozenPart, weights_sha256
from coefvq.models.packed import packed_frozen
from coefvq.models.text import TextEncoder
from coefvq.records import VideoInput

if TYPE_CHECKING:
    from coefvq.models.classifier import Classifier

#: raise it when the code between a clip and its features changes their values
CODE_VERSION = 3
_AT_ONCE = 8  # 64 frames of 384 px: a card is busy, and the towers' own memory stays near 2 GB


@dataclass(frozen=True)
class PartKey:
    """``facts`` decide every value of a part's features; ``name`` is the part's."""

    name: str
    facts: dict[str, Any]

    @cached_property
    def digest(self) -> str:
        """32 hexadecimal digits."""
        return sha256_json([self.name, self.facts])[:32]


@dataclass(frozen=True)
class Beginning:
    """Entries under ``key`` begin with the ``rows`` rows that a part would compute itself."""

    key: PartKey
    rows: int


@dataclass(frozen=True)
class CachedModel:
    """The frozen parts of a classifier with their keys, and how batches are made for them.

    ``wider`` has, by part, the entries of another model that hold what the part computes, and more.
    """

    parts: tuple[FrozenPart, ...]
    keys: dict[str, PartKey]
    collator: Collator
    device: torch.device
    wider: Mapping[str, Beginning] = field(default_factory=dict)

    @property
    def at_once(self) -> int:
        """Videos that the towers compute together: one on a CPU, where more gain nothing and may round otherwise."""
        return 1 if self.device.type == "cpu" else _AT_ONCE

    def compute(self, parts: Sequence[FrozenPart], batch: Mapping[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        """Features of each video in ``batch``, on the CPU, without the batch dimension."""
        if not batch:
            return []
        with torch.no_grad():
            outputs = {part.name: part.compute(*(batch[name] for name in part.reads)).cpu() for part in parts}
        count = len(next(iter(outputs.values())))
        if count == 1:
            return [{name: rows[0] for name, rows in outputs.items()}]
        # copies: a row must not keep the whole batch in memory
        return [{name: rows[at].clone() for name, rows in outputs.items()} for at in range(count)]

    def packed(self) -> AbstractContextManager[int]:
        """Within this the towers compute with packed weights, where their arithmetic stays the same."""
        return packed_frozen(module for part in self.parts for module in part.modules if isinstance(module, nn.Module))

    @property
    def reads_media(self) -> bool:
        """Whether any part needs frames or sound."""
        return any(part.reads != READS for part in self.parts)

    @property
    def replaced(self) -> frozenset[str]:
        """Inputs that no batch needs any more."""
        return frozenset(name for part in self.parts for name in part.reads)

    @property
    def reads_clips(self) -> bool:
        """Whether batches still need frames or sound, for parts that train."""
        sees = "pixel_values" not in self.replaced
        return sees or (self.collator.audio_seconds is not None and "log_mel" not in self.replaced)

    def entry(self, part: FrozenPart, video: VideoInput) -> str:
        """Which entry of ``part`` is the video's."""
        if part.reads == READS:
            return hashlib.sha256(text_of(video).encode()).hexdigest()
        return video.sha256 or sha256_file(video.path)


def cached_model(classifier: Classifier) -> CachedModel:
    """What can be kept of a classifier; no parts if everything trains.

    The towers compute in their weights' own precision, also for a training in bf16: one entry serves training and
    scoring, and is the more exact one.
    """
    network: Any = classifier.network
    parts: tuple[FrozenPart, ...] = network.frozen_parts()
    device = next(classifier.network.parameters()).device
    media, collator = classifier.config.media, classifier.collator
    keys = {part.name: _key(part, media, collator, device) for part in parts}
    wider = {}
    for part in parts:
        if part.wider is not None:
            whole = keys[part.name]
            key = replace(whole, facts=whole.facts | {"settings": part.wider.settings})
            wider[part.name] = Beginning(key, part.wider.rows_per_frame * media.frames)
    return CachedModel(parts, keys, collator, device, wider)


def _key(part: FrozenPart, media: MediaSpec, collator: Collator, device: torch.device) -> PartKey:
    from transformers import __version__ as transformers_version

    facts = {
        "weights": weights_sha256(part.modules),
        "settings": part.settings,
        "input": _input_facts(part.reads, media, collator),
        "dtype": _dtype(part.modules),
        "device": device.type,
        # towers are transformers' code: another version may round differently
        "code": [CODE_VERSION, FORMAT_VERSION, transformers_version],
    }
    return PartKey(part.name, facts)


def _input_facts(reads: Sequence[str], media: MediaSpec, collator: Collator) -> dict[str, Any]:
    if reads == SEES:
        return {"frames": media.frames, "frame_size": media.frame_size}
    if reads == HEARS:
        # the clip store cuts sound where its own setting says
        return {"audio_seconds": collator.audio_seconds, "decoded_seconds": media.audio_seconds}
    if collator.text is None:
        raise TypeError(f"a part that reads {reads} needs a text encoder")
    return {"tokenizer": _tokenizer_sha256(collator.text), "use_text": collator.use_text}


def _tokenizer_sha256(text: TextEncoder) -> str:
    tokens = [text.tokens.pad, text.tokens.video, text.tokens.end, text.tokens.start, text.tokens.prompt]
    return sha256_json([text.tokenizer.to_str(), text.max_tokens, tokens])


def _dtype(modules: Sequence[nn.Module | nn.Parameter]) -> str:
    first = modules[0]
    parameter = first if isinstance(first, nn.Parameter) else next(first.parameters())
    return _name(parameter.dtype)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
