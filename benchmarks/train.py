"""LoRA fine-tuning with cached towers against a plain HF Trainer loop that runs them in every epoch.

    python benchmarks/train.py          3 epochs, 8 videos, 3 paired repeats
    python benchmarks/train.py --quick  3 epochs, 4 videos, 1 repeat

LLaVA-OneVision-0.5B at its proportions, scaled down (`SCALE` says how, the output how near the shares of the work
come), random weights, fp32 (the Trainer's default), one thread. All rows start from the same weights, see the same
videos in the same batches and train the same LoRA matrices:

    peer                transformers' LlavaOnevisionForConditionalGeneration; loss from the two answer tokens of its
                        logits, which it computes for every position
    peer, last logits   the same with `logits_to_keep=1`, so that no other position's logits are computed
    coefvq              frozen towers once, into the feature cache on disk; then the language model and a head made of
                        the two answer tokens' rows

Times are CPU seconds of the process, the building of the cache included. The last line is JSON; exit code 1 where
a ratio misses its target or losses differ by more than 1e-4.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn
from transformers import (
    LlavaOnevisionForConditionalGeneration,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from coefvq.config import Lora, MediaSpec
from coefvq.data.media.clips import ClipStore
from coefvq.data.media.decode import DEFAULT_LIMITS
from coefvq.models.assembly import freeze_module
from coefvq.models.classifier import Classifier
from coefvq.models.dataset import Collator, VideoDataset
from coefvq.models.language import LanguageBranch
from coefvq.models.mllm import MultimodalLLM
from coefvq.models.model_config import ModelConfig
from coefvq.models.packed import packed_frozen
from coefvq.models.parts import LanguagePart, SiglipPart
from coefvq.models.presets import get_preset
from coefvq.models.text import TextEncoder, train_text_encoder
from coefvq.models.vision import SiglipBranch, onevision_config, visual_tokens
from coefvq.records import VideoInput
from coefvq.training.features.build import FeatureBuilder
from coefvq.training.features.keys import cached_model
from coefvq.training.features.reader import feature_collator, reader
from coefvq.training.features.store import FeatureStore

SCALE = "widths, tokens per frame and vocabulary 1/4; depths and 8 frames as in the original"
TARGET, TARGET_LAST = 2.0, 1.6
_VISION = SiglipPart(288, 26, 4, 1076, patch_size=16)
_LANGUAGE = LanguagePart("qwen2", 224, 24, 7, 1, 1216, vocab_size=38_000, rope_theta=1_000_000.0)
_FRAME_SIZE, _FRAMES, _EPOCHS, _BATCH = 224, 8, 3, 4
_LORA = Lora(rank=16, alpha=32, dropout=0.0)
_ANSWERS = [17, 23]  # the tokens that mean "no" and "yes"; with random weights any two will do
_WORDS = ["watch", "till", "the", "end", "this", "is", "what", "happened", "when", "nobody", "was", "looking"]


@dataclass(frozen=True)
class Run:
    """One training: CPU seconds before the first epoch and after each, and the loss of each step."""

    build: float
    epochs: list[float]
    losses: list[float]

    @property
    def total(self) -> float:
        """CPU seconds."""
        return self.build + sum(self.epochs)


class Peer(nn.Module):
    """transformers' model with LoRA; loss as ours, from the logits of its last position."""

    accepts_loss_kwargs = False

    def __init__(self, model: nn.Module, last_only: bool) -> None:
        super().__init__()
        self.model, self.last_only = model, last_only

    def forward(
        self, labels: torch.Tensor, pixel_values: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Cross-entropy between the two answers."""
        logits = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values_videos=pixel_values,
            use_cache=False,
            logits_to_keep=int(self.last_only),
        ).logits[:, -1, _ANSWERS]
        return {"loss": nn.functional.cross_entropy(logits.float(), labels), "logits": logits}


class Ours(nn.Module):
    """The MLLM and the same loss."""

    accepts_loss_kwargs = False

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, labels: torch.Tensor, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Cross-entropy between the two classes."""
        logits = self.network(**inputs)
        return {"loss": nn.functional.cross_entropy(logits.float(), labels), "logits": logits}


class _Clock(TrainerCallback):
    """CPU time of each epoch, loss of each step."""

    def __init__(self) -> None:
        self.epochs: list[float] = []
        self.losses: list[float] = []
        self._start = 0.0

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        self._start = time.process_time()

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        self.epochs.append(time.process_time() - self._start)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))


def onevision(text: TextEncoder) -> LlavaOnevisionForConditionalGeneration:
    """The peer's model, random."""
    config = onevision_config(_VISION, _LANGUAGE, _FRAME_SIZE)
    config.video_token_id = config.video_token_index = text.video_id
    set_seed(0)
    model = LlavaOnevisionForConditionalGeneration(config)
    model.requires_grad_(False)
    return model


def ours(theirs: LlavaOnevisionForConditionalGeneration, text: TextEncoder) -> Classifier:
    """coefvq's network around a copy of the peer's weights; its head is the answers' rows of the lm_head."""
    model = copy.deepcopy(theirs.model)
    decoder = model.language_model
    model.language_model = nn.Identity()
    vision = SiglipBranch(model)
    freeze_module(vision)
    language = LanguageBranch(decoder, text.video_id, _LORA)
    tokens = visual_tokens(vision, _FRAMES)
    network = MultimodalLLM(vision, language, None, fusion="none", visual_tokens=tokens)
    norm: Any = nn.Identity()  # the peer has none between its last state and its logits
    norm.weight = torch.zeros(())
    network.norm = norm
    with torch.no_grad():
        network.head.weight.copy_(theirs.lm_head.weight[_ANSWERS])
        network.head.bias.zero_()
    network.head.requires_grad_(False)
    media = MediaSpec(frames=_FRAMES, frame_size=_FRAME_SIZE, audio_seconds=1.0)
    config = ModelConfig(issues=("x",), kind="mllm", preset="tiny", architecture="mllm", media=media, text=True)
    return Classifier(config, network, text)


def with_same_lora(theirs: nn.Module, mine: MultimodalLLM) -> nn.Module:
    """The peer with PEFT's LoRA on the same layers, starting from the same matrices."""
    from peft import LoraConfig, get_peft_model

    layers = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    config = LoraConfig(r=_LORA.rank, lora_alpha=_LORA.alpha, lora_dropout=_LORA.dropout, target_modules=layers)
    adapted = get_peft_model(copy.deepcopy(theirs), config)
    mine_by_name = {name.split(".layers.")[1]: p for name, p in mine.named_parameters() if "lora_" in name}
    count = 0
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(mine_by_name[name.split(".layers.")[1]])
                count += 1
    if count != len(mine_by_name):
        raise RuntimeError(f"{count} LoRA matrices in the peer, {len(mine_by_name)} in ours")
    return adapted


def videos(root: Path, count: int) -> tuple[list[VideoInput], list[int], ClipStore]:
    """Decoded clips of random pixels with titles of 4 to 16 words, labels by turns."""
    store = ClipStore(root, MediaSpec(frames=_FRAMES, frame_size=_FRAME_SIZE, audio_seconds=1.0), DEFAULT_LIMITS)
    made = []
    for number in range(count):
        random = np.random.default_rng(number)
        frames = random.integers(0, 255, (_FRAMES, 3, _FRAME_SIZE, _FRAME_SIZE)).astype(np.uint8)
        path = store.path(f"{number:064x}")
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"frames": frames, "waveform": np.zeros(0, np.int16)}, path)
        title = " ".join(random.choice(_WORDS, int(random.integers(4, 17))))
        made.append(VideoInput(f"v{number}", path, title, sha256=f"{number:064x}"))
    return made, [number % 2 for number in range(count)], store


def trained(model: nn.Module, dataset: VideoDataset, collate: Collator, build: float) -> Run:
    """The same Trainer for all."""
    clock = _Clock()
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            num_train_epochs=_EPOCHS,
            per_device_train_batch_size=_BATCH,
            learning_rate=1e-3,
            lr_scheduler_type="constant",
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            remove_unused_columns=False,
            label_names=["labels"],
            seed=1,
            data_seed=1,
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=dataset, data_collator=collate, callbacks=[clock])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return Run(build, clock.epochs, clock.losses)


@dataclass(frozen=True)
class Bench:
    """What all rows share."""

    theirs: LlavaOnevisionForConditionalGeneration
    mine: Classifier
    videos: list[VideoInput]
    labels: list[int]
    clips: ClipStore

    def peer(self, last_only: bool) -> Run:
        """A plain loop: clips are decoded already, towers run in each step."""
        model = Peer(with_same_lora(self.theirs, self._network()), last_only)
        dataset = VideoDataset(self.videos, self.clips, self.labels)
        return trained(model, dataset, self.mine.collator, 0.0)

    def coefvq(self) -> tuple[Run, int]:
        """Features into an empty cache, then training; and the bytes of one video's features."""
        mine = replace(self.mine, network=copy.deepcopy(self._network()))
        with tempfile.TemporaryDirectory() as folder:
            store = FeatureStore(Path(folder), 2**40)
            start = time.process_time()
            model = cached_model(mine)
            with store.lease() as lease:
                built = FeatureBuilder(model, store, self.clips, lease, workers=1).build(self.videos)
                lookup, _ = reader(model, built.index, self.videos)
                dataset = VideoDataset(self.videos, self.clips, self.labels, lookup, model.reads_clips)
                build = time.process_time() - start
                with packed_frozen([mine.network]):  # as training/loop.py does
                    run = trained(Ours(mine.network), dataset, feature_collator(model), build)
        return run, built.tensor_bytes // built.computed

    def _network(self) -> MultimodalLLM:
        if not isinstance(self.mine.network, MultimodalLLM):
            raise TypeError("expected the MLLM")
        return self.mine.network


def shares(vision: SiglipPart, language: LanguagePart, size: int, text_tokens: int) -> dict[str, float]:
    """Work of one training step as multiples of the language model's forward and backward pass (= 1).

    Matrix products only. LoRA needs the gradient of activations, not of the frozen weights: twice the forward pass.
    """
    side = size // vision.patch_size
    patches, tokens = side**2, _FRAMES * ((side + 1) // 2) ** 2 + 1 + text_tokens
    d, h = vision.hidden_size, language.hidden_size
    per_patch = vision.num_hidden_layers * (4 * d * d + 2 * d * vision.intermediate_size + 2 * patches * d)
    key_value = h // language.num_attention_heads * language.num_key_value_heads
    per_token = language.num_hidden_layers * (
        2 * h * h + 2 * h * key_value + 3 * h * language.intermediate_size + 2 * tokens * h
    )
    step = 2 * per_token * tokens
    towers, logits = _FRAMES * patches * per_patch, 2 * tokens * h * language.vocab_size
    return {"vision_forward": round(towers / step, 2), "language": 1.0, "lm_logits": round(logits / step, 2)}


def measure(bench: Bench, repeats: int) -> dict[str, Any]:
    """Paired repeats; every row in each of them, the order turned round each time."""
    rows: dict[str, list[Run]] = {"peer": [], "peer_last": [], "coefvq": []}
    size = 0

    def cached() -> Run:
        nonlocal size
        run, size = bench.coefvq()
        return run

    work: dict[str, Callable[[], Run]] = {
        "peer": lambda: bench.peer(last_only=False),
        "peer_last": lambda: bench.peer(last_only=True),
        "coefvq": cached,
    }
    for repeat in range(repeats):
        for name in list(work)[:: 1 if repeat % 2 == 0 else -1]:
            rows[name].append(work[name]())
            run = rows[name][-1]
            seconds = " + ".join(f"{value:.1f}" for value in [run.build, *run.epochs])
            print(f"repeat {repeat + 1}, {name}: {seconds} = {run.total:.1f} CPU s", flush=True)
    return {"rows": rows, "bytes": size}


def summary(rows: dict[str, list[Run]], size: int, count: int) -> dict[str, Any]:
    """The JSON line."""

    def ratio(name: str) -> float:
        return statistics.median(peer.total / mine.total for peer, mine in zip(rows[name], rows["coefvq"], strict=True))

    def break_even(name: str) -> float:
        """Epochs after which the cache has paid for itself."""
        return statistics.median(
            mine.build / (statistics.mean(peer.epochs) - statistics.mean(mine.epochs))
            for peer, mine in zip(rows[name], rows["coefvq"], strict=True)
        )

    losses = {name: np.array(runs[0].losses) for name, runs in rows.items()}
    difference = max(float(np.abs(losses[name] - losses["coefvq"]).max()) for name in ("peer", "peer_last"))
    first, last = ratio("peer"), ratio("peer_last")
    return {
        "name": "train",
        "ratio": round(first, 3),
        "target": TARGET,
        "ratio_last_logits": round(last, 3),
        "target_last_logits": TARGET_LAST,
        "pass": first >= TARGET and last >= TARGET_LAST and difference <= 1e-4,
        "max_loss_difference": difference,
        "loss_first_last": [round(float(losses["coefvq"][0]), 4), round(float(losses["coefvq"][-1]), 4)],
        "break_even_epochs": round(break_even("peer"), 2),
        "break_even_epochs_last_logits": round(break_even("peer_last"), 2),
        "bytes_per_video": size,
        "videos": count,
        "epochs": _EPOCHS,
        "repeats": len(rows["peer"]),
        "dtype": "float32",
        "scale": SCALE,
        "work": shares(_VISION, _LANGUAGE, _FRAME_SIZE, 12),
        "work_unscaled": shares(SiglipPart(1152, 26, 16, 4304, 14), get_preset("onevision-0.5b").language, 384, 48),
    }


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="4 videos, one repeat")
    parser.add_argument("--videos", type=int, default=None, help="default 8")
    parser.add_argument("--repeats", type=int, default=None, help="default 3")
    given = parser.parse_args()
    count = given.videos or (4 if given.quick else 8)
    torch.set_num_threads(1)
    text = train_text_encoder([" ".join(_WORDS)] * 3, 1000, 64)
    theirs = onevision(text)
    with tempfile.TemporaryDirectory() as folder:
        made, labels, clips = videos(Path(folder), count)
        bench = Bench(theirs, ours(theirs, text), made, labels, clips)
        found = measure(bench, given.repeats or (1 if given.quick else 3))
    result = summary(found["rows"], found["bytes"], count)
    print(json.dumps(result))
    return 0 if result["pass"] else 1


if __name__ == "__main__":
    sys.exit(main())
