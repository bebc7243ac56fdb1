"""One rank of a training: every case of test_ranks.py in one launch, results as JSON from rank 0.

Usage: python rank_child.py (ddp|zero2) OUT
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from coefvq.config import Lora, MLLMParams, Training
from coefvq.models.assembly import freeze_module
from coefvq.models.classifier import Classifier, build
from coefvq.models.dataset import Example, VideoDataset
from coefvq.models.model_config import mllm_config
from coefvq.models.text import train_text_encoder
from coefvq.training.checkpoints import CheckpointFolder
from coefvq.training.loop import FitData, FitPlan, fit, seed_everything
from coefvq.training.ranks import rank, world_size
from tests.reliability.training_child import MEDIA, WORDS, rows
from tests.settings import training_settings

GLOBAL_BATCH = 8


class StopHereError(Exception):
    """Ends a training on all ranks at once."""


class Lame(VideoDataset):
    """What only rank 1 misses: all sound, and the labels of the second issue."""

    def __getitem__(self, index: int) -> Example:
        example = super().__getitem__(index)
        if rank() == 0 or example.clip is None:
            return Example(example.clip, example.text, (index % 2, index % 3 % 2))
        silent = type(example.clip)(example.clip.frames, example.clip.waveform[:0])
        return Example(silent, example.text, (index % 2, -100))


def settings(deepspeed: str | None, **changes: Any) -> Training:
    values = {
        "num_train_epochs": 2, "per_device_train_batch_size": GLOBAL_BATCH // world_size(), "learning_rate": 3e-3,
        "positive_weight": 3.0, "head_learning_rate": 5e-3, "lr_scheduler_type": "cosine",
    }  # fmt: skip
    return training_settings(**values | {"deepspeed": deepspeed} | changes)


def model(training: Training, issues: str | tuple[str, ...] = "ucc", dropout: float = 0.0) -> Classifier:
    seed_everything(5)
    params = MLLMParams(
        preset="tiny", fusion="late", text=True, audio=True, motion=False,
        lora=Lora(rank=4, alpha=8, dropout=dropout), training=training,
    )  # fmt: skip
    return build(mllm_config(issues, params, MEDIA), train_text_encoder(WORDS, 512, 16), dropout)


def outcome(classifier: Classifier, curve: Sequence[dict[str, float]]) -> dict[str, Any]:
    return {"curve": list(curve), "weights": fingerprint(classifier)}


def fingerprint(classifier: Classifier) -> list[float]:
    """Two sums per tensor: enough to see a difference of 1e-4."""
    tensors = [tensor.double() for tensor in classifier.network.state_dict().values()]
    return [value for tensor in tensors for value in (tensor.sum().item(), tensor.abs().sum().item())]


def equality(deepspeed: str | None) -> dict[str, Any]:
    training = settings(deepspeed)
    classifier = model(training)
    return outcome(classifier, fit(classifier, FitData(rows(0, 32), rows(100, 116)), FitPlan(training, 5)).curve)


def lame(deepspeed: str | None) -> dict[str, Any]:
    """27 rows do not divide by the batch; rank 1 has no sound and half the labels; three steps accumulate."""
    training = settings(deepspeed, gradient_accumulation_steps=3)
    classifier = model(training, ("icd", "ucc"))
    plain = rows(0, 27)
    train = Lame(plain._videos, plain._store, [(0, 0)] * 27)
    val = VideoDataset(plain._videos[:13], plain._store, [(i % 2, i % 3 % 2) for i in range(13)])
    return outcome(classifier, fit(classifier, FitData(train, val), FitPlan(training, 5)).curve)


def with_sound(deepspeed: str | None) -> dict[str, Any]:
    """In bfloat16, once with a Whisper that trains and once with a frozen one, as a published one is."""
    training = settings(deepspeed, bf16=True)
    found = {}
    for name in ("trained", "frozen"):
        classifier = model(training)
        audio: Any = classifier.network.audio
        if name == "frozen":
            freeze_module(audio)
        before = {key: value.clone() for key, value in audio.state_dict().items()}
        result = outcome(classifier, fit(classifier, FitData(rows(0, 32), rows(100, 116)), FitPlan(training, 5)).curve)
        unchanged = all(torch.equal(value, before[key]) for key, value in audio.state_dict().items())
        rotary = classifier.network.language.decoder.get_base_model().rotary_emb
        exact = torch.equal(rotary.inv_freq, rotary.compute_default_rope_parameters(rotary.config)[0])
        found[name] = {**result, "whisper_unchanged": unchanged, "rotary_exact": exact}
    return found


def resumed(deepspeed: str | None, folder: Path) -> dict[str, Any]:
    """Stopped in the middle of the second epoch; dropout makes random numbers matter."""
    training = settings(deepspeed)
    whole = model(training, dropout=0.3)
    curve = fit(whole, FitData(rows(0, 32), rows(100, 116)), FitPlan(training, 5)).curve
    expected = outcome(whole, curve)

    checkpoints = CheckpointFolder(folder, {"preset": "tiny"}, steps=2)
    first = model(training, dropout=0.3)
    collate, seen = first.collator, [0]

    def failing(examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        seen[0] += 1
        # per rank: 4 batches of training, 1 or 2 of validation, and the loader is one ahead
        if seen[0] == 10:
            raise StopHereError
        return collate(examples)

    try:
        fit(
            first, FitData(rows(0, 32), rows(100, 116), collator=failing), FitPlan(training, 5, checkpoints=checkpoints)
        )
    except StopHereError:
        left = sorted(path.name for path in folder.glob("step-*"))
    second = model(training, dropout=0.3)
    found = outcome(
        second, fit(second, FitData(rows(0, 32), rows(100, 116)), FitPlan(training, 5, checkpoints=checkpoints)).curve
    )
    return {"expected": expected, "found": found, "left": left}


def main(deepspeed: str | None, out: Path) -> None:
    result = {"equality": equality(deepspeed)}
    if world_size() > 1:
        result |= {
            "sound": with_sound(deepspeed),
            "lame": lame(deepspeed),
            "resumed": resumed(deepspeed, out.parent / f"checkpoints-{deepspeed}"),
        }
    if rank() == 0:
        out.write_text(json.dumps(result))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(None if sys.argv[1] == "ddp" else sys.argv[1], Path(sys.argv[2]))
