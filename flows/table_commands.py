"""``coefvq tables``: the paper's tables on one's own data, or what they would take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from coefvq.cli.options import DataOption, JsonOption, LabelColumnOption, PositiveOption
from coefvq.terminal import cell, echo, echo_json, show


def tables(
    table: Annotated[str, typer.Argument(help="1 to 6, or all.")],
    recipe: Annotated[
        str, typer.Option(help="How models are made: tiny, starter, onevision-0.5b or paper.")
    ] = "starter",
    seeds: Annotated[
        int | None, typer.Option(min=1, max=100, help="Trainings per model; default: as the grid says.")
    ] = None,
    workspace: Annotated[Path | None, typer.Option(help="Folder for the workspace; default: .tables-<recipe>.")] = None,
    data: DataOption = None,
    issue: Annotated[str | None, typer.Option(help="With --data: the issue its labels are about.")] = None,
    positive: PositiveOption = None,
    label_column: LabelColumnOption = "label",
    write: Annotated[
        Path | None, typer.Option(help="Markdown page whose part between the markers of tables is written anew.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the grid, hours and memory.")] = False,
    as_json: JsonOption = False,
) -> None:
    """The paper's tables: every model trained, measured and compared with the paper's figures and claims.

    Started again it finds its work done: a cell (one training) is known by the hash of all it depends on. A cell that
    fails keeps its reason and the others go on; the exit code is then that of the first failure.

    Example: coefvq tables all --recipe tiny

    Example: coefvq tables 2 --recipe starter --seeds 3 --write results.md

    Example: coefvq tables all --recipe paper --dry-run

    Example: coefvq tables 1 --data clips/ --issue icd --positive fight
    """
    from flows.experiments import run_tables
    from flows.forecast import forecast
    from flows.table_bench import TablesRequest

    folder = workspace or Path(f".tables-{recipe}")
    if dry_run:
        _show_forecast(forecast(table, recipe, seeds, folder), as_json)
        return
    request = TablesRequest(table, recipe, seeds, folder, data, issue, tuple(positive or ()), label_column, write)
    results = run_tables(request)
    if as_json:
        echo_json(results)
    else:
        echo(*(f"{folder}/tables/table-{result['table']}.md and .json are written" for result in results))


def _show_forecast(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        echo_json(found, indent=2)
        return
    from rich.table import Table

    shown = Table(title=cell(found["title"]), title_justify="left", caption=cell(found["note"]), caption_justify="left")
    for at, name in enumerate(("cell", "tables", "train videos", "epochs", "hours", "GiB")):
        shown.add_column(name, justify="right" if at > 1 else "left")
    for row in found["cells"]:
        shown.add_row(
            cell(row["name"]),
            ", ".join(row["tables"]),
            f"{row['train_videos']:,}",
            f"{row['epochs']:g}",
            _number(row["hours"], 2),
            _number(row["memory_gib"], 1),
        )
    show(shown, 120)
    echo(*found["lines"])


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
