"""Prefect tasks around the pipeline's plain functions."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from tasks import pipeline, release, run_clone
from tasks.pipeline import StageError, StageOutcome

# a stage may be busy because a run that was killed left its child to finish: soon first, then for half an hour
_PATIENCE = [2.0] * 10 + [15.0] * 20 + [60.0] * 20


def _worth_retrying(_task: Any, _run: Any, state: Any) -> bool:
    try:
        state.result()
    except StageError as error:
        return error.transient
    except Exception:  # noqa: BLE001 - whatever else went wrong, trying again would repeat it
        return False
    return False


@task(task_run_name="prepare", cache_policy=NO_CACHE)
def prepare(root: Path, isolated: bool, run_id: str | None, env: Mapping[str, str]) -> Path:
    """Folder the run works in: a clone of the workspace, or the workspace itself."""
    folder = run_clone.checkout_for_run(root, run_id) if isolated else root.resolve()
    if isolated:
        release.write_reference(folder, env)
    return folder


@task(
    task_run_name="{stage}",
    cache_policy=NO_CACHE,
    retries=len(_PATIENCE),
    retry_delay_seconds=_PATIENCE,
    retry_condition_fn=_worth_retrying,
)
def run_stage(stage: str, root: Path, env: Mapping[str, str]) -> StageOutcome:
    """One DVC stage in a child process, its output in this run's log."""
    log = get_run_logger()
    outcome = pipeline.repro(root, [stage], single=True, env=env, on_line=log.info)
    log.info("%s: %s", stage, outcome.action)
    return outcome


@task(task_run_name="discard", cache_policy=NO_CACHE)
def discard(clone: Path) -> None:
    """Remove a run's clone; its results are on a branch, in the DVC cache and in the registry."""
    shutil.rmtree(clone, ignore_errors=True)


@task(task_run_name="publish", cache_policy=NO_CACHE)
def publish(root: Path, clone: Path) -> str:
    """Branch of the workspace that now holds the run's dvc.lock and reports."""
    return run_clone.publish_run(root, clone)
