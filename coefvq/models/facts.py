"""What a preset is and needs, counted on the meta device: parts, licences, download, disk and memory."""

from __future__ import annotations

from typing import Any

from coefvq.config import Lora, MediaSpec
from coefvq.models.counting import count_base, count_mllm, meta_mllm
from coefvq.models.parts import Preset
from coefvq.models.planning import BASES, training_memory
from coefvq.models.weights.sources import Source

_LORA = Lora(rank=32, alpha=64, dropout=0.0)
_GIB, _FULL = 1024**3, 4
_RANDOM_ROLES = ("vision", "language", "audio", "frames", "tower_frames", "tower_text", "tower_audio", "siglip")


def preset_facts(preset: Preset) -> dict[str, Any]:
    """JSON-able facts: ``parts`` in rows, ``download_megabytes`` and ``disk_megabytes`` of all, ``memory_gib``.

    Memory: ``score_fp32`` and ``score_bf16`` are the MLLM's weights, ``train`` is the planner's estimate for one
    rank (LoRA rank 32, one video, bf16), ``score_bases_fp32`` the weights of each base model. What comes on top
    for scoring, activations, is not in it.
    """
    media = MediaSpec(frames=8, frame_size=preset.frame_size or 64, audio_seconds=30.0)
    network = meta_mllm(preset, media, _LORA, "late")
    mllm = count_mllm(network, preset)
    bases = {kind: count_base(preset, kind, media) for kind in BASES}
    sizes = {
        "onevision": sum(mllm.parts[part] for part in ("vision encoder", "projector", "language model")),
        "vision": mllm.parts["vision encoder"],
        "language": mllm.parts["language model"],
        "audio": mllm.parts["audio encoder"],
        "frames": bases["frames"].parts["frames"],
        "tower_frames": bases["multitower"].parts["frames"],
        "tower_text": bases["multitower"].parts["text"],
        "tower_audio": bases["multitower"].parts["audio"],
        "siglip": bases["siglip"].parts["siglip"],
    }
    used = set(preset.weights.values())
    training = training_memory(preset, media, _LORA, network, gpus=1, memory_gib=None)
    return {
        "name": preset.name,
        "summary": preset.summary,
        "licence": preset.licence,
        "parts": _parts(preset, sizes),
        "download_megabytes": sum(source.megabytes for source in used),
        "disk_megabytes": sum(source.converted_megabytes for source in used),
        "memory_gib": {
            "score_fp32": round(mllm.total * _FULL / _GIB, 3),
            "score_bf16": round(mllm.total * _FULL / 2 / _GIB, 3),
            "train": round(training.total, 3),
            "score_bases_fp32": {kind: round(base.total * _FULL / _GIB, 3) for kind, base in bases.items()},
        },
    }


def _parts(preset: Preset, sizes: dict[str, int]) -> list[dict[str, Any]]:
    sources: dict[str, Source | None] = dict(preset.weights)
    if not preset.weights or preset.definition is not None:
        published = {*sources, *(("vision", "language") if "onevision" in sources else ())}
        sources |= {role: None for role in _RANDOM_ROLES if role not in published}
    return [
        {
            "part": role,
            "parameters": sizes[role],
            "weights": source.origin if source else "random",
            "licence": source.licence if source else preset.licence,
            "megabytes": source.megabytes if source else 0,
            "disk_megabytes": source.converted_megabytes if source else 0,
        }
        for role, source in sources.items()
    ]
