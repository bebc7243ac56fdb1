"""What the commands of `coefvq vmp` share: which state is meant, and how a result is printed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from coefvq.cli.numbers import number
from coefvq.config import PARAMS_FILE, load_params
from coefvq.terminal import echo, echo_json, show

StateOption = Annotated[
    Path | None, typer.Option("--state", help="Folder of log.sqlite and index.sqlite; default: vmp of the workspace.")
]
BatchOption = Annotated[int, typer.Option(min=1, max=100_000, help="Videos per batch and transaction.")]
RulesOption = Annotated[Path | None, typer.Option(help="Filter rules (YAML), kept for later runs, or: shipped.")]
TenantsOption = Annotated[Path | None, typer.Option("--tenants", help="Tenants (YAML), kept for later runs, or: none.")]
ScoredIssuesOption = Annotated[
    list[str] | None, typer.Option(help="Score this issue (repeatable); default: all with a champion.")
]
PollOption = Annotated[float, number(min=0.01, help="Seconds between looks for work.")]
FollowOption = Annotated[float, number(min=0.1, help="Seconds between looks for a new release decision.")]


def state_folder(state: Path | None, params: Path) -> Path:
    """The state that the options name."""
    if state is not None:
        return state
    if params != PARAMS_FILE:
        load_params(params)  # whoever names a file means a workspace; a state alone is named by --state
    return params.parent / "vmp"


def result_table(*columns: str) -> Table:
    """A table without a frame; empty names leave out the header."""
    table = Table(show_header=any(columns), box=None)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def print_result(value: dict[str, Any], as_json: bool, human: Sequence[str] | Table) -> None:
    """JSON for scripts, else lines or a table."""
    if as_json:
        echo_json(value)
    elif isinstance(human, Table):
        show(human)
    else:
        echo(*human)
