"""Does a hub recipe work on this card? Load, train, resume, score; then a table to paste into an issue.

    make gpu-check                                    # on the card, LLaVA-OneVision-0.5B's shapes, ten minutes at most
    python benchmarks/gpu_check.py --preset paper     # 7B's shapes, if there is room
    python benchmarks/gpu_check.py --device cpu       # one layer, narrow: whether the script itself works

Weights are random and nothing is downloaded: speed, memory and precision do not depend on what a model has learnt.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.miniature import definition_of, write_weights
from coefvq.config import Lora, MediaSpec, MLLMParams, Scoring, Training
from coefvq.data.media.clips import ClipStore
from coefvq.data.media.decode import Clip
from coefvq.data.media.limits import kept_limits
from coefvq.documents import parse_yaml
from coefvq.inference import NOTHING, load_for_scoring, score_dataset
from coefvq.models.assembly import device
from coefvq.models.classifier import Classifier, build
from coefvq.models.dataset import VideoDataset
from coefvq.models.loader import loader_processes
from coefvq.models.model_config import ModelConfig, mllm_config
from coefvq.models.planning import MemoryPlan, plan
from coefvq.models.vocabulary import text_encoder
from coefvq.records import VideoInput
from coefvq.shipped_recipes import shipped_recipe
from coefvq.training.arguments import use_bf16
from coefvq.training.checkpoints import CheckpointFolder
from coefvq.training.loop import FitData, FitPlan, FitResult, fit, seed_everything

_PUBLISHED = {"onevision-0.5b": 24, "paper": 28}
_LORA = Lora(rank=32, alpha=64, dropout=0.0)
_GIB = 1024**3


class StopHereError(Exception):
    """Ends a training as a kill would, between two checkpoints."""


class Noise(ClipStore):
    """Clips that cost nothing to make."""

    def get(self, video: VideoInput) -> Clip:
        return _noise(self.spec.frames, self.spec.frame_size, round(self.spec.audio_seconds * 16_000))


@cache
def _noise(frames: int, size: int, samples: int) -> Clip:
    random = np.random.default_rng(3)
    pixels = random.integers(0, 255, (frames, 3, size, size)).astype(np.uint8)
    return Clip(pixels, random.integers(-9000, 9000, samples).astype(np.int16))


@dataclass
class Check:
    """One run: what is checked, and the rows of the table so far."""

    preset: str
    layers: int
    narrow: bool
    frames: int
    batch: int
    steps: int
    scratch: Path
    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def run(self) -> bool:
        """All steps; whether every one of them is as it should be."""
        config = self._config()
        planned = self._planned(config)
        first = self._loaded(config)
        result = self._trained(config, first)
        self._memory(result, planned)
        self._scored(first, result)
        return all(verdict != "LOOK" for _, _, verdict in self.rows)

    def say(self, what: str, found: str, good: bool | None = None) -> None:
        """A row of the table, shown as soon as it is known."""
        self.rows.append((what, found, "" if good is None else "ok" if good else "LOOK"))
        print("| " + " | ".join(self.rows[-1]) + " |", flush=True)

    @property
    def media(self) -> MediaSpec:
        """What the published parts see, with fewer frames on a CPU."""
        return MediaSpec(frames=self.frames, frame_size=384, audio_seconds=30.0)

    @property
    def training(self) -> Training:
        """As the recipe trains, for so many steps of one card."""
        recipe = parse_yaml(shipped_recipe(self.preset).text, self.preset, "reinstall coefvq")
        changes = {
            "num_train_epochs": 1, "per_device_train_batch_size": self.batch, "gradient_accumulation_steps": 1,
            "nproc_per_node": 1, "deepspeed": None,
        }  # fmt: skip
        return Training(**recipe["mllm"]["training"] | changes)

    def _config(self) -> ModelConfig:
        start = time.perf_counter()
        definition = definition_of(self.preset, self.layers, self.narrow)
        write_weights(self.scratch / "weights", definition, ("onevision", "audio"))
        params = MLLMParams(
            preset="miniature", fusion="late", text=True, audio=True, motion=False, lora=_LORA, training=self.training
        )
        config = mllm_config("check", params, self.media, definition)
        self.say("random checkpoint written", f"{time.perf_counter() - start:.0f} s")
        return config.model_copy(update={"dtype": "bfloat16"}) if use_bf16(self.training.bf16) else config

    def _planned(self, config: ModelConfig) -> MemoryPlan:
        checkpointing = self.training.activation_checkpointing
        return plan(
            config.parts, config.media, _LORA, "late", gpus=1, memory_gib=None, batch_size=self.batch,
            activation_checkpointing=checkpointing,
        )  # fmt: skip

    def _loaded(self, config: ModelConfig) -> Classifier:
        start = time.perf_counter()
        classifier = self._fresh(config)
        count = sum(parameter.numel() for parameter in classifier.network.parameters())
        self.say("loaded", f"{count / 1e9:.2f} G parameters in {time.perf_counter() - start:.1f} s")
        return classifier

    def _fresh(self, config: ModelConfig) -> Classifier:
        seed_everything(1)
        classifier = build(config, text_encoder(config, []))
        classifier.network.to(device())
        return classifier

    def _rows(self, start: int, count: int) -> VideoDataset:
        store = Noise(self.scratch, self.media, kept_limits(None))
        videos = [VideoInput(str(n), Path(str(n)), "watch till the end") for n in range(start, start + count)]
        return VideoDataset(videos, store, [n % 2 for n in range(start, start + count)])

    def _trained(self, config: ModelConfig, classifier: Classifier) -> FitResult:
        """Stopped at three quarters of the steps, then taken up from the checkpoint at half of them."""
        half, stop = self.steps // 2, self.steps * 3 // 4
        kept = CheckpointFolder(self.scratch / "checkpoints", {"check": self.preset}, steps=half)
        loaders = loader_processes("auto")

        def once(model: Classifier) -> FitResult:
            collator = replace(model.collator, raw=True)
            data = FitData(self._rows(0, self.steps * self.batch), self._rows(9000, 4), collator=collator)
            return fit(model, data, FitPlan(self.training, 1, checkpoints=kept, loaders=loaders))

        seen = _counted(classifier, stop + 1)
        with suppress(StopHereError):
            once(classifier)
        self.say("trained, then stopped", f"{seen[0] - 1} of {self.steps} steps", seen[0] == stop + 1)
        again = self._fresh(config)
        seen = _counted(again, None)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        result = once(again)
        done, loss = seen[0], result.curve[-1]["loss"]
        self.say("resumed", f"{done} steps more, loss {loss:.3f}", done == self.steps - half and loss == loss)
        speed, tokens = result.cost.samples_per_second, result.cost.tokens_per_second or 0.0
        self.say("training speed, with validation", f"{speed:.2f} videos/s, {tokens:,.0f} tokens/s")
        classifier.network.load_state_dict(again.network.state_dict())
        return result

    def _memory(self, result: FitResult, planned: MemoryPlan) -> None:
        if not torch.cuda.is_available():
            self.say("memory, peak / plan", "no card")
            return
        peak = result.cost.peak_memory_mib / 1024
        expected = planned.memory.total
        # the plan leaves out vision towers' activations and what CUDA keeps for itself
        self.say(
            "memory, peak / plan", f"{peak:.2f} / {expected:.2f} GiB", 0.6 * expected < peak < 1.5 * expected + 1.0
        )

    def _scored(self, classifier: Classifier, result: FitResult) -> None:
        folder = self.scratch / "model"
        classifier.save(folder)
        del classifier, result
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        data, scores = self._rows(20_000, 4 * self.batch), {}
        unlabelled = VideoDataset(data._videos, data._store)
        for dtype in ("float32", "bfloat16"):
            ready = load_for_scoring(folder, Scoring(dtype=dtype, savings="exact", approximate=NOTHING))
            collator = replace(ready.collator, raw=True)
            score_dataset(ready, VideoDataset(data._videos[:1], data._store), collator, 1)  # warms up
            start = time.perf_counter()
            scores[dtype] = score_dataset(ready, unlabelled, collator, self.batch, loaders=loader_processes("auto"))
            seconds = time.perf_counter() - start
            self.say(f"scoring, {dtype}", f"{len(data) / seconds:.2f} videos/s", bool(np.isfinite(scores[dtype]).all()))
            del ready
        difference = float(np.abs(scores["float32"] - scores["bfloat16"]).max())
        self.say("bfloat16 against float32", f"scores differ by {difference:.4f} at most", difference < 0.05)


def _counted(classifier: Classifier, stop: int | None) -> list[int]:
    """How often the network was called while it trained; at ``stop`` it ends the training."""
    seen = [0]

    def called(network: Any, _: Any) -> None:
        if network.training:
            seen[0] += 1
            if seen[0] == stop:
                raise StopHereError

    classifier.network.register_forward_pre_hook(called)
    return seen


def _machine() -> str:
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    if not torch.cuda.is_available():
        return f"CPU, {os.cpu_count()} cores, {versions}"
    card = torch.cuda.get_device_properties(0)
    return f"{torch.cuda.device_count()} × {card.name}, {card.total_memory / _GIB:.0f} GiB, {versions}"


def main() -> None:
    """Run the check; exits with 1 if a row says LOOK."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--preset", choices=tuple(_PUBLISHED), default="onevision-0.5b")
    parser.add_argument("--batch", type=int, help="videos per step; default 4, on a CPU 1")
    parser.add_argument("--steps", type=int, help="default 20, on a CPU 4")
    chosen = parser.parse_args()
    on_cpu = chosen.device == "cpu"
    logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator" not in record.getMessage())
    if on_cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif not torch.cuda.is_available():
        sys.exit("no CUDA device answers; --device cpu runs the same steps at small sizes")
    with tempfile.TemporaryDirectory(prefix="coefvq-gpu-check-") as scratch:
        os.environ["COEFVQ_WEIGHTS"], os.environ["COEFVQ_CACHE"] = f"{scratch}/weights", f"{scratch}/cache"
        print(f"| {chosen.preset} | {_machine()} | |\n|---|---|---|")
        check = Check(
            chosen.preset,
            layers=1 if on_cpu else _PUBLISHED[chosen.preset],
            narrow=on_cpu,
            frames=2 if on_cpu else 8,
            batch=chosen.batch or (1 if on_cpu else 4),
            steps=chosen.steps or (4 if on_cpu else 20),
            scratch=Path(scratch),
        )
        good = check.run()
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
