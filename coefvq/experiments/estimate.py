"""What a cell will take, said before anything runs: hours and memory, from measured seconds or from FLOPs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from coefvq.config import BaseModelParams, MediaSpec, MLLMParams
from coefvq.experiments.grid import CostSpec, DataSpec, GpuSpec
from coefvq.models.planning import MemoryPlan, plan
from coefvq.models.presets import get_preset

#: forward and backward, in forward passes; the same with activations computed anew
_STEP = 3.0
_PASSES_OF_A_STEP = 4.0
_HOUR = 3600.0


@dataclass(frozen=True)
class Estimate:
    """``hours`` of one cell on its own; CPU hours of one thread, or hours of all its GPUs. ``memory_gib`` per rank,
    None where nobody counted it: a base model's is below the MLLM's.
    """

    train_videos: int
    scored_videos: int
    epochs: float
    hours: float | None
    memory_gib: float | None


def videos(data: DataSpec, train_share: float) -> tuple[int, int]:
    """Expected videos that are learnt from and that are scored; thinned negatives are left out."""
    fractions = data.settings["split.fractions"]
    kept = data.settings.get("split.negatives", {}).get("train", 1.0)
    negative = 1.0
    for share in data.prevalence.values():
        negative *= 1.0 - share
    train = data.videos * fractions["train"] * ((1.0 - negative) + kept * negative) * train_share
    return round(train), round(data.videos * (fractions["val"] + fractions["test"] + fractions["traffic"]))


def estimate(
    data: DataSpec, model: BaseModelParams | MLLMParams, media: MediaSpec, presets: Path | None, train_share: float
) -> Estimate:
    """Hours and memory of one training and its scores, features of frozen towers left out: they are made once."""
    train, scored = videos(data, train_share)
    if isinstance(model, BaseModelParams) and model.distil is not None and model.distil.unlabelled is not None:
        train += round(data.videos * data.settings["split.fractions"].get("unlabelled", 0.0))
    epochs = model.training.num_train_epochs
    if data.gpu is not None:
        return _on_gpus(data.gpu, model, media, presets, train, scored)
    cost = data.cost
    hours = None if cost is None else _on_cpu(cost, model, train, scored)
    return Estimate(train, scored, epochs, hours, None)


def once_hours(data: DataSpec) -> float | None:
    """CPU hours of the clips and of the features of frozen towers, which all cells share."""
    if data.cost is None:
        return None
    train, scored = videos(data, 1.0)
    read = train + scored + data.videos * data.settings["split.fractions"].get("unlabelled", 0.0)
    return float(data.videos * data.cost.render + read * data.cost.features) / _HOUR


def _on_cpu(cost: CostSpec, model: BaseModelParams | MLLMParams, train: int, scored: int) -> float:
    step, once = cost.mllm, cost.start + scored * cost.score
    if isinstance(model, BaseModelParams):
        step = cost.base[model.architecture] + (0.0 if model.text_lora is None else cost.text_lora)
        if model.distil is not None:
            once += train * cost.mllm / _STEP  # the teacher's answers
    return (once + train * model.training.num_train_epochs * step) / _HOUR


def _on_gpus(
    gpu: GpuSpec, model: BaseModelParams | MLLMParams, media: MediaSpec, presets: Path | None, train: int, scored: int
) -> Estimate:
    epochs = model.training.num_train_epochs
    if isinstance(model, BaseModelParams):
        return Estimate(train, scored, epochs, None, None)
    made = planned_mllm(model, media, presets, gpu)
    flops = sum(made.flops_per_video.values()) * (train * epochs * _PASSES_OF_A_STEP + scored)
    hours = flops / (gpu.gpus * gpu.tflops * 1e12 * gpu.utilisation) / _HOUR
    return Estimate(train, scored, epochs, hours, made.memory.total)


@cache
def planned_mllm(model: MLLMParams, media: MediaSpec, presets: Path | None, gpu: GpuSpec) -> MemoryPlan:
    """The planner's answer for the MLLM of a cell; cells that differ in their seed are planned once."""
    preset = get_preset(model.preset, presets)
    lora = model.lora
    return plan(
        preset,
        media,
        lora,
        model.fusion if model.audio else "none",
        gpus=gpu.gpus,
        memory_gib=gpu.memory_gib,
        batch_size=model.training.per_device_train_batch_size,
        text_tokens=preset.max_text_tokens if model.text else 0,
    )
