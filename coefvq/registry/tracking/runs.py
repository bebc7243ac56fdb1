"""Runs: one per training, with parameters, data, curves and model; one per registered pair."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from coefvq.errors import RegistryError
from coefvq.files import sha256_json, sha256_tree, write_json
from coefvq.flat import flat_metrics, flat_params
from coefvq.registry.bundle import Candidate, DataRef, PartKind, score_columns
from coefvq.registry.tracking.environment import environment_tags
from coefvq.registry.tracking.logged_models import log_pyfunc
from coefvq.registry.tracking.run_names import run_name
from coefvq.registry.tracking.session import client, experiment, experiment_id, store_errors

_MODEL_SUFFIXES = (".json", ".safetensors")
_DATA = "data"  # tag with the start of the hash of manifest and splits
_BATCH = 100  # MLflow's limit of parameters per request


@dataclass
class TrainingRun:
    """A training in progress; metrics logged after the model are linked to model and data."""

    run_id: str
    dataset: DataRef
    model_id: str | None = None

    def log_curve(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Log one point of each curve; nested names become ``train/loss``."""
        self._log(metrics, step, None)

    def log_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Log final figures; what is not a number is left out."""
        self._log(metrics, 0, self.model_id)

    def log_model_folder(self, path: Path, kind: PartKind, issues: str | Sequence[str]) -> str:
        """Log a trained model's folder and return its LoggedModel id; of several issues it answers a score each.

        Raises:
            RegistryError: the folder is empty or holds anything but .safetensors and .json files.
        """
        files = [file for file in path.rglob("*") if file.is_file()]
        odd = [file for file in files if file.suffix not in _MODEL_SUFFIXES]
        if odd or not files:
            held = f"holds {odd[0].name}" if odd else "holds no files"
            raise RegistryError(f"{path}: {held}; a model is logged from .safetensors and .json files only")
        names = [issues] if isinstance(issues, str) else list(issues)
        issue, columns = "+".join(names), score_columns(names)
        tags = {"issue": issue, "kind": kind, "sha256": sha256_tree(path)}
        self.model_id = log_pyfunc(f"{issue}-{kind}", {"model": path}, ("video_id", *columns), tags)
        return self.model_id

    def record(self) -> dict[str, str]:
        """What the training stage writes as run.json.

        Raises:
            RegistryError: no model was logged yet.
        """
        if self.model_id is None:
            raise RegistryError(f"run {self.run_id}: no model was logged; call log_model_folder first")
        return {"run_id": self.run_id, "model_id": self.model_id, "model_uri": f"models:/{self.model_id}"}

    def _log(self, metrics: Mapping[str, Any], step: int, model_id: str | None) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        link = {"model_id": model_id, "dataset_name": "manifest", "dataset_digest": _digest(self.dataset)}
        extra = link if model_id else {}
        points = [Metric(name, value, now, step, **extra) for name, value in flat_metrics(metrics).items()]
        with store_errors():
            client().log_batch(self.run_id, metrics=points)


@contextmanager
def training_run(
    name: str, issue: str, kind: PartKind, params: Mapping[str, Any], dataset: DataRef
) -> Iterator[TrainingRun]:
    """One MLflow run per training: parameters, environment, dataset, curves, model.

    The run ends as FINISHED, or as FAILED where the block raises.

    Raises:
        RegistryError: the store refuses or does not answer.
    """
    import mlflow

    flat, data = flat_params(params), _digest(dataset)[:8]
    with store_errors():
        # DVC names the experiment that `dvc exp run` runs
        shown = run_name(name, os.environ.get("DVC_EXP_NAME"), _last_settings(issue, kind), {**flat, _DATA: data})
    with store_errors(), _start_run(shown, {"issue": issue, "kind": kind, _DATA: data}) as run:
        handle = TrainingRun(run.info.run_id, dataset)
        log_params(handle.run_id, flat)
        mlflow.set_tags(environment_tags(Path.cwd()))
        mlflow.log_input(_dataset(dataset), context="training")
        yield handle


def _last_settings(issue: str, kind: PartKind) -> dict[str, str] | None:
    """Parameters and data of the newest finished training of the same model; None where there is none."""
    query = f"tags.issue = '{issue}' and tags.kind = '{kind}' and attributes.status = 'FINISHED'"
    newest = ["attributes.start_time DESC"]
    found = client().search_runs([experiment_id(experiment())], query, max_results=1, order_by=newest)
    return {**found[0].data.params, _DATA: found[0].data.tags.get(_DATA, "")} if found else None


def _start_run(name: str, tags: Mapping[str, str]) -> Any:
    import mlflow

    return mlflow.start_run(experiment_id=experiment_id(experiment()), run_name=name, tags=dict(tags))


def log_params(run_id: str, params: Mapping[str, str]) -> None:
    """Log parameters; one that exists with another value is refused, so they are written once."""
    from mlflow.entities import Param

    rows = [Param(name, value) for name, value in params.items()]
    with store_errors():
        for start in range(0, len(rows), _BATCH):
            client().log_batch(run_id, params=rows[start : start + _BATCH])


def _digest(dataset: DataRef) -> str:
    # MLflow allows 36 characters
    return sha256_json([dataset.manifest_sha256, dataset.splits_sha256])[:36]


def _dataset(dataset: DataRef) -> Any:
    from mlflow.data.meta_dataset import MetaDataset

    version = dataset.version or dataset.manifest_sha256[:12]
    source = _dvc_source()(uri=f"dvc://manifest@{version}", **dataset.model_dump())
    return MetaDataset(source, name="manifest", digest=_digest(dataset))


@cache
def _dvc_source() -> Any:
    """A registered MLflow dataset source for data that DVC versions: a reference, never a copy."""
    from mlflow.data.dataset_source import DatasetSource
    from mlflow.data.dataset_source_registry import register_dataset_source

    class DvcSource(DatasetSource):
        def __init__(self, **fields: str | None) -> None:
            self.fields = fields

        @staticmethod
        def _get_source_type() -> str:
            return "dvc"

        @staticmethod
        def _can_resolve(raw_source: Any) -> bool:
            return isinstance(raw_source, str) and raw_source.startswith("dvc://")

        @classmethod
        def _resolve(cls, raw_source: str) -> DvcSource:
            return cls(uri=raw_source)

        def load(self) -> Any:
            raise RegistryError(f"{self.fields['uri']}: not kept in MLflow; check out that version and run `dvc pull`")

        def to_dict(self) -> dict[str, str | None]:
            return dict(self.fields)

        @classmethod
        def from_dict(cls, source_dict: dict[Any, Any]) -> DvcSource:
            return cls(**source_dict)

    register_dataset_source(DvcSource)
    return DvcSource


def log_pair(candidate: Candidate) -> str:
    """Log a pair (its pair.json and metrics) as a run with a pyfunc; return the LoggedModel id."""
    import mlflow

    tags = {"issue": candidate.issue, "kind": "cascade", "content_hash": candidate.content_hash}
    name = f"pair-{candidate.issue}-{candidate.content_hash[:12]}"
    columns = ("video_id", "base_score", "mllm_score", "positive", "decided_by", "error")
    with store_errors(), _start_run(name, tags) as run, TemporaryDirectory() as folder:
        path = Path(folder) / "pair.json"
        write_json(path, candidate.to_json())
        mlflow.log_input(_dataset(candidate.data), context="evaluation")
        model_id = log_pyfunc(f"{candidate.issue}-cascade", {"pair": path}, columns, tags)
        TrainingRun(run.info.run_id, candidate.data, model_id).log_metrics(candidate.metrics)
    return model_id
