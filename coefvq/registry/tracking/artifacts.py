"""Files of a run that are no models: reports and the scores behind them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from coefvq.files import sha256_file
from coefvq.registry.tracking.session import client, or_none, store_errors

_FOLDER = "report"
#: tags of a run: the hash of a shared file that it holds, and the run and hash of the one that is its own
_HELD, _NAMED = "{}.held", "{}.kept"


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


def log_shared_file(run_id: str, name: str, path: Path) -> None:
    """Keep a file of which other runs may have the same: the first of them holds it, the others name that run.

    It lies under the hash of its bytes and is never replaced, so that nobody's file changes with another's.
    """
    digest = sha256_file(path)
    with store_errors():
        where = client().get_run(run_id).info.experiment_id
        query = f"tags.`{_HELD.format(name)}` = '{digest}'"
        holders = client().search_runs([where], query, order_by=["attributes.start_time ASC"], max_results=1)
        holder = holders[0].info.run_id if holders else run_id
        if holder == run_id:
            log_files(run_id, {f"{digest}-{name}": path})
            client().set_tag(run_id, _HELD.format(name), digest)
        client().set_tag(run_id, _NAMED.format(name), f"{holder} {digest}")


def fetch_shared_file(run_id: str, name: str, folder: Path) -> Path | None:
    """A file that ``log_shared_file`` kept, or ``log_files`` of an earlier version; None where the run has none."""
    with store_errors():
        named = or_none(lambda: client().get_run(run_id).data.tags.get(_NAMED.format(name)))
    if named is None:
        return fetch_file(run_id, name, folder)
    holder, _, digest = named.partition(" ")
    return fetch_file(holder, f"{digest}-{name}", folder)


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
