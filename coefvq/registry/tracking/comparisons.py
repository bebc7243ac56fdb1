"""A comparison of trainings as MLflow knows it: a parent run, and a child run for each row, linked by name."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from coefvq.flat import flat_metrics
from coefvq.registry.tracking.session import client, experiment, experiment_id, find_experiment, store_errors

_PARENT = "mlflow.parentRunId"


def log_comparison(name: str, content_hash: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Log ``rows``: name of a child run -> nested figures; returns the parent's run id.

    The same content is logged once: a parent run of that name and hash that ended is found again.

    Raises:
        RegistryError: the store refuses or does not answer.
    """
    tags = {"kind": "comparison", "content_hash": content_hash}
    with store_errors():
        where = find_experiment(experiment()) or experiment_id(experiment())
        query = f"tags.content_hash = '{content_hash}' and attributes.status = 'FINISHED'"
        found = client().search_runs([where], query, max_results=50)
        for run in found:
            if run.info.run_name == name:
                return str(run.info.run_id)
        parent = str(client().create_run(where, run_name=name, tags=tags).info.run_id)
        for row, figures in rows.items():
            _log_row(where, row, {**tags, _PARENT: parent}, flat_metrics(figures))
        client().set_terminated(parent, "FINISHED")
    return parent


def _log_row(where: str, name: str, tags: Mapping[str, str], metrics: Mapping[str, float]) -> None:
    from mlflow.entities import Metric

    run_id = str(client().create_run(where, run_name=name, tags=dict(tags)).info.run_id)
    now = int(time.time() * 1000)
    client().log_batch(run_id, metrics=[Metric(key, value, now, 0) for key, value in metrics.items()])
    client().set_terminated(run_id, "FINISHED")
