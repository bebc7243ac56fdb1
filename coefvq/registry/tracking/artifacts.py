"""Files of a run that are no models: reports and the scores behind them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from coefvq.registry.tracking.session import client, or_none, store_errors

_FOLDER = "report"


def log_files(run_id: str, files: Mapping[str, Path]) -> str:
    """Log files under the given names; returns the link to the first of them."""
    import mlflow

    with store_errors(), TemporaryDirectory() as folder:
        for name, path in files.items():
            # MLflow keeps a file's own name
            copy = Path(folder) / name
            shutil.copyfile(path, copy)
            client().log_artifact(run_id, str(copy), _FOLDER)
        run = client().get_run(run_id).info
    first = f"{_FOLDER}/{next(iter(files))}"
    server = mlflow.get_tracking_uri()
    if server.startswith("http"):
        return f"{server.rstrip('/')}/#/experiments/{run.experiment_id}/runs/{run_id}/artifacts/{first}"
    return f"{run.artifact_uri}/{first}"


def fetch_file(run_id: str, name: str, folder: Path) -> Path | None:
    """A file that ``log_files`` kept, copied into ``folder``; None where the run has none of that name."""
    import mlflow

    path = f"{_FOLDER}/{name}"
    with store_errors():
        kept = or_none(lambda: client().list_artifacts(run_id, _FOLDER)) or []
        if path not in [str(item.path) for item in kept]:
            return None
        found = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path, dst_path=str(folder))
    return Path(found)
