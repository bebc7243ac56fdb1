"""Commands plugged into ``coefvq data`` that need DVC and git: snapshot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from coefvq.cli.options import JsonOption
from coefvq.terminal import echo, echo_json


def snapshot(
    batch: Annotated[Path, typer.Option("--from", help="Folder or table of labelled clips.")],
    workspace: Annotated[Path, typer.Option(help="Workspace to add them to.")] = Path(),
    layout: Annotated[
        Literal["files", "reference"] | None,
        typer.Option(help="Copy clips, or keep rows and hashes; default: as before."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the batch; default: its folder's.")] = None,
    message: Annotated[str | None, typer.Option(help="First line of the commit.")] = None,
    tag: Annotated[str | None, typer.Option(help="A tag of your own beside data-v<N>.")] = None,
    remote: Annotated[str | None, typer.Option(help="DVC remote; default: DVC's default remote.")] = None,
    branch: Annotated[str | None, typer.Option(help="Branch to publish; default: HEAD of origin.")] = None,
    push: Annotated[bool, typer.Option("--push/--no-push", help="Send to origin and to the DVC remote.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Add a batch of labelled clips to a workspace's raw data as a new version; no checkout is touched.

    Example: coefvq data snapshot --from incoming/2026-11-23

    Example: coefvq data snapshot --from new.parquet --layout reference --json
    """
    from tasks.snapshot_run import SnapshotRequest
    from tasks.versioning import take

    made = take(SnapshotRequest(batch, workspace, layout, name, message, tag, remote, branch, push))
    if as_json:
        echo_json(made.as_json())
    else:
        echo(*made.lines())
