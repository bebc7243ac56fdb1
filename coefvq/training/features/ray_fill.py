"""``coefvq features build --engine ray``: builders as Ray tasks that divide the videos of one cache.

Any number of builders may fill a cache and none computes what another has (``training/features/build.py``), so each
task is the whole local build; what they leave is what one builder would have left. On a cluster the workspace and the
cache must be found at the same paths on every machine.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coefvq.compute.ray_engine import join_ray
from coefvq.config import BaseModelParams, MLLMParams
from coefvq.data.media.clips import default_cache
from coefvq.errors import CoefVQError, DataError
from coefvq.training.settings import TrainingSettings

_CPUS = 1.0


def build_features_on_ray(
    settings: TrainingSettings, section: BaseModelParams | MLLMParams, splits: Sequence[str], runs: int
) -> dict[str, Any]:
    """As ``build_features`` without ``dry_run``, by at most ``runtime.workers`` tasks; ``engine`` says how many.

    Raises:
        DataError: Ray is not installed or cannot be reached, or a task failed; its line is kept.
    """
    workers = settings.reading.runtime.workers
    join_ray(workers)
    import ray

    team = max(1, min(workers, int(ray.cluster_resources().get("CPU", 1))))
    one = settings.reading.runtime.model_copy(update={"workers": 1})
    reading = settings.reading.model_copy(update={"runtime": one})
    given = (settings.model_copy(update={"reading": reading}).model_dump_json(), section.model_dump_json())
    kind = "base" if isinstance(section, BaseModelParams) else "mllm"
    work = ray.remote(num_cpus=_CPUS, max_retries=0)(_build)
    where = (str(Path.cwd()), str(default_cache().resolve()))
    answers = ray.get([work.remote(*given, kind, list(splits), runs, *where) for _ in range(team)])
    for answer in answers:
        if "error" in answer:
            raise DataError(answer["error"])
    return {
        **answers[0],
        "engine": f"ray, {team} task(s)",
        # each of them counts what the others did as found
        "computed": sum(answer["computed"] for answer in answers),
        "found": min(answer["found"] for answer in answers),
        "bytes": sum(answer["bytes"] for answer in answers),
        "seconds": max(answer["seconds"] for answer in answers),
        "skipped": {name: why for answer in answers for name, why in answer["skipped"].items()},
    }


def _build(
    settings: str, section: str, kind: str, splits: list[str], runs: int, folder: str, cache: str
) -> dict[str, Any]:
    import torch

    from coefvq.training.features.fill import build_features

    os.chdir(folder)
    os.environ["COEFVQ_CACHE"] = cache
    torch.set_num_threads(1)
    model = (BaseModelParams if kind == "base" else MLLMParams).model_validate_json(section)
    try:
        return build_features(TrainingSettings.model_validate_json(settings), model, splits, runs, dry_run=False)
    except CoefVQError as error:
        return {"error": str(error)}
