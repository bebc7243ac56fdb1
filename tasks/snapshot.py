"""Prefect tasks around the steps of a snapshot; what fails because a store or remote is away is tried again."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from coefvq.data.batches import Batch
from coefvq.errors import MediaError
from tasks import snapshot_run, versioning
from tasks.isolation import RemoteError, Target
from tasks.snapshot_run import Run, SnapshotRequest
from tasks.versioning import Snapshot

_PATIENCE = [10.0, 60.0, 300.0]


def _worth_retrying(_task: Any, _run: Any, state: Any) -> bool:
    try:
        state.result()
    except RemoteError:
        return True
    except MediaError as error:
        return error.reason == "unreachable"
    except Exception:  # noqa: BLE001 - whatever else went wrong, trying again would repeat it
        return False
    return False


_RETRIES: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "retries": len(_PATIENCE),
    "retry_delay_seconds": _PATIENCE,
    "retry_condition_fn": _worth_retrying,
}


@task(task_run_name="locate", **_RETRIES)
def locate(request: SnapshotRequest) -> Target:
    """Where the version will be published."""
    return snapshot_run.locate(request)


@task(task_run_name="collect", **_RETRIES)
def collect(run: Run) -> Batch:
    """The batch, read and hashed."""
    return versioning.collect(run)


@task(task_run_name="land", **_RETRIES)
def land(run: Run, batch: Batch) -> Snapshot:
    """The version, published."""
    return versioning.land(run, batch)
