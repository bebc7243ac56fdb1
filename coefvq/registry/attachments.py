"""Files kept with a registered pair: the report people decide from, and the scores it was made of.

They are artifacts of the run that logged the pair, so that a later challenger can be compared with the
champion video by video without scoring anything again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from coefvq.errors import RegistryError
from coefvq.registry import tracking
from coefvq.registry.bundle import registered_name

REPORT = "report.html"
SCORES = "scores.parquet"


def attach(issue: str, version: str, files: Mapping[str, Path]) -> str:
    """Keep files with a pair under the given names, replacing what was there; returns where a person finds them.

    The link is to the tracking server's page of the run, or a ``file://`` URL for a local store.

    Raises:
        RegistryError: the pair does not exist, or the store does not answer.
    """
    run_id = _run_id(issue, version)
    if run_id is None:
        raise RegistryError(f"{issue} version {version} does not exist; `coefvq status` shows what there is")
    return tracking.log_files(run_id, files)


def attached(issue: str, version: str, name: str, folder: Path) -> Path | None:
    """A file kept with a pair, fetched into ``folder``; None where there is none.

    Raises:
        RegistryError: the store does not answer.
    """
    run_id = _run_id(issue, version)
    return None if run_id is None else tracking.fetch_file(run_id, name, folder)


def _run_id(issue: str, version: str) -> str | None:
    """The run that logged the pair."""
    client = tracking.client()
    name = registered_name(issue, "cascade")
    found = tracking.or_none(lambda: client.get_model_version(name, version))
    if found is None:
        return None
    model_id = str(found.source).removeprefix("models:/")
    logged = tracking.or_none(lambda: client.get_logged_model(model_id))
    return None if logged is None else str(logged.source_run_id)
