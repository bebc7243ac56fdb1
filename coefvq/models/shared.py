"""Frozen towers that several models of one process have in common: held once, and run once per image or sound.

The base model and the MLLM of a pair, and the pairs of several issues, often start from the same published weights
and leave them as they are. Such a tower is one module here, whoever calls it.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from coefvq.config import Scoring
from coefvq.files import sha256_json, sha256_tree
from coefvq.models.attention_base import AttentionClassifier
from coefvq.models.audio import AudioBranch
from coefvq.models.backbones import Backbone
from coefvq.models.baselines import FrameClassifier, MultiTower, SiglipClassifier
from coefvq.models.classifier import Classifier, published_names
from coefvq.models.memo import Memo
from coefvq.models.mllm import MultimodalLLM
from coefvq.models.model_config import ModelConfig, read_config
from coefvq.models.vision import CnnBranch


class SharedTower(nn.Module):
    """A tower over rows that do not depend on one another, [N, ...] -> [N, ...]; each distinct row is computed once."""

    def __init__(self, tower: nn.Module, memo: Memo) -> None:
        super().__init__()
        self.tower, self._memo = tower, memo

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """As the tower, to rounding: a row that was computed in another batch is taken from there."""
        # on a GPU a digest would wait for the card at every batch
        if not self._memo.open or torch.is_grad_enabled() or rows.device.type != "cpu":
            return self._computed(rows)
        keys = [(id(self), row_digest(row)) for row in rows]
        kept = self._memo.rows
        missing = {key: index for index, key in reversed(list(enumerate(keys))) if key not in kept}
        if missing:
            indices = sorted(missing.values())
            for index, output in zip(indices, self._computed(rows[indices]), strict=True):
                kept[keys[index]] = output
        return torch.stack([kept[key] for key in keys])

    def _computed(self, rows: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.tower(rows)
        return output


def row_digest(row: torch.Tensor) -> bytes:
    """Hash of a tensor's bytes."""
    data = row.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
    return hashlib.blake2b(data.data, digest_size=16).digest()


@dataclass
class TowerPool:
    """The shared towers of one process and precision, by the published weights that they hold.

    ``models`` are MLLMs that answer for several issues, by the hash of their folder and settings; ``trunks`` are MLLMs
    of one issue, by what decides their H (:mod:`coefvq.models.trunks`). ``backbones`` are published LLaVA-OneVisions
    that at least two models will start from.
    """

    memo: Memo = field(default_factory=Memo)
    towers: dict[tuple[str, str, bool], Any] = field(default_factory=dict)
    models: dict[str, Classifier] = field(default_factory=dict)
    trunks: dict[str, Classifier] = field(default_factory=dict)
    backbones: dict[str, Backbone] = field(default_factory=dict)

    @classmethod
    def of(cls, mllms: Iterable[tuple[Path, Scoring]]) -> Self:
        """For MLLMs that will be loaded together, by folder and how they score.

        Raises:
            ModelError: a config.json is missing or does not fit.
        """
        models = defaultdict[str, set[str]](set)
        for folder, how in mllms:
            if (key := backbone_key(read_config(folder), how)) is not None:
                models[key].add(sha256_tree(folder))  # one model of several issues counts once
        return cls(backbones={key: Backbone() for key, distinct in models.items() if len(distinct) > 1})

    def backbone(self, config: ModelConfig, how: Scoring) -> Backbone | None:
        """What a model has in common with another one; None: nothing."""
        return self.backbones.get(backbone_key(config, how) or "")

    def adopt(self, classifier: Classifier) -> int:
        """Replace the model's published towers by those held already, hold the others; how many were replaced.

        Only towers that are exactly as published are taken: one that was trained stays the model's own.
        """
        published, replaced = published_names(classifier), 0
        sources = classifier.config.parts.weights
        for slot in _slots(classifier):
            if slot.role not in sources or not slot.names <= published:
                continue
            key = (str(sources[slot.role]), slot.facts, slot.by_row)
            if key in self.towers:
                replaced += 1
            else:
                part = getattr(slot.owner, slot.attribute)
                self.towers[key] = SharedTower(part, self.memo) if slot.by_row else part
            setattr(slot.owner, slot.attribute, self.towers[key])
        return replaced


def backbone_key(config: ModelConfig, how: Scoring) -> str | None:
    """What decides the tensors of a frozen LLaVA-OneVision while it scores; None: the model has none to share.

    int8 replaces them, a merged model holds its own, and weights from a folder of this machine may have changed.
    """
    parts = config.parts
    source = parts.weights.get("onevision") if config.architecture == "mllm" else None
    if source is None or config.merged or parts.local or how.approximate.int8:
        return None
    sizes = [asdict(parts.vision), asdict(parts.language), parts.frame_size]
    return sha256_json([str(source), sizes, config.dtype, how.dtype])


@dataclass(frozen=True)
class _Slot:
    """Where a tower, or a table of embeddings, hangs in a network."""

    owner: nn.Module
    attribute: str
    role: str
    facts: str
    names: frozenset[str]
    by_row: bool


def _slots(classifier: Classifier) -> Iterator[_Slot]:
    network, parts = classifier.network, classifier.config.parts
    names = {id(tensor): name for name, tensor in [*network.named_parameters(), *network.named_buffers()]}

    def slot(owner: nn.Module, attribute: str, role: str, by_row: bool = True, **facts: Any) -> _Slot:
        tower = getattr(owner, attribute)
        tensors = [tower] if isinstance(tower, nn.Parameter) else [*tower.parameters(), *tower.buffers()]
        part = getattr(parts, role)
        # the side to which a grid is pooled is no matter of the tower
        sizes = {**asdict(part), "pooled_side": None, **facts}
        described = f"{type(part).__name__} {sorted(sizes.items())}"
        return _Slot(owner, attribute, role, described, frozenset(names[id(tensor)] for tensor in tensors), by_row)

    def sound(branch: AudioBranch | None, role: str) -> Iterator[_Slot]:
        if branch is not None:
            yield slot(branch, "encoder", role, seconds=classifier.config.media.audio_seconds)

    if isinstance(network, MultimodalLLM):
        if isinstance(network.vision, CnnBranch):
            yield slot(network.vision, "tower", "vision")
        yield from sound(network.audio, "audio")
        yield slot(network.language.decoder.get_input_embeddings(), "weight", "language", by_row=False)
    elif isinstance(network, FrameClassifier) and network.frames.lite:
        yield slot(network.frames, "encoder", "frames")
    elif isinstance(network, MultiTower | AttentionClassifier):
        if network.frames.lite:
            yield slot(network.frames, "encoder", "tower_frames")
        yield slot(network.text, "encoder", "tower_text", by_row=False)
        yield from sound(network.audio, "tower_audio")
    elif isinstance(network, SiglipClassifier):
        yield from sound(network.audio, "tower_audio")
