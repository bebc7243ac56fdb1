"""The aligned files of a preset: weights that were trained on descriptions, before any label.

LLaVA-OneVision comes with an aligned projector; parts that never met do not. Such a preset may name one safetensors
file for its MLLM (projectors and adapters) and one for an attention base (its layers, without the output). Each holds
the weights that learnt to describe, in half precision, and a JSON header: what they saw, which libraries made them, and
the SHA-256 of the frozen weights that they were trained against. They fit no others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import interpolate

from coefvq.documents import parse_json
from coefvq.errors import ModelError
from coefvq.files import ROOM, atomic_path, check_regular, sha256_file, storage_errors
from coefvq.models.attention_base import AttentionClassifier, learning_parts
from coefvq.models.frozen import weights_sha256
from coefvq.models.mllm import MultimodalLLM
from coefvq.models.parts import ALIGNED_KEYS, AlignedPart

if TYPE_CHECKING:
    from torch import nn

    from coefvq.models.classifier import Classifier

_FORMAT = 1
#: one key, since the order of several in a safetensors header is no promise
_HEADER = "coefvq"
#: parts of an MLLM that learn to describe; the head and its norm wait for labels
_PARTS = ("vision.", "language.", "audio_projector.")
#: tensors that a network without audio does not use
_SOUND = ("audio_projector.", "tokens.sound.")
_PLACES = "tokens.images.place"
_TOWERS = ("vision", "language", "audio", "frames", "text")
_OFF = "or set mllm.aligned or base.aligned: false"
_REMEDY = f"get the file again, correct its sha256 in the preset, {_OFF}"
#: networks that can start from such a file
AlignedNetwork = MultimodalLLM | AttentionClassifier


def trained_parts(network: AlignedNetwork) -> dict[str, nn.Parameter]:
    """Parameters that learn to describe, by name; those of an attention base are of its first head."""
    if isinstance(network, AttentionClassifier):
        return learning_parts(network.heads[0])
    return {name: p for name, p in network.named_parameters() if p.requires_grad and name.startswith(_PARTS)}


def frozen_weights(network: AlignedNetwork) -> dict[str, str]:
    """SHA-256 of the frozen weights of each tower, where there are any.

    Parameters alone, without buffers: tables of positions are as long as the clip, and learn nothing.
    """
    parameters: dict[str, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        part = name.partition(".")[0]
        if not parameter.requires_grad and part in _TOWERS:
            parameters.setdefault(part, []).append(parameter)
    return {part: weights_sha256(weights) for part, weights in parameters.items()}


def save_aligned(path: Path, network: AlignedNetwork, facts: Mapping[str, Any]) -> str:
    """Write what learnt to describe, in float16, with ``facts`` (JSON) in its header; returns the file's SHA-256.

    Raises:
        StorageError: the disk is full, or the folder may not be written.
    """
    from safetensors.torch import save_file

    header = {"format": _FORMAT, **facts, "fits": frozen_weights(network)}
    tensors = {name: value.detach().cpu().half().contiguous() for name, value in trained_parts(network).items()}
    with storage_errors(path, ROOM), atomic_path(path) as temporary:
        save_file(tensors, temporary, {_HEADER: json.dumps(header, sort_keys=True)})
    return sha256_file(path)


def start_aligned(classifier: Classifier) -> None:
    """Put the preset's aligned file into a fresh classifier, where its settings ask for that.

    Raises:
        ModelError: as ``load_aligned``.
    """
    network, config = classifier.network, classifier.config
    part = config.parts.aligned_for(config.kind)
    if config.aligned is None or part is None or not isinstance(network, MultimodalLLM | AttentionClassifier):
        return
    load_aligned(network, part, f"preset {config.preset}: {ALIGNED_KEYS[config.kind]}", config.media.frames)


def load_aligned(network: AlignedNetwork, part: AlignedPart, key: str, frames: int | None = None) -> None:
    """Put an aligned file into a fresh network in place. ``key`` is the file's name in errors.

    An attention base that looks at another number of ``frames`` than the file has its places between those of the file.
    Each head of an attention base starts from the same weights. A network without audio does not use those of sound.

    Raises:
        ModelError: the file is not the pinned one, is not readable, or belongs to other weights or sizes.
    """
    from safetensors.torch import load_file

    header = read_facts(part, key)
    tensors = load_file(part.file)
    for name, own in frozen_weights(network).items():
        if (other := header["fits"].get(name)) is not None and other != own:
            raise ModelError(
                f"{key}: aligned with other weights of {name} ({other[:12]}, here {own[:12]}); "
                f"align anew (coefvq models align), {_OFF}"
            )
    wanted = trained_parts(network)
    if frames is not None and _PLACES in wanted and _PLACES in tensors:
        seen, count = header["media"]["frames"], len(wanted[_PLACES])
        tensors[_PLACES] = tensors[_PLACES] if seen == frames else _places(tensors[_PLACES], seen, frames, count)
    hears = network.audio if isinstance(network, AttentionClassifier) else network.audio_projector
    unused = set() if hears is not None else {name for name in tensors if name.startswith(_SOUND)}
    wrong = sorted((tensors.keys() - unused) ^ wanted.keys())
    wrong = wrong or [name for name, own in wanted.items() if own.shape != tensors[name].shape]
    if wrong:
        keep = "lora.rank and fusion" if isinstance(network, MultimodalLLM) else "motion and attention"
        raise ModelError(
            f"{key}: not of this network ({len(wrong)} tensors, e.g. {wrong[0]}); keep the preset's parts, {keep} "
            f"as they were, align anew, {_OFF}"
        )
    with torch.no_grad():
        for started in _starting(network):
            for name, parameter in started.items():
                parameter.copy_(tensors[name])


def _places(places: torch.Tensor, seen: int, frames: int, count: int) -> torch.Tensor:
    """Places of ``seen`` frames, then of motion images, [T,width] -> [count,width] for ``frames``, linear in time."""
    parts = zip(torch.split(places.float(), [seen, len(places) - seen]), (frames, count - frames), strict=True)
    wanted = [(part, to) for part, to in parts if to and len(part)]
    return torch.cat([interpolate(part.T[None], to, mode="linear", align_corners=True)[0].T for part, to in wanted])


def _starting(network: AlignedNetwork) -> list[dict[str, nn.Parameter]]:
    """Parameters by name of each part that starts from the file."""
    if isinstance(network, AttentionClassifier):
        return [learning_parts(head) for head in network.heads]
    return [trained_parts(network)]


def read_facts(part: AlignedPart, key: str) -> dict[str, Any]:
    """The header of the file: ``saw``, ``fits``, ``libraries`` and what it was trained with.

    Raises:
        ModelError: the file is not the pinned one, or has no such header.
    """
    from safetensors import SafetensorError, safe_open

    check_regular(part.file, missing=_REMEDY, remedy=_REMEDY, error=ModelError)
    if (own := sha256_file(part.file)) != part.sha256:
        raise ModelError(f"{key}: {part.file} has SHA-256 {own[:12]}, the preset says {part.sha256[:12]}; {_REMEDY}")
    try:
        with safe_open(part.file, framework="pt") as file:
            header = parse_json((file.metadata() or {})[_HEADER], str(part.file), _REMEDY, ModelError)
    except (OSError, KeyError, SafetensorError) as error:
        raise ModelError(f"{key}: {part.file} is no aligned file ({error}); run coefvq models align") from error
    known = isinstance(header, dict) and header.get("format") == _FORMAT
    if not known or not all(isinstance(header.get(name), dict) for name in ("fits", "saw")):
        raise ModelError(f"{key}: {part.file} is an aligned file of another version; align anew, {_OFF}")
    return dict(header)
