"""Presets: the parts of a model by role, read from YAML. Four ship in ``coefvq/presets``; users add their own files.

A file maps names to presets. A part is a mapping whose ``kind`` says which class of ``models/parts.py`` it is; an
entry of ``weights`` is a source (``weights.sources.source_from``). ``extends`` takes over what another preset says;
a part that is written out anew starts random unless ``weights`` names a source for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from coefvq.config import read_mapping
from coefvq.documents import parse_yaml
from coefvq.errors import ConfigError, ModelError
from coefvq.models.parts import (
    AlignedPart,
    AudioPart,
    LanguagePart,
    LitePart,
    OwnFramePart,
    OwnSoundPart,
    OwnTextPart,
    Preset,
    ResNetPart,
    SiglipPair,
    SiglipPart,
    Size,
    SwinPart,
    TextPart,
)
from coefvq.models.preset_checks import check_parts
from coefvq.models.weights.sources import source_from

_Kinds = Mapping[str, type]
_FRAMES: _Kinds = {"resnet": ResNetPart, "swin": SwinPart, "efficientnet-lite": LitePart, "own": OwnFramePart}
_AUDIO: _Kinds = {"whisper": AudioPart, "own": OwnSoundPart}
#: role -> kinds that can fill it
_PARTS: Mapping[str, _Kinds] = {
    "vision": {"siglip": SiglipPart, "efficientnet-lite": LitePart},
    "language": {"qwen2": LanguagePart, "llama": LanguagePart},
    "audio": _AUDIO,
    "frames": _FRAMES,
    "tower_frames": _FRAMES,
    "tower_text": {"xlm-roberta": TextPart, "bert": TextPart, "own": OwnTextPart},
    "tower_audio": _AUDIO,
    "siglip": {"siglip-pair": SiglipPair},
}
_ROLES = ("onevision", *_PARTS)
#: classes whose field ``model_type`` is the part's ``kind``
_TYPED = (LanguagePart, TextPart)
_SIZES = {"max_text_tokens": Size, "frame_size": Size | None, "summary": str, "licence": str}
_KNOWN = (*_PARTS, *_SIZES, "weights", "aligned", "aligned_base", "extends")
#: what each aligned file is made for
_ALIGNED_ROLES = {
    "aligned": {"onevision", "vision", "language", "audio"},
    "aligned_base": {"tower_frames", "tower_text", "tower_audio"},
}

#: names of the files in ``coefvq/presets``
SHIPPED = ("tiny", "starter", "onevision-0.5b", "paper")
Definition = Mapping[str, Any]


@cache
def shipped_presets() -> Mapping[str, Preset]:
    """Presets of ``coefvq/presets``, by name."""
    definitions = _shipped_definitions()
    return {name: _parse(name, definitions[name], floating=True) for name in SHIPPED}


@cache
def _shipped_definitions() -> Mapping[str, Definition]:
    raw: dict[str, Definition] = {}
    for name in SHIPPED:
        text = (files("coefvq") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
        raw[name] = parse_yaml(text, f"preset {name}", "reinstall coefvq")[name]
    return {name: _extended(name, body, raw) for name, body in raw.items()}


def read_presets(path: Path) -> dict[str, Preset]:
    """A user's presets file, which may be empty (``{}``).

    Raises:
        ConfigError: the file is missing or unreadable, or a preset in it does not fit; the key is named.
    """
    presets: dict[str, Preset] = {}
    known = dict(_shipped_definitions())
    for name, body in read_mapping(path).items():
        key = f"{path}: {name}"
        if name in _shipped_definitions():
            raise ConfigError(
                f"{key}: a preset of that name ships; choose another name (extends: {name} takes it over)"
            )
        if not isinstance(body, dict):
            raise ConfigError(f"{key}: expected a mapping of parts, got {type(body).__name__}")
        known[name] = _extended(key, _absolute(body, path.parent.resolve()), known)
        presets[name] = preset_from(name, known[name], key)
    return presets


def preset_from(name: str, definition: Definition, key: str) -> Preset:
    """A user's preset of its YAML, as a trained model keeps it; ``key`` is its name in errors.

    Raises:
        ConfigError: something does not fit; the key is named.
    """
    return _parse(name, definition, key=key)


def get_preset(name: str, presets: Path | None = None) -> Preset:
    """A preset by name; ``presets`` is a user's file, whose presets are known too.

    Raises:
        ModelError: there is none of that name.
        ConfigError: the file is missing or does not fit.
    """
    known = all_presets(presets)
    if name not in known:
        raise ModelError(f"preset {name!r}: unknown; expected one of {', '.join(sorted(known))}")
    return known[name]


def all_presets(presets: Path | None = None) -> dict[str, Preset]:
    """Presets that ship and those of a user's file, by name."""
    return {**shipped_presets(), **(read_presets(presets) if presets is not None else {})}


def _extended(key: str, body: Definition, known: Mapping[str, Definition]) -> Definition:
    parent = body.get("extends")
    if parent is None:
        return body
    if parent not in known:
        raise ConfigError(f"{key}.extends = {parent!r}: unknown preset; known here: {', '.join(sorted(known))}")
    own = {name: value for name, value in body.items() if name not in ("extends", "weights")}
    lost = set(own) | ({"onevision"} if {"vision", "language"} & own.keys() else set())
    inherited_weights = {role: entry for role, entry in known[parent].get("weights", {}).items() if role not in lost}
    own_weights = body.get("weights", {})
    weights = {**inherited_weights, **own_weights} if isinstance(own_weights, dict) else own_weights
    inherited, before = {**known[parent]}, known[parent].get("weights", {})
    for file, roles in _ALIGNED_ROLES.items():
        reweighted = isinstance(weights, dict) and any(weights.get(role) != before.get(role) for role in roles)
        if own.keys() & roles or reweighted:
            inherited.pop(file, None)  # it fits the parent's parts and weights alone
    return {**inherited, **own, "weights": weights}


def _absolute(definition: Definition, home: Path) -> Definition:
    """Folders of weights and the aligned files as absolute paths, since a model is read from other places too."""
    weights = definition.get("weights")
    for key in _ALIGNED_ROLES:
        aligned = definition.get(key)
        if isinstance(aligned, dict) and isinstance(aligned.get("file"), str):
            definition = {**definition, key: {**aligned, "file": str(home / aligned["file"])}}
    if not isinstance(weights, dict):
        return definition
    fixed = {
        role: {**entry, "folder": str(home / str(entry["folder"]))}
        if isinstance(entry, dict) and "folder" in entry
        else entry
        for role, entry in weights.items()
    }
    return {**definition, "weights": fixed}


def _parse(name: str, raw: Definition, key: str | None = None, floating: bool = False) -> Preset:
    where = key or f"preset {name}"
    for unknown in sorted(set(map(str, raw)) - set(_KNOWN)):
        raise ConfigError(f"{where}.{unknown}: unknown key; known here: {', '.join(_KNOWN)}")
    for role in (*_PARTS, "max_text_tokens"):
        if role not in raw:
            raise ConfigError(f"{where}.{role}: missing; write it out, or take it over with extends: tiny")
    parts = {role: _part(raw[role], kinds, f"{where}.{role}") for role, kinds in _PARTS.items()}
    sizes = {field: _checked(raw[field], kind, f"{where}.{field}") for field, kind in _SIZES.items() if field in raw}
    entries = raw.get("weights", {})
    if not isinstance(entries, dict) or (unknown_roles := sorted(set(map(str, entries)) - set(_ROLES))):
        wrong = f".{unknown_roles[0]}" if isinstance(entries, dict) else ""
        raise ConfigError(f"{where}.weights{wrong}: unknown part; expected a mapping with {', '.join(_ROLES)}")
    named = [role for role in _ROLES if role in entries]
    weights = {
        role: source_from(entries[role], f"{where}.weights.{role}", Path(), floating or _ships(entries[role]))
        for role in named
    }
    own = None if key is None else raw
    parts |= {file: _aligned(raw.get(file), f"{where}.{file}") for file in _ALIGNED_ROLES}
    preset = Preset(name=name, weights=weights, definition=own, **{"summary": "", **sizes}, **parts)
    check_parts(preset, where)
    return preset


def _aligned(raw: Any, key: str) -> AlignedPart | None:
    """A relative file is one that ships: those of a user are absolute by now."""
    if raw is None:
        return None
    part: AlignedPart = _checked(raw, AlignedPart, key)
    return replace(part, file=Path(str(files("coefvq") / "presets")) / part.file)


def _ships(entry: Any) -> bool:
    """Whether a preset that ships says the same; its revision may be a branch until it is pinned there."""
    return any(entry in definition.get("weights", {}).values() for definition in _shipped_definitions().values())


def _part(raw: Any, kinds: _Kinds, key: str) -> Any:
    if not isinstance(raw, dict) or raw.get("kind") not in kinds:
        kind_name = raw.get("kind") if isinstance(raw, dict) else raw
        raise ConfigError(f"{key}.kind = {kind_name!r}: unknown part; known here: {', '.join(kinds)}")
    kind, values = kinds[raw["kind"]], {name: value for name, value in raw.items() if name != "kind"}
    if kind in _TYPED:
        values["model_type"] = raw["kind"]
    if kind is SiglipPair:
        vision = values.get("vision")
        values["vision"] = {name: v for name, v in vision.items() if name != "kind"} if isinstance(vision, dict) else {}
    return _checked(values, kind, key)


def _checked(value: Any, kind: Any, key: str) -> Any:
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    try:
        # JSON mode: strict types, yet YAML lists may fill tuples
        return adapter.validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join([key, *map(str, first["loc"])])
        if first["type"] == "missing":
            raise ConfigError(f"{name}: missing key") from error
        if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            known = ", ".join(sorted({"kind", *adapter.json_schema()["properties"]} - {"model_type"}))
            raise ConfigError(f"{name}: unknown key; known here: {known}") from error
        message = first["msg"].replace("Input should be ", "").strip()
        raise ConfigError(f"{name} = {first['input']!r}: expected {message}") from error
