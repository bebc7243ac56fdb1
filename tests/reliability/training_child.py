"""Trainings in forked processes that kill themselves with SIGKILL at an event given by the parent.

An event is a training step, or one block of a checkpoint being written (flushed, so that the disk has it), or the
moment before a checkpoint becomes visible. Libraries are imported once; every training is a process of its own.

Reads lines of JSON from stdin: {"folder", "kill": [kind, number] or null, "out"}; answers each with the signal or
exit code of the training and the number of events of each kind that it saw.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from coefvq.config import Lora, MediaSpec, MLLMParams
from coefvq.data.media.clips import ClipStore
from coefvq.data.media.decode import DEFAULT_LIMITS, Clip
from coefvq.models.classifier import build
from coefvq.models.dataset import VideoDataset
from coefvq.models.model_config import mllm_config
from coefvq.models.text import train_text_encoder
from coefvq.records import VideoInput
from coefvq.training import checkpoints
from coefvq.training.checkpoints import CheckpointFolder
from coefvq.training.loop import FitData, FitPlan, fit, seed_everything
from coefvq.training.noise import FeatureNoise, noisy_features
from coefvq.training.objective import Monitored
from coefvq.training.word_alignment import description_words
from tests.settings import training_settings

MEDIA = MediaSpec(frames=2, frame_size=32, audio_seconds=1.0)
SETTINGS = training_settings(
    num_train_epochs=4, per_device_train_batch_size=4, gradient_accumulation_steps=2, learning_rate=3e-3,
    weight_decay=0.01, warmup_steps=0.1, lr_scheduler_type="cosine", head_learning_rate=5e-3,
    average_weights=0.7,
)  # fmt: skip
WORDS = ("red", "cup", "street", "song", "cat", "goal")


class Noise(ClipStore):
    """Clips made on the spot; positives are a little brighter."""

    def get(self, video: VideoInput) -> Clip:
        random = np.random.default_rng(int(video.video_id))
        level = 100 + 12 * (int(video.video_id) % 2)
        frames = np.clip(random.normal(level, 50, (2, 3, 32, 32)), 0, 255).astype(np.uint8)
        return Clip(frames, random.integers(-9000, 9000, 16000).astype(np.int16))


def rows(start: int, stop: int) -> VideoDataset:
    videos = [VideoInput(str(i), Path(str(i)), title=f"{WORDS[i % 6]} {WORDS[i % 5]}") for i in range(start, stop)]
    return VideoDataset(videos, Noise(Path(), MEDIA, DEFAULT_LIMITS), [i % 2 for i in range(start, stop)])


def train(folder: str | None, out: Path) -> None:
    """A tiny MLLM with dropout, so that random numbers matter; the result goes to ``out``."""
    seed_everything(5)
    params = MLLMParams(
        preset="tiny", fusion="late", text=True, audio=True, motion=False,
        lora=Lora(rank=4, alpha=8, dropout=0.2), training=SETTINGS,
    )  # fmt: skip
    model = build(mllm_config("ucc", params, MEDIA), train_text_encoder(WORDS, 512, 16), params.lora.dropout)
    # 27 rows: a short last batch and a short last accumulation
    kept = None if folder is None else CheckpointFolder(Path(folder), {"preset": "tiny"}, steps=2, limit=2)
    words = description_words(model.text, [(WORDS[i % 6],) if i % 9 else () for i in range(27)])
    with noisy_features(model.network, FeatureNoise(0.2, 0.1)):
        result = fit(
            model,
            FitData(rows(0, 27), rows(100, 116), descriptions=(words, 0.5)),
            FitPlan(SETTINGS, 5, checkpoints=kept),
        )
    save_file({name: value.contiguous().clone() for name, value in model.network.state_dict().items()}, f"{out}.tmp")
    Path(f"{out}.json").write_text(json.dumps((*result.curve, {"best": result.best_epoch}), sort_keys=True))
    Path(f"{out}.tmp").rename(out)


def count_events(kill: tuple[str, int] | None, seen: Counter[str]) -> None:
    """Hook the events; at the chosen one this process is gone."""

    def event(kind: str) -> None:
        seen[kind] += 1
        if kill is not None and (kind, seen[kind]) == kill:
            os.kill(os.getpid(), signal.SIGKILL)

    def write(path: Path, content: bytes) -> None:
        with path.open("wb") as stream:
            for start in range(0, len(content), 4096):
                stream.write(content[start : start + 4096])
                stream.flush()
                event("block")

    watch, sync = Monitored._watch, checkpoints._sync_folder

    def watched(self: Monitored, loss: torch.Tensor, index: torch.Tensor) -> None:
        watch(self, loss, index)
        event("step")

    def synced(path: Path) -> None:
        event("rename")
        sync(path)

    Monitored._watch = watched  # type: ignore[method-assign]
    checkpoints._write = write
    checkpoints._sync_folder = synced


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """Run one job in a forked process."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        seen: Counter[str] = Counter()
        count_events(tuple(job["kill"]) if job["kill"] else None, seen)
        code = 1
        try:
            train(job["folder"], Path(job["out"]))
            code = 0
        finally:
            os.write(writer, json.dumps(seen).encode())
            os._exit(code)
    os.close(writer)
    text = os.read(reader, 4096)
    os.close(reader)
    _, status = os.waitpid(pid, 0)
    return {"status": os.waitstatus_to_exitcode(status), "events": json.loads(text) if text else None}


if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
