"""Loading in one thread leaves what another one builds alone."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from coefvq.config import BaseModelParams, MediaSpec
from coefvq.models.assembly import NetworkBuilder
from coefvq.models.classifier import build, load
from coefvq.models.model_config import base_config
from tests.settings import training_settings

CONFIG = base_config(
    "icd",
    BaseModelParams(
        preset="tiny",
        architecture="frames",
        audio=False,
        motion=False,
        freeze_towers=False,
        training=training_settings(),
    ),
    MediaSpec(frames=2, frame_size=64, audio_seconds=1.0),
)


def test_a_network_is_initialised_while_another_thread_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(CONFIG, None).save(tmp_path)
    initialisers: dict[str, Any] = {"untouched": torch.nn.init.kaiming_uniform_}
    loading, building, release = threading.Event(), threading.Event(), threading.Event()
    frames = NetworkBuilder.frames

    def paused(self: NetworkBuilder, *options: Any) -> Any:
        name = threading.current_thread().name
        initialisers[name] = torch.nn.init.kaiming_uniform_
        if name == "loads":
            loading.set()
            release.wait(60)
        else:
            building.set()
        return frames(self, *options)

    monkeypatch.setattr(NetworkBuilder, "frames", paused)
    loads = threading.Thread(target=load, args=(tmp_path,), name="loads")
    builds = threading.Thread(target=build, args=(CONFIG, None), name="builds")
    loads.start()
    assert loading.wait(60)
    builds.start()
    building.wait(1)  # it must not come so far; where it does, it sees the initialisers that do nothing
    release.set()
    for thread in (loads, builds):
        thread.join(60)
    assert initialisers["loads"] is not initialisers["untouched"]
    assert initialisers["builds"] is initialisers["untouched"]
    assert torch.nn.init.kaiming_uniform_ is initialisers["untouched"]
