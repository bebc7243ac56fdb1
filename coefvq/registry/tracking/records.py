"""Records: runs that hold nothing but parameters, which MLflow lets nobody change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coefvq.registry.tracking.runs import log_params
from coefvq.registry.tracking.session import client, experiment_id, find_experiment, store_errors

_PAGE = 1000


@dataclass(frozen=True)
class Record:
    """One record; ``status`` is MLflow's (RUNNING, FINISHED, FAILED)."""

    run_id: str
    status: str
    fields: dict[str, str]


def append_record(experiment: str, name: str, fields: Mapping[str, str]) -> str:
    """Start a record and return its run id; its status stays RUNNING until ``close_record``."""
    with store_errors():
        run_id = str(client().create_run(experiment_id(experiment), run_name=name).info.run_id)
    log_params(run_id, fields)
    return run_id


def close_record(run_id: str, status: str) -> None:
    """End a record as FINISHED or FAILED."""
    with store_errors():
        client().set_terminated(run_id, status)


def read_records(experiment: str, newest: int | None = None, **fields: str) -> list[Record]:
    """Records with these fields, oldest first, those included that somebody deleted in the UI.

    With ``newest`` only so many of them, the latest by when they were started, are read at all.
    """
    from mlflow.entities import ViewType

    found: list[Record] = []
    token: str | None = None
    order = "ASC" if newest is None else "DESC"
    query = " and ".join(f"params.{name} = '{value}'" for name, value in fields.items())
    with store_errors():
        where = find_experiment(experiment)
        if where is None:
            return []
        while True:
            page = client().search_runs(
                [where],
                query,
                run_view_type=ViewType.ALL,
                max_results=newest or _PAGE,
                order_by=[f"attributes.start_time {order}"],
                page_token=token,
            )
            found += [Record(run.info.run_id, run.info.status, dict(run.data.params)) for run in page]
            token = page.token
            if newest is not None:
                return found[::-1]
            if not token:
                return found
