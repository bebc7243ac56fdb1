"""Options that many commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from coefvq.cli.numbers import number
from coefvq.errors import ConfigError
from coefvq.vmp.keys import check_tenant


def _tenant(name: str | None) -> str | None:
    try:
        return name if name is None else check_tenant(name)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error


IssueOption = Annotated[str, typer.Option(help="One of the issues in params.yaml, e.g. icd.")]
TenantOption = Annotated[str, typer.Option("--tenant", callback=_tenant, help="Whose videos.")]
AnyTenantOption = Annotated[
    str | None, typer.Option("--tenant", callback=_tenant, help="Whose videos; default: everybody's.")
]
IssuesOption = Annotated[list[str] | None, typer.Option(help="Issue(s) of params.yaml; default: all.")]
ParamsOption = Annotated[Path, typer.Option("--params", help="Settings file: its folder is the workspace.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
ByOption = Annotated[str, typer.Option(help="Name of the person who decides.")]
ReasonOption = Annotated[str, typer.Option(help="Why; kept in the history.")]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="vmp.yaml: source, store, rules and budget (docs/engines.md).")
]
NeededConfigOption = Annotated[Path, typer.Option("--config", help="vmp.yaml: source, store, rules and budget.")]
OutFolderOption = Annotated[Path, typer.Option(help="Folder to write; made if missing.")]
DataOption = Annotated[Path | None, typer.Option(help="Your labelled folder or table instead of synthetic clips.")]
PositiveOption = Annotated[list[str] | None, typer.Option(help="With --data: label value(s) that mean positive.")]
LabelColumnOption = Annotated[str, typer.Option(help="With --data: column that holds the label.")]
MaxGibOption = Annotated[float | None, number(min=0.0, max=1e9, help="Keep at most so much; the oldest use goes.")]
UnusedDaysOption = Annotated[float | None, number(min=0.0, max=1e6, help="Remove what no run used for so long.")]
BudgetOption = Annotated[
    str | None,
    typer.Option("--mllm-budget", help="MLLM calls, such as 0.5/s or 5000/day; none: any. Kept in the index."),
]
BurstOption = Annotated[
    int, typer.Option("--mllm-burst", min=1, max=1_000_000, help="With --mllm-budget: calls at once after a pause.")
]
FeaturesOption = Annotated[Path | None, typer.Option("--features", help="Feature stores that rules see (YAML).")]
LogOption = Annotated[
    Literal["json", "console"] | None, typer.Option("--log", help="Structured log on stderr, one line per batch.")
]
MaxWaitOption = Annotated[
    float, number("--mllm-max-wait", min=1.0, help="With --mllm-budget: seconds until a task is given up.")
]
