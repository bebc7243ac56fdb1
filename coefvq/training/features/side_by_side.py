"""Several builders of one feature cache: what each is told, and what they did together.

Any number of builders may fill a cache and none computes what another has (``build``), so each is the whole local
build; what they leave is what one builder would have left.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from coefvq.compute.cards import card_pool
from coefvq.config import BaseModelParams, MLLMParams
from coefvq.data.media.clips import default_cache
from coefvq.errors import CoefVQError, DataError
from coefvq.training.settings import TrainingSettings


@dataclass(frozen=True)
class BuildOrder:
    """What a builder in another process needs, as text; ``folder`` and ``cache`` are the workspace's."""

    settings: str
    section: str
    kind: Literal["base", "mllm"]
    splits: tuple[str, ...]
    runs: int
    folder: str
    cache: str

    @classmethod
    def of(
        cls,
        settings: TrainingSettings,
        section: BaseModelParams | MLLMParams,
        splits: Sequence[str],
        runs: int,
        workers: int,
    ) -> Self:
        """An order for a builder with so many decoders."""
        runtime = settings.reading.runtime.model_copy(update={"workers": workers})
        reading = settings.reading.model_copy(update={"runtime": runtime})
        return cls(
            settings.model_copy(update={"reading": reading}).model_dump_json(),
            section.model_dump_json(),
            "base" if isinstance(section, BaseModelParams) else "mllm",
            tuple(splits),
            runs,
            str(Path.cwd()),
            str(default_cache().resolve()),
        )


def build_there(order: BuildOrder) -> dict[str, Any]:
    """In a process of its own: build on one thread; facts as of ``build_features``, or ``error``."""
    import torch

    from coefvq.training.features.fill import build_features

    os.chdir(order.folder)
    os.environ["COEFVQ_CACHE"] = order.cache
    torch.set_num_threads(1)
    model = (BaseModelParams if order.kind == "base" else MLLMParams).model_validate_json(order.section)
    settings = TrainingSettings.model_validate_json(order.settings)
    try:
        return build_features(settings, model, list(order.splits), order.runs, dry_run=False)
    except CoefVQError as error:
        return {"error": str(error)}


def build_on_cards(
    cards: Sequence[str],
    settings: TrainingSettings,
    section: BaseModelParams | MLLMParams,
    splits: Sequence[str],
    runs: int,
) -> dict[str, Any]:
    """As ``build_features`` without ``dry_run``, by a builder per GPU of this machine; ``engine`` says how many.

    Raises:
        DataError: a builder failed; its line is kept.
    """
    workers = max(1, settings.reading.runtime.workers // len(cards))
    order = BuildOrder.of(settings, section, splits, runs, workers)
    with card_pool(cards) as pool:
        return merged(list(pool.map(build_there, [order] * len(cards))), f"local, {len(cards)} GPUs")


def merged(answers: Sequence[Mapping[str, Any]], engine: str) -> dict[str, Any]:
    """The facts of several builders as those of one.

    Raises:
        DataError: one of them failed.
    """
    for answer in answers:
        if "error" in answer:
            raise DataError(answer["error"])
    return {
        **answers[0],
        "engine": engine,
        # each of them counts what the others did as found
        "computed": sum(answer["computed"] for answer in answers),
        "found": min(answer["found"] for answer in answers),
        "bytes": sum(answer["bytes"] for answer in answers),
        "seconds": max(answer["seconds"] for answer in answers),
        "skipped": {name: why for answer in answers for name, why in answer["skipped"].items()},
    }
