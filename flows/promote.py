"""Promote, reject or roll back by hand from the Prefect UI; the terminal has the same commands."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from prefect import flow
from prefect.runtime import flow_run

from coefvq.registry import overview, release
from coefvq.terminal import protect
from tasks.release import connect, record_decision
from tasks.workspace import run_environment


@flow(name="promote", persist_result=False)
def promote(
    issue: str,
    by: str,
    reason: str,
    action: Literal["approve", "reject", "rollback"] = "approve",
    version: str | None = None,
    workspace: str = ".",
) -> str:
    """Decide on the challenger of an issue (or on ``version``), or return to the champion before.

    Returns:
        The version that is champion afterwards, or "none".
    """
    protect()
    root = Path(workspace)
    connect(root, run_environment(root))
    if action == "rollback":
        release.rollback(issue, by, reason, flow_run_id=str(flow_run.id))
    else:
        record_decision(issue, action, by, reason, version, str(flow_run.id))
    return _champion(issue)


def _champion(issue: str) -> str:
    champions = {row.issue: row.champion for row in overview.status()}
    pair = champions.get(issue)
    return pair.version if pair else "none"
