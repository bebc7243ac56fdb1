"""The same command as ranks of a Ray Train job, on one machine or on a Ray cluster (extra ``ray``)."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coefvq.errors import ConfigError, TrainingError


def launch_on_ray(nproc: int, arguments: Sequence[str]) -> None:
    """Run ``coefvq <arguments>`` as ``nproc`` Ray workers in this working directory and wait.

    On a cluster the directory must be on a file system that every node sees. A worker gets a GPU where Ray has any.

    Raises:
        ConfigError: Ray Train is not installed.
        TrainingError: a worker failed.
    """
    try:
        import ray
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer
    except ImportError as error:
        raise ConfigError(f'--launcher ray: {error}; pip install "coefvq[ray]"') from error
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    ray.init(include_dashboard=False, ignore_reinit_error=True, log_to_driver=True)
    on_gpu = ray.cluster_resources().get("GPU", 0) > 0
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"folder": str(Path.cwd()), "arguments": list(arguments), "path": sys.path},
        scaling_config=ScalingConfig(num_workers=nproc, use_gpu=on_gpu),
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
        run_config=RunConfig(storage_path=str(Path.cwd() / ".coefvq" / "ray"), name="training"),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise TrainingError(f"Ray Train: {str(error).splitlines()[0]}; the workers' own errors are above") from error
    finally:
        ray.shutdown()


def _worker(job: dict[str, Any]) -> None:
    """Ray has set RANK and WORLD_SIZE and connected the ranks; the command does the rest."""
    os.chdir(job["folder"])
    sys.argv = ["coefvq", *job["arguments"]]
    sys.path[:0] = [path for path in job["path"] if path not in sys.path]
    try:
        runpy.run_module("coefvq", run_name="__main__")
    except SystemExit as ended:
        if ended.code not in (None, 0):
            raise RuntimeError(f"coefvq ended with code {ended.code}") from ended
