"""Files kept with a registered pair: the report people decide from, and the scores it was made of.

They are artifacts of the run that logged the pair, so that a later challenger can be compared with the
champion video by video without scoring anything again. Scores are kept compressed, and once for all pairs that have
the same ones, as a re-tuned pair has those of the pair it came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from coefvq.errors import RegistryError
from coefvq.registry import tracking
from coefvq.registry.bundle import registered_name

REPORT = "report.html"
SCORES = "scores.parquet"


def attach(issue: str, version: str, files: Mapping[str, Path]) -> str:
    """Keep files with a pair under the given names, replacing what was there; returns where a person finds them.

    The link is to the tracking server's page of the run, or a ``file://`` URL for a local store; empty where scores
    alone are kept.

    Raises:
        RegistryError: the pair does not exist, or the store does not answer.
    """
    run_id = _run_id(issue, version)
    if run_id is None:
        raise RegistryError(f"{issue} version {version} does not exist; `coefvq status` shows what there is")
    if SCORES in files:
        with TemporaryDirectory() as folder:
            tracking.log_shared_file(run_id, SCORES, _compressed(files[SCORES], Path(folder) / SCORES))
    others = {name: path for name, path in files.items() if name != SCORES}
    return tracking.log_files(run_id, others) if others else ""


def attached(issue: str, version: str, name: str, folder: Path) -> Path | None:
    """A file kept with a pair, fetched into ``folder``; None where there is none.

    Raises:
        RegistryError: the store does not answer.
    """
    run_id = _run_id(issue, version)
    if run_id is None:
        return None
    fetch = tracking.fetch_shared_file if name == SCORES else tracking.fetch_file
    return fetch(run_id, name, folder)


def _compressed(table: Path, target: Path) -> Path:
    """The table with its numbers' bytes sorted by place, which takes a half of what the stage writes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from coefvq.data.manifest import parquet_errors

    with parquet_errors(table, "run predict again"):
        rows = pq.read_table(table)
    numbers = [field.name for field in rows.schema if pa.types.is_floating(field.type)]
    texts = [field.name for field in rows.schema if field.name not in numbers]
    pq.write_table(rows, target, compression="zstd", use_dictionary=texts, use_byte_stream_split=numbers)
    return target


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
