"""``coefvq features build --engine ray``: builders as Ray tasks that divide the videos of one cache.

On a cluster the workspace and the cache must be found at the same paths on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coefvq.compute.ray_engine import join_ray
from coefvq.config import BaseModelParams, MLLMParams
from coefvq.training.features.side_by_side import BuildOrder, build_there, merged
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

    gpus = int(ray.cluster_resources().get("GPU", 0))
    team = gpus or max(1, min(workers, int(ray.cluster_resources().get("CPU", 1))))
    work = ray.remote(num_cpus=_CPUS, num_gpus=1 if gpus else 0, max_retries=0)(build_there)
    order = BuildOrder.of(settings, section, splits, runs, workers=1)
    answers = ray.get([work.remote(order) for _ in range(team)])
    return merged(answers, f"ray, {team} task(s)")
