"""``coefvq plan``: hours, disk and memory of each stage before anybody starts."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Annotated, Any

import typer

from coefvq.cli.numbers import number
from coefvq.cli.options import JsonOption, ParamsOption
from coefvq.cli.workspace import open_workspace
from coefvq.config import PARAMS_FILE
from coefvq.terminal import cell, echo, echo_json, show

_UNCOUNTED = "not counted: base models, alignment, stability, talk between machines"


def plan(
    rows: Annotated[float, number(min=1.0, max=1e12, help="Videos of the data set, such as 1e6.")],
    machines: Annotated[int, typer.Option(min=1, max=100_000, help="Equal machines that share the work.")] = 1,
    cores: Annotated[int | None, typer.Option(min=1, max=100_000, help="Cores of one; default: those here.")] = None,
    tflops: Annotated[
        float | None,
        number(min=1e-6, max=1e9, help="10^12 operations a second that one reaches; default: measured here."),
    ] = None,
    params: ParamsOption = PARAMS_FILE,
    as_json: JsonOption = False,
) -> None:
    """Hours, disk and memory of each stage, on one machine and on several; the recipe says which models.

    Example: coefvq plan --rows 1e6

    Example: coefvq plan --rows 5e6 --machines 4 --cores 32 --tflops 100 --json
    """
    settings = open_workspace(params)
    from coefvq.training.forecast import ForecastSettings, IssueSettings, Machines, forecast, measured_flops

    flops = measured_flops() if tflops is None else tflops * 1e12
    given = Machines(machines, cores or os.cpu_count() or 1, flops)
    issues = [IssueSettings.of(settings, issue) for issue in settings.issues]
    found = forecast(ForecastSettings.of(settings), issues, rows, given)
    total = {name: sum(getattr(stage, name) for stage in found) for name in ("hours", "hours_on_all", "disk_gib")}
    if as_json:
        result: dict[str, Any] = {"rows": rows, "machines": asdict(given), "measured": tflops is None, "total": total,
                                  "stages": [asdict(stage) for stage in found], "not_counted": _UNCOUNTED}  # fmt: skip
        echo_json(result, indent=2)
        return
    from rich.table import Table

    table = Table("stage", "hours, one", f"hours, {machines}", "disk GiB", "memory GiB", "from", box=None)
    for stage in found:
        figures = (stage.hours, stage.hours_on_all, stage.disk_gib, stage.memory_gib)
        table.add_row(cell(stage.stage), *(f"{value:,.2f}" for value in figures), cell(stage.basis))
    table.add_row("all", *(f"{value:,.2f}" for value in total.values()), "", "")
    show(table, 160)
    speed = "measured here" if tflops is None else "as given"
    echo(f"a machine: {given.cores} core(s), {flops / 1e12:,.3f} TFLOP/s ({speed}); {_UNCOUNTED}")
