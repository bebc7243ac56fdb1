"""The aligned file of a preset: projectors and adapters that were trained on descriptions, before any label.

LLaVA-OneVision comes with an aligned projector; parts that never met do not. Such a preset may name one safetensors
file with the weights that learnt to describe, in half precision, and a JSON header: what they saw, which libraries made
them, and the SHA-256 of the frozen weights that they were trained against. They fit no others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from coefvq.documents import parse_json
from coefvq.errors import ModelError
from coefvq.files import ROOM, atomic_path, check_regular, sha256_file, storage_errors
from coefvq.models.frozen import weights_sha256
from coefvq.models.mllm import MultimodalLLM
from coefvq.models.parts import AlignedPart

if TYPE_CHECKING:
    from torch import nn

    from coefvq.models.classifier import Classifier

_FORMAT = 1
#: one key, since the order of several in a safetensors header is no promise
_HEADER = "coefvq"
#: parts that learn to describe; the head and its norm wait for labels
_PARTS = ("vision.", "language.", "audio_projector.")
_SOUND = "audio_projector."
_OFF = "or set mllm.aligned: false"
_REMEDY = f"get the file again, correct its sha256 in the preset, {_OFF}"


def trained_parts(network: MultimodalLLM) -> dict[str, nn.Parameter]:
    """Parameters that learn to describe, by name."""
    return {name: p for name, p in network.named_parameters() if p.requires_grad and name.startswith(_PARTS)}


def frozen_weights(network: MultimodalLLM) -> dict[str, str]:
    """SHA-256 of the frozen weights of vision, language and audio, where there are any.

    Parameters alone, without buffers: tables of positions are as long as the clip, and learn nothing.
    """
    parameters: dict[str, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        part = name.partition(".")[0]
        if not parameter.requires_grad and part in ("vision", "language", "audio"):
            parameters.setdefault(part, []).append(parameter)
    return {part: weights_sha256(weights) for part, weights in parameters.items()}


def save_aligned(path: Path, network: MultimodalLLM, facts: Mapping[str, Any]) -> str:
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
    network, preset = classifier.network, classifier.config.parts
    if classifier.config.aligned is None or preset.aligned is None or not isinstance(network, MultimodalLLM):
        return
    load_aligned(network, preset.aligned, f"preset {preset.name}: aligned")


def load_aligned(network: MultimodalLLM, part: AlignedPart, key: str) -> None:
    """Put an aligned file into a fresh network in place. ``key`` is the file's name in errors.

    A network without audio does not use the file's projector of sound.

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
    unused = set() if network.audio_projector else {name for name in tensors if name.startswith(_SOUND)}
    wrong = sorted((tensors.keys() - unused) ^ wanted.keys())
    wrong = wrong or [name for name, own in wanted.items() if own.shape != tensors[name].shape]
    if wrong:
        raise ModelError(
            f"{key}: not of this network ({len(wrong)} tensors, e.g. {wrong[0]}); keep the preset's parts, lora.rank "
            f"and fusion as they were, align anew, {_OFF}"
        )
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(tensors[name])


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
