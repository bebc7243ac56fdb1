"""What is imported once, before commands are forked."""

from __future__ import annotations

import gc
import importlib
import pkgutil
import sys
import threading

import coefvq.cli

#: imported before the first fork; what is missing here is imported in each child again
LIGHT = (
    "coefvq.__main__",
    "pandas",
    "pyarrow.parquet",
    "sklearn.metrics",
    "scipy.stats",
    "ruamel.yaml",
    "rich.progress",
    "coefvq.stages.evaluate",
    "coefvq.stages.thresholds",
)
HEAVY = (
    *LIGHT,
    "torch",
    "torch._dynamo",
    "transformers",
    "safetensors.torch",
    "av",
    "mlflow",
    "mlflow.pyfunc",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store",
    "great_expectations",
    "peft",
    "coefvq.stages.ingest",
    "coefvq.stages.validate",
    "coefvq.stages.split",
    "coefvq.stages.train_base",
    "coefvq.stages.train_mllm",
    "coefvq.stages.teach",
    "coefvq.stages.predict",
    "coefvq.stages.stability",
    "coefvq.stages.candidate",
    "coefvq.registry.release",
    "coefvq.registry.champions",
    "coefvq.reporting.html",
    "tasks.workspace",
)


def preload(light: bool = False) -> None:
    """Import what commands need, with one thread per library; must run before the first fork."""
    commands = [f"coefvq.cli.{module.name}" for module in pkgutil.iter_modules(coefvq.cli.__path__)]
    for name in (*commands, *(LIGHT if light else HEAVY)):
        importlib.import_module(name)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)
    # a collection in a child would write to every page that it shares with this process
    gc.collect()
    gc.freeze()
    # a fork copies only the thread that calls it, so a lock that another one holds would stay locked
    alive = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if alive:
        raise RuntimeError(f"importing started threads: {alive}")
