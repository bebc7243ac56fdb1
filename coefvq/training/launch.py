"""Start a command as several processes on this machine: torchrun over loopback."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from coefvq.errors import ConfigError, TrainingError


def launch(nproc: int, arguments: Sequence[str], deepspeed: str | None) -> None:
    """Run ``python -m coefvq <arguments>`` as ``nproc`` ranks and wait; the first that fails ends all.

    Raises:
        ConfigError: DeepSpeed is asked for and not installed.
        TrainingError: a rank failed; its own message is above.
    """
    if deepspeed is not None and importlib.util.find_spec("deepspeed") is None:
        raise ConfigError(
            f'training.deepspeed = {deepspeed}: DeepSpeed is not installed; pip install "coefvq[deepspeed]"'
        )
    command = [*torchrun(nproc), "-m", "coefvq", *arguments]
    finished = subprocess.run(command, env=rank_environment(nproc), check=False)
    if finished.returncode != 0:
        raise TrainingError(
            f"training on {nproc} ranks ended with code {finished.returncode}; the first error is above"
        )


def torchrun(nproc: int) -> list[str]:
    """The beginning of a command line that starts ``nproc`` ranks on this machine."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(nproc)]


def rank_environment(nproc: int) -> dict[str, str]:
    """This environment with a share of the cores per rank, loopback, and DeepSpeed told where there is no GPU."""
    environment = dict(os.environ)
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // nproc)))
    environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        environment.setdefault("DS_ACCELERATOR", "cpu")
    # scripts beside this interpreter, among them ninja, with which DeepSpeed compiles
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    return environment
