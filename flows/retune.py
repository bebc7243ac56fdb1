"""Retune: new thresholds for the champion's models from present traffic and fresh labels, then a person.

The paper adjusts thresholds "recurrently" (section 2.2.3). Here each adjustment is a proposal that passes the gate,
is registered and waits for a decision, as a retrained pair does.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from coefvq.terminal import protect
from flows.approval import settle
from tasks.process import CHILDREN
from tasks.retuning import RetuneRun, keep_proposal, propose, register_proposal
from tasks.workspace import run_environment


@flow(name="retune", persist_result=False)
def retune(
    issue: str,
    labels: str,
    workspace: str = ".",
    scores: str | None = None,
    qps: float | None = None,
    tenant: str | None = None,
    wait_for_approval: bool = True,
) -> str:
    """Propose a policy, register it if the gate lets it pass, and wait for a decision.

    Args:
        issue: one of params.yaml.
        labels: table of fresh labels, relative to the workspace.
        workspace: where the champion's tracking store, clips and VMP state are.
        scores: table of scored traffic, relative to the workspace; default: the index of the VMP.
        qps: percent of videos that may reach the MLLM; default: the rule of params.yaml.
        tenant: whose videos of the index; default: those without a tenant.
        wait_for_approval: suspend until the challenger is approved or rejected; only in a deployment run.

    Returns:
        "approve", "reject", "waiting", or "unchanged" where the thresholds are right as they are.
    """
    protect()
    root = Path(workspace).resolve()
    run = RetuneRun(issue, root, run_environment(root), root / ".coefvq" / "retuned" / str(flow_run.id))
    given = {"--labels": labels, "--scores": scores, "--qps": None if qps is None else str(qps), "--tenant": tenant}
    options = [word for name, value in given.items() if value is not None for word in (name, value)]
    try:
        found = propose(run, options)
    finally:
        CHILDREN.terminate()
    if not found:
        get_run_logger().info("%s: the thresholds stay as they are", issue)
        return "unchanged"
    pair = register_proposal(run)
    return settle(pair, partial(keep_proposal, run, pair), wait_for_approval)
