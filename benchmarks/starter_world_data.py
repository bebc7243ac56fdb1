"""Clips of the synthetic world as features of the frozen `starter` towers, in shards that survive an interruption.

A clip is rendered to an MP4, decoded as the library decodes, seen and heard by the towers, and deleted again. Training
indices keep every positive and a share of the rest; validation and test keep the world's prevalence.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coefvq.config import PARAMS_FILE, BaseModelParams, MediaSpec, load_params
from coefvq.data.media.decode import decode_clip
from coefvq.files import atomic_path
from coefvq.models.classifier import Classifier, build
from coefvq.models.dataset import Example, text_of
from coefvq.models.model_config import base_config
from coefvq.models.vision import lite_input, motion_images
from coefvq.models.vocabulary import text_encoder
from coefvq.records import VideoInput
from coefvq.simulation.synthetic.clips import Clip, describe
from coefvq.simulation.synthetic.generate import write_clip

ISSUES = ("icd", "ucc")
PREVALENCE = {"icd": 0.07, "ucc": 0.09}
MEDIA = MediaSpec(frames=8, frame_size=160, audio_seconds=3.0)
_SHARD = 120
_BATCH = 8
#: only the network is built; nothing of it trains here
_UNUSED = load_params(Path(__file__).resolve().parents[1] / PARAMS_FILE).base["icd"].training


@dataclass(frozen=True)
class World:
    """Which indices of which world; borders are multiples of 12, within which creators and sources stay."""

    seed: int = 7
    train: int = 36_000
    val: int = 1_440
    test: int = 2_400
    kept_negatives: float = 0.15
    shards: tuple[int, int, int] = (50, 10, 16)  # of train, val and test; 120 clips each

    def clips(self, split: str) -> list[Clip]:
        """Facts of a split's clips; the same for the same world."""
        return list(_clips(self, split))


@lru_cache(maxsize=8)
def _clips(world: World, split: str) -> tuple[Clip, ...]:
    first = {"train": 0, "val": world.train, "test": world.train + world.val}[split]
    every = (describe(world.seed, first + i, PREVALENCE) for i in range(getattr(world, split)))
    return tuple(clip for clip in every if split != "train" or _is_kept(world, clip))


def _is_kept(world: World, clip: Clip) -> bool:
    draw = np.random.default_rng([world.seed, clip.index, 1]).random()
    return bool(any(clip.labels.values()) or draw < world.kept_negatives)


def shards(world: World) -> list[tuple[str, int]]:
    """(split, number) of every shard, the splits mixed so that the first part of the list is a smaller world."""
    rows = []
    for split, wanted in zip(("train", "val", "test"), world.shards, strict=True):
        count = min(wanted, -(-len(world.clips(split)) // _SHARD))
        rows += [((number + 0.5) / count, split, number) for number in range(count)]
    return [(split, number) for _, split, number in sorted(rows)]


def extract(world: World, folder: Path, part: tuple[int, int] = (0, 1)) -> Iterator[str]:
    """Write the shards of part i of n that are not there yet; yields a line per shard."""
    towers = None
    for split, number in shards(world)[part[0] :: part[1]]:
        path = folder / f"{split}-{number:03d}.safetensors"
        if path.is_file():
            continue
        towers = towers or Towers()
        clips = world.clips(split)[number * _SHARD : (number + 1) * _SHARD]
        _write(path, _shard(world, clips, towers))
        yield f"{path.name}: {len(clips)} clips"


def _write(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary)


def _shard(world: World, clips: Sequence[Clip], towers: Towers) -> dict[str, torch.Tensor]:
    parts = [towers(_examples(world, clips[start : start + _BATCH])) for start in range(0, len(clips), _BATCH)]
    return {name: torch.cat([part[name] for part in parts]).half().contiguous() for name in parts[0]}


def _examples(world: World, clips: Sequence[Clip]) -> list[Example]:
    examples = []
    with tempfile.TemporaryDirectory() as scratch:
        for clip in clips:
            write_clip(Path(scratch), world.seed, clip)
            path = Path(scratch) / clip.file_name
            decoded = decode_clip(path, MEDIA.frames, MEDIA.frame_size, MEDIA.audio_seconds)
            path.unlink()
            examples.append(Example(decoded, text(clip), None))
    return examples


def text(clip: Clip) -> str:
    """What a model reads of a clip."""
    writing = clip.writing
    return text_of(VideoInput(clip.video_id, Path(), title=writing.title, stickers=writing.stickers))


def multitower() -> Classifier:
    """The library's frozen multi-tower base with motion."""
    params = BaseModelParams(
        preset="starter", architecture="multitower", audio=True, motion=True, freeze_towers=True, training=_UNUSED
    )
    config = base_config("ucc", params, MEDIA)
    return build(config, text_encoder(config, []))


class Towers:
    """The frozen towers; bfloat16 where the processor multiplies it natively, as everywhere in this benchmark."""

    def __init__(self) -> None:
        self.base = multitower()
        self.network: Any = self.base.network.eval()

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """cells [B,11,5,1280] (8 frames and 3 motion images: mean, 2 x 2 grid), text [B,384], sound [B,512]."""
        batch = self.base.collator(examples)
        pixels = batch["pixel_values"]
        images = torch.cat([pixels, motion_images(pixels)], dim=1)
        flat = lite_input(images.flatten(0, 1))
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            grid = self.network.frames.encoder(flat).float()
            cells = [torch.nn.functional.adaptive_avg_pool2d(grid, side).flatten(2) for side in (1, 2)]
            found = {
                "cells": torch.cat(cells, dim=2).transpose(1, 2).unflatten(0, images.shape[:2]),
                "text": self.network.text(batch["input_ids"], batch["attention_mask"]),
                "sound": self.network.audio(batch["log_mel"], batch["has_audio"]),
            }
        return {name: value.float() for name, value in found.items()}


@dataclass(frozen=True)
class Split:
    """Features and facts of the clips of a split that have been extracted."""

    clips: list[Clip]
    cells: torch.Tensor
    text: torch.Tensor
    sound: torch.Tensor

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def labels(self) -> torch.Tensor:
        """int64 [N, K], one column per issue."""
        return torch.tensor([[clip.labels[issue] for issue in ISSUES] for clip in self.clips])

    def posterior(self, issue: str, view: str = "") -> np.ndarray[Any, np.dtype[np.float64]]:
        """P(label = 1 | what the view shows), [N]."""
        return np.array([clip.posteriors[f"posterior_{issue}{view}"] for clip in self.clips])


def load(world: World, folder: Path, split: str, share: float = 1.0) -> Split:
    """The features of a split, or of the first ``share`` of its shards."""
    from safetensors.torch import load_file

    numbers = sorted(number for kind, number in shards(world) if kind == split)
    numbers = numbers[: max(1, round(share * len(numbers)))]
    missing = [n for n in numbers if not (folder / f"{split}-{n:03d}.safetensors").is_file()]
    if missing:
        raise SystemExit(f"{folder}: {len(missing)} shards of {split} are missing; run --stage features with --shards")
    parts = [load_file(folder / f"{split}-{n:03d}.safetensors") for n in numbers]
    clips = [clip for n in numbers for clip in world.clips(split)[n * _SHARD : (n + 1) * _SHARD]]
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return Split(clips, joined["cells"], joined["text"].float(), joined["sound"].float())


def facts(world: World) -> dict[str, Any]:
    """The world as part of a result's settings."""
    return {**asdict(world), "prevalence": PREVALENCE, "media": MEDIA.model_dump()}
