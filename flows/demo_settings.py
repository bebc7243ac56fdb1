"""What the demo changes in a new workspace's params.yaml, by preset and by where its clips come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: clips for four minutes, and for a quarter of an hour, on two cores
VIDEOS = {"tiny": 2000, "starter": 900}

# frozen published towers: their outputs are cached, so that only heads, adapters and the projector train
_STARTER_MEDIA = {"frames": 8, "frame_size": 160, "audio_seconds": 3.0}
# a head on cached outputs: its epochs cost nothing, and so few validation clips make the criterion jump
_STARTER_BASE_TRAINING = {"num_train_epochs": 20, "learning_rate": 0.001, "early_stopping_patience": None}
_STARTER_MLLM_TRAINING = {
    "num_train_epochs": 3,
    "early_stopping_patience": None,
    "per_device_train_batch_size": 8,
    "learning_rate": 0.0005,
    "bf16": "auto",
    "head_learning_rate": 0.001,
    "projector_learning_rate": 0.0002,
}
_STARTER_WARMUP = {
    "projector_epochs": 8,
    "objective": "words",
    "epochs": 3,
    "per_device_train_batch_size": 8,
    "learning_rate": 0.001,
    "max_tokens": 64,
}


def preset_settings(preset: str, issues: Sequence[str], described: bool) -> dict[str, Any]:
    """Dotted keys that make both models of all ``issues`` of ``preset``.

    ``described``: the clips come with descriptions, so that the projector can be warmed up. Equal settings of the
    issues let them share the warm-up.
    """
    chosen: dict[str, Any] = {f"{kind}.{name}.preset": preset for kind in ("base", "mllm") for name in issues}
    # stability scores each in six other ways: the 64 of params.yaml would take too much of the demo's minutes
    chosen["stability.videos_per_threshold"] = 8
    if preset != "starter":
        return chosen
    for name in issues:
        chosen[f"media.{name}"] = _STARTER_MEDIA
        chosen |= {f"base.{name}.freeze_towers": True, f"base.{name}.motion": True}
        chosen |= {f"base.{name}.training.{key}": value for key, value in _STARTER_BASE_TRAINING.items()}
        chosen |= {f"mllm.{name}.audio": True, f"mllm.{name}.motion": True, f"mllm.{name}.fusion": "early"}
        chosen |= {f"mllm.{name}.pooling": "mean", f"mllm.{name}.lora.rank": 32, f"mllm.{name}.lora.alpha": 64}
        chosen[f"mllm.{name}.description_weight"] = 2.0 if described else 0.0
        chosen[f"mllm.{name}.warmup"] = _STARTER_WARMUP if described else None
        chosen |= {f"mllm.{name}.training.{key}": value for key, value in _STARTER_MLLM_TRAINING.items()}
    return chosen
