"""What a data set of so many videos takes, stage by stage: hours, disk and memory on one machine and on several.

Stages on tables cost a fixed time and a time per video, both measured (``TABLES``); clips cost what probing and
decoding took (``CLIP``). Models cost the operations that the planner counts (``models.planning``), at a speed that the
caller gives. Several machines divide the work on clips and models alone, and their talk is not counted: their hours
are the fewest that they can take.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from coefvq.config import Inputs, MLLMParams, Models, Predict, Runtime, Split, Untracked
from coefvq.data.media.clip_entry import entry_bytes
from coefvq.evaluation.traffic import MLLM_ROWS
from coefvq.models.planning import MemoryPlan, plan
from coefvq.models.presets import get_preset
from coefvq.training.settings import MediaInput

_GIB = 2**30
_HOUR = 3600.0
_BYTES = {"bfloat16": 2}  # of a weight; others take four
# a step forward, and twice as much for its gradients; checkpointing goes forward once more
_PASSES, _CHECKPOINTED = 3, 4


@dataclass(frozen=True)
class TableCost:
    """CPU seconds and MiB before the first video and per million; bytes on disk per video."""

    seconds: float
    per_million: float
    mib: float
    mib_per_million: float
    disk: float = 0.0


#: ``benchmarks/scale.py`` at up to 10,000 and at 1,000,000 rows, AMD EPYC, beside other work; publish at 10,000 alone
TABLES = {
    "validate": TableCost(9.4, 17.0, 330, 950),
    "split": TableCost(8.5, 84.0, 330, 1170, 6),
    "evaluate": TableCost(6.8, 26.0, 230, 370),
    "thresholds": TableCost(7.7, 26.0, 280, 360),
    "candidate": TableCost(2.9, 3.3, 185, 410),
    "report": TableCost(5.1, 7.0, 220, 320),
    "vmp publish": TableCost(4.0, 240.0, 200, 100, 330),
}
#: CPU seconds of a clip of 2.3 s and 640 × 360 (40 of the fights, beside other work): probe with hash and PDQ, and
#: decoding of 8 frames to 384 px
CLIP_PROBE, CLIP_DECODE = 0.12, 0.14
_MANIFEST_BYTES = 310
_BY_TABLES = "benchmarks/scale.py: CPU at 10 K to 1 M rows"


@dataclass(frozen=True)
class Machines:
    """``count`` equal machines: the cores of one, and the operations per second that a model reaches on it."""

    count: int
    cores: int
    flops: float


@dataclass(frozen=True)
class StageForecast:
    """One stage; ``memory_gib`` is that of a machine, ``basis`` says where the figures come from.

    ``hours_on_all`` are those of all machines together; equal to ``hours`` where only one can work on it.
    """

    stage: str
    hours: float
    hours_on_all: float
    disk_gib: float
    memory_gib: float
    basis: str


class ForecastSettings(Inputs):
    """What decides the cost of all issues: shares of the splits, limits of the caches, precision of the scoring."""

    split: Annotated[Split, Untracked("split")]
    runtime: Annotated[Runtime, Untracked("runtime")]
    predict: Annotated[Predict, Untracked("predict")]
    models: Annotated[Models, Untracked("models")]


class IssueSettings(Inputs):
    """The MLLM of an issue and what it sees."""

    issue: str
    media: MediaInput
    mllm: Annotated[MLLMParams, Untracked("mllm.{issue}")]


def forecast(
    settings: ForecastSettings, issues: Sequence[IssueSettings], rows: float, machines: Machines
) -> list[StageForecast]:
    """The stages in the order of the pipeline.

    Args:
        settings: of the workspace.
        issues: its issues.
        rows: videos, all of them labelled.
        machines: what there is.

    Raises:
        ModelError: a preset is unknown or does not fit the settings.
    """
    tables = {name: _table(name, cost, rows) for name, cost in TABLES.items()}
    probing = _spread("ingest", CLIP_PROBE * rows / machines.cores, machines)
    ingest = StageForecast(*probing, _MANIFEST_BYTES * rows / _GIB, 0.21, "2 s clips of 360p to 720p; longer ones more")
    per_issue = [stage for issue in issues for stage in _of_issue(settings, issue, rows, machines)]
    publish = tables.pop("vmp publish")
    first = [tables.pop("validate"), tables.pop("split")]
    return [ingest, *first, *per_issue, *(_for_all(stage, len(issues)) for stage in tables.values()), publish]


def _table(name: str, cost: TableCost, rows: float) -> StageForecast:
    millions = rows / 1e6
    hours = (cost.seconds + cost.per_million * millions) / _HOUR
    gib = (cost.mib + cost.mib_per_million * millions) / 1024
    return StageForecast(name, hours, hours, cost.disk * rows / _GIB, gib, _BY_TABLES)


def _for_all(stage: StageForecast, issues: int) -> StageForecast:
    name = f"{stage.stage}, {issues} issue(s)"
    return StageForecast(name, stage.hours * issues, stage.hours_on_all * issues, stage.disk_gib, stage.memory_gib,
                         stage.basis)  # fmt: skip


def _spread(name: str, seconds: float, machines: Machines) -> tuple[str, float, float]:
    return name, seconds / _HOUR, seconds / _HOUR / machines.count


def _of_issue(
    settings: ForecastSettings, own: IssueSettings, rows: float, machines: Machines
) -> Iterator[StageForecast]:
    issue, mllm, media, shares = own.issue, own.mllm, own.media, settings.split.fractions
    train, held, traffic = shares.train * rows, (shares.val + shares.test) * rows, shares.traffic * rows
    if mllm.issues_with(issue)[0] == issue:  # one that is shared is trained once
        counted = _planned(settings, own, machines.count)
        seen = train + held + traffic
        size = min(entry_bytes(media) * seen / _GIB, settings.runtime.clips_gib)
        decoding = _spread(f"clips, {issue}", CLIP_DECODE * seen / machines.cores, machines)
        yield StageForecast(*decoding, size, 0.5, "8 frames of 2 s clips; disk: clips as the recipe decodes them")
        towers, decoder = _flops(counted)
        steps = _CHECKPOINTED if mllm.training.activation_checkpointing else _PASSES
        epochs, kept = mllm.training.num_train_epochs, settings.runtime.features != "off"
        read = train + shares.val * rows / 2
        work = towers * read * (1 if kept else epochs) + decoder * epochs * (steps * train + shares.val * rows / 2)
        training = _spread(f"train-mllm, {issue}", work / machines.flops, machines)
        disk = settings.runtime.features_gib if kept else 0.0
        yield StageForecast(*training, disk, counted.memory.total, "operations and memory by coefvq models plan")
    counted = _planned(settings, own, 1)
    scored = shares.val * rows / 2 + shares.test * rows + min(traffic, MLLM_ROWS)
    predicting = _spread(f"predict (MLLM), {issue}", sum(_flops(counted)) * scored / machines.flops, machines)
    weights = sum(counted.parameters.values()) * _BYTES.get(settings.predict.dtype, 4) / _GIB
    yield StageForecast(*predicting, 0.0, weights, "operations by coefvq models plan; memory: the weights")


def _planned(settings: ForecastSettings, own: IssueSettings, ranks: int) -> MemoryPlan:
    mllm = own.mllm
    return plan(
        get_preset(mllm.preset, Path(settings.models.presets)),
        own.media,
        mllm.lora,
        mllm.fusion,
        gpus=ranks,
        memory_gib=None,
        batch_size=mllm.training.per_device_train_batch_size,
        activation_checkpointing=mllm.training.activation_checkpointing,
    )


def _flops(counted: MemoryPlan) -> tuple[float, float]:
    """Operations of a video in the frozen towers, and in the language model."""
    decoder = counted.flops_per_video["language"]
    return sum(counted.flops_per_video.values()) - decoder, decoder


def measured_flops() -> float:
    """Operations per second of a matrix product on this machine, the best of a few; float32."""
    import time

    import torch

    size = 1024
    left, right = torch.ones(size, size), torch.ones(size, size)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        torch.mm(left, right)
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best
