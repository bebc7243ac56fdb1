"""Retrain: all stages, then the gate, then a challenger per issue, then a person.

The flow can be killed anywhere and started again: DVC knows the finished stages, registering is
idempotent on the bundle's content, and a decision taken meanwhile is found in the registry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from coefvq.config import load_params
from coefvq.terminal import protect
from flows.approval import settle
from tasks.pipeline import StageOutcome, repro, share_of_threads, sharing, side_by_side, stage_levels
from tasks.process import CHILDREN
from tasks.release import register_challenger, report_challenger
from tasks.stages import discard, prepare, publish, run_stage
from tasks.workspace import run_environment

_RUNNER: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=8)


@flow(name="retrain", task_runner=_RUNNER, persist_result=False)
def retrain(
    workspace: str = ".",
    issues: list[str] | None = None,
    isolated: bool = True,
    parallel: int = 1,
    wait_for_approval: bool = True,
) -> dict[str, str]:
    """Train a pair per issue, register those that pass the gate, and wait for a decision on each.

    Args:
        workspace: git + DVC workspace with dvc.yaml and params.yaml.
        issues: default: all in params.yaml.
        isolated: work in a clone of the workspace's HEAD and leave its checkout alone.
        parallel: how many independent stages may run side by side.
        wait_for_approval: suspend until each challenger is approved or rejected; only in a deployment run.

    Returns:
        Issue -> "approve", "reject" or "waiting".
    """
    protect()
    root = Path(workspace)
    env = run_environment(root)
    folder = prepare(root, isolated, flow_run.id, env)
    names = issues or list(load_params(folder / "params.yaml").issues)
    run_stages(folder, names, env, parallel)
    pairs = [register_challenger(issue, folder, env) for issue in names]
    if isolated:
        get_run_logger().info("dvc.lock and reports are on branch %s", publish(root, folder))
    decided = {
        pair.issue: settle(pair, partial(report_challenger, pair, folder, env), wait_for_approval) for pair in pairs
    }
    if isolated and "waiting" not in decided.values():
        discard(folder)
    return decided


def run_stages(folder: Path, issues: Sequence[str], env: Mapping[str, str], parallel: int) -> list[StageOutcome]:
    """Walk the stages in DVC's own order, level by level; a failure or cancel ends every child process."""
    outcomes = []
    together = sharing(load_params(folder / "params.yaml"))
    shared = {frozenset(f"train-mllm@{issue}" for issue in names) for names in together}
    try:
        for level in stage_levels(folder, issues):
            for chunk in side_by_side(level, parallel, shared):
                if len(chunk) == 1:  # in this thread, where a cancel arrives
                    outcomes.append(run_stage(chunk[0], folder, env))
                else:
                    own = {**env, **share_of_threads(len(chunk))}
                    futures = [run_stage.submit(stage, folder, own) for stage in chunk]
                    outcomes.extend(future.result() for future in futures)
    finally:
        CHILDREN.terminate()
    # single stages do not look upstream: one last look at the whole graph, which must find nothing to do
    left = repro(folder, [f"candidate@{issue}" for issue in issues], env=env)
    if left.action == "ran":
        get_run_logger().warning("stages ran again in the final check; was the workspace changed meanwhile?")
    return outcomes
