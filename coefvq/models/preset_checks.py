"""Whether the parts of a preset fit each other, and whether a checkpoint is the part its preset says it is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from coefvq.errors import ConfigError, ModelError
from coefvq.files import read_json
from coefvq.models.parts import AudioPart, LitePart, Preset, ResNetPart, SiglipPart, SwinPart, TextPart

# sizes that a checkpoint's config.json and a part name alike
_SIZES = (
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "vocab_size",
    "patch_size",
    "max_position_embeddings",
    "rope_theta",
    "rms_norm_eps",
    "embed_dim",
    "depths",
    "num_heads",
    "window_size",
    "embedding_size",
    "hidden_sizes",
)


def check_parts(preset: Preset, where: str) -> None:
    """Refuse sizes that no network can be built of, and weights that nothing would load.

    Raises:
        ConfigError: the first that does not fit; the key begins with ``where``.
    """
    for problem in (*_heads(preset), *_stages(preset), *_sources(preset)):
        raise ConfigError(f"{where}.{problem}")


def _heads(preset: Preset) -> Iterator[str]:
    language, pair = preset.language, preset.siglip
    sizes = [
        ("language.hidden_size", language.hidden_size, "num_attention_heads", language.num_attention_heads),
        (
            "language.num_attention_heads",
            language.num_attention_heads,
            "num_key_value_heads",
            language.num_key_value_heads,
        ),
        ("siglip.vision.hidden_size", pair.vision.hidden_size, "num_attention_heads", pair.vision.num_attention_heads),
        ("siglip.text_hidden_size", pair.text_hidden_size, "text_heads", pair.text_heads),
    ]
    for role, sound in (("audio", preset.audio), ("tower_audio", preset.tower_audio)):
        if isinstance(sound, AudioPart):
            sizes.append((f"{role}.n_state", sound.n_state, "n_head", sound.n_head))
    for role, part in (("tower_text", preset.tower_text), ("vision", preset.vision)):
        if isinstance(part, TextPart | SiglipPart):
            sizes.append((f"{role}.hidden_size", part.hidden_size, "num_attention_heads", part.num_attention_heads))
    for key, size, name, count in sizes:
        if size % count:
            yield f"{key} = {size}: expected a multiple of {name} ({count})"
    if (used := language.layers_used) is not None and used > language.num_hidden_layers:
        yield f"language.layers_used = {used}: expected at most num_hidden_layers ({language.num_hidden_layers})"


def _stages(preset: Preset) -> Iterator[str]:
    for role, part in (("frames", preset.frames), ("tower_frames", preset.tower_frames)):
        if isinstance(part, ResNetPart) and len(part.hidden_sizes) != len(part.depths):
            yield f"{role}.depths: expected as many as hidden_sizes ({len(part.hidden_sizes)}), got {len(part.depths)}"
        if isinstance(part, SwinPart):
            if len(part.num_heads) != len(part.depths):
                yield f"{role}.num_heads: expected as many as depths ({len(part.depths)}), got {len(part.num_heads)}"
            elif part.embed_dim % part.num_heads[0]:
                yield f"{role}.embed_dim = {part.embed_dim}: expected a multiple of num_heads[0] ({part.num_heads[0]})"
    if preset.frame_size is not None and preset.frame_size % 16:
        yield f"frame_size = {preset.frame_size}: expected a multiple of 16, as media.frame_size"


def _sources(preset: Preset) -> Iterator[str]:
    roles = preset.weights.keys()
    if "onevision" in roles and isinstance(preset.vision, LitePart):
        yield "weights.onevision: its vision part is a SigLIP; write vision: {kind: siglip, ...} or name weights.vision"
    if "onevision" in roles and (doubled := roles & {"vision", "language"}):
        yield f"weights.{min(doubled)}: weights.onevision holds it too; keep one of the two"


def _same(wanted: Any, own: Any) -> bool:
    if isinstance(wanted, float) and isinstance(own, int | float):
        return math.isclose(wanted, own, rel_tol=1e-6)  # a checkpoint may have rounded it to float32
    return bool(wanted == own)


def check_checkpoint(folder: Path, part: object, key: str, section: str | None = None) -> None:
    """Compare a part's sizes with the checkpoint's own config.json, where there is one.

    ``section`` is the part's own section of it, as in LLaVA-OneVision's ``text_config``.

    Raises:
        ModelError: they differ; the key is named.
    """
    path = folder / "config.json"
    if not path.is_file():
        return
    config: Mapping[str, Any] = read_json(path)
    config = config.get(section, {}) if section is not None else config
    for name in _SIZES:
        wanted, own = getattr(part, name, None), config.get(name)
        wanted = list(wanted) if isinstance(wanted, tuple) else wanted
        if wanted is not None and own is not None and not _same(wanted, own):
            raise ModelError(f"{key}.{name} = {wanted}: {path} says {own}; write the checkpoint's own value")
