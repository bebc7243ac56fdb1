"""Snapshot: a batch of new clips becomes a version of a workspace's raw data, without touching anybody's checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from prefect import flow, get_run_logger

from coefvq.terminal import protect
from tasks.snapshot import collect, land, locate
from tasks.snapshot_run import SnapshotRequest, opened


@flow(name="snapshot", persist_result=False)
def snapshot(
    batch: str,
    workspace: str = ".",
    layout: Literal["files", "reference"] | None = None,
    name: str | None = None,
    message: str | None = None,
    tag: str | None = None,
    remote: str | None = None,
    branch: str | None = None,
    push: bool = True,
) -> dict[str, Any]:
    """Version a batch; killed anywhere and started again, it adds what is not there yet.

    Args:
        batch: folder or table of labelled clips.
        workspace: git + DVC workspace.
        layout: `files` copies clips, `reference` keeps rows and hashes; default: as before.
        name: folder that the clips get below the raw folder; default: the batch's own name.
        message: first line of the commit.
        tag: a tag of your own beside data-v<N>.
        remote: DVC remote; default: DVC's default remote.
        branch: branch of origin; default: its HEAD.
        push: without it, nothing leaves this machine.

    Returns:
        What `coefvq data snapshot --json` prints.
    """
    protect()
    request = SnapshotRequest(Path(batch), Path(workspace), layout, name, message, tag, remote, branch, push)
    with opened(request, locate(request)) as run:
        made = land(run, collect(run))
    for line in made.lines():
        get_run_logger().info(line)
    return made.as_json()
