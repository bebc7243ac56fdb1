"""The paper's tables on one's own data: workspace, clips, cells, then one result per table.

A run that was killed is started again with the same command: clips, DVC stages, trainings and cells that are done
stay, and the results come out as the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from coefvq.data.manifest import read_table
from coefvq.data.splits.rows import split_manifest
from coefvq.errors import CoefVQError, DataError
from coefvq.experiments.grid import Cell, cells_of, shipped_grid
from coefvq.experiments.measure import MeasureSettings
from coefvq.experiments.pages import table_page, terminal_table, written
from coefvq.experiments.result import FORMAT_VERSION, issue_result
from coefvq.experiments.scores import CELL_COLUMNS, side
from coefvq.files import read_json, read_text, sha256_json, write_json, write_text
from coefvq.registry import tracking
from coefvq.stages.predict import score_facts
from coefvq.terminal import progress, say, show
from flows.table_bench import Bench, TablesRequest, data_spec, obstacle, open_bench
from tasks import workspace
from tasks.cell_files import COST, RESULT, SCORES
from tasks.cell_pool import run_cells, threads
from tasks.cells import FOLDER, PlannedCell, data_hashes, planned, with_sources, workspace_files


class CellsFailedError(CoefVQError):
    """Some cells failed; the exit code is that of the first one's error."""


def run_tables(request: TablesRequest) -> list[dict[str, Any]]:
    """Make what is missing and return one result per table, in JSON-ready form.

    Raises:
        CellsFailedError: some cells failed; the others' rows were written.
        CoefVQError: a step failed; the message says which file or row and what to do.
    """
    grid = shipped_grid()
    numbers, spec = grid.chosen(request.tables), data_spec(grid, request.recipe)
    if request.write is not None:
        written(_page(request.write), "", str(request.write))
    began = time.monotonic()
    bench = open_bench(request, grid, spec)
    refused = {number: why for number in numbers if (why := obstacle(bench, grid.tables[number])) is not None}
    if len(refused) == len(numbers):
        raise DataError(refused[numbers[0]])
    kept = [number for number in numbers if number not in refused]
    cells, failed = _train(request, bench, kept)
    results = [_result(bench, number, cells, failed) for number in kept]
    _publish(request, bench, results, cells, time.monotonic() - began)
    if failed:
        raise _failed(cells, failed)
    if refused:
        raise DataError("; ".join(refused.values()))
    return results


def _train(
    request: TablesRequest, bench: Bench, numbers: Sequence[str]
) -> tuple[dict[Cell, PlannedCell], dict[Cell, CoefVQError]]:
    files = workspace_files(bench.root, bench.grid, request.recipe)
    wanted: dict[Cell, None] = {}
    for number in numbers:
        table = bench.grid.tables[number]
        wanted |= dict.fromkeys(cells_of(table, bench.issues(table), bench.seeds(table)))
    cells = {cell: planned(files, bench.grid, cell) for cell in wanted}
    data = data_hashes(bench.root, bench.params)
    distinct = len({cell.key(data) for cell in with_sources(cells.values())})
    with progress("cells", distinct) as advance:
        workers = 1 if bench.spec.gpu is not None else threads()
        failed = run_cells(bench.root, list(cells.values()), data, workers, lambda _: advance(1))
    for reason in failed.values():
        say(f"failed: {reason}")
    return cells, failed


def _result(
    bench: Bench, number: str, cells: Mapping[Cell, PlannedCell], failed: Mapping[Cell, CoefVQError]
) -> dict[str, Any]:
    """One table; written as tables/table-<number>.json and .md of the workspace."""
    table, params = bench.grid.tables[number], bench.params
    settings = MeasureSettings(params.evaluate.precision_targets, params.evaluate.bootstrap, params.seed)
    parts = []
    for issue in bench.issues(table):
        needed = cells_of(table, [issue], bench.seeds(table))
        lost = {cell.model: str(failed[cell]) for cell in needed if cell in failed}
        scores = {cell: _scores(bench, cells[cell]) for cell in needed if cell not in failed}
        whole = side(issue, _facts(bench, issue), scores, bench.seeds(table))
        parts.append(issue_result(number, table, whole, settings, _groups(bench), lost))
    result = {"format_version": FORMAT_VERSION, "table": number, "title": table.title, "issues": parts}
    write_json(bench.root / FOLDER / f"table-{number}.json", result)
    write_text(bench.root / FOLDER / f"table-{number}.md", table_page(number, table.title, parts))
    return result


def _in_workspace(bench: Bench) -> Any:
    paths = bench.params.paths
    return paths.model_copy(update={name: str(bench.root / getattr(paths, name)) for name in ("manifest", "splits")})


def _facts(bench: Bench, issue: str) -> pd.DataFrame:
    return score_facts(_in_workspace(bench), issue)


def _groups(bench: Bench) -> dict[str, Any] | None:
    column = bench.params.evaluate.group_by
    if column is None:
        return None
    rows = split_manifest(_in_workspace(bench))
    if column not in rows:
        raise DataError(f"evaluate.group_by: '{column}' is no column of the manifest")
    return {
        video: None if missing else value
        for video, value, missing in zip(rows["video_id"], rows[column], rows[column].isna(), strict=True)
    }


def _folder(bench: Bench, cell: PlannedCell) -> Path:
    return cell.folder(bench.root, data_hashes(bench.root, bench.params))


def _scores(bench: Bench, cell: PlannedCell) -> pd.DataFrame:
    return read_table(_folder(bench, cell) / SCORES, CELL_COLUMNS)


def _publish(
    request: TablesRequest,
    bench: Bench,
    results: Sequence[Mapping[str, Any]],
    cells: Mapping[Cell, PlannedCell],
    seconds: float,
) -> None:
    """Tracking store, terminal, the page that was named, and a commit of the workspace."""
    settings = bench.params.tracking
    environment = workspace.run_environment(bench.root)
    tracking.configure(settings.uri, settings.experiment, root=bench.root, default=environment["MLFLOW_TRACKING_URI"])
    for result in results:
        tracking.log_comparison(f"table {result['table']}", sha256_json(result), _logged(result))
        for part in result["issues"]:
            show(terminal_table(result["table"], result["title"], part), 160)
    if request.write is not None:
        section = _section(request, bench, results, cells, seconds)
        write_text(request.write, written(_page(request.write), section, str(request.write)))
    workspace.commit(bench.root, f"Tables {', '.join(str(result['table']) for result in results)}")


def _logged(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A child run per row: figures, the ends of their intervals, the share of calls."""
    rows: dict[str, dict[str, Any]] = {}
    for part in result["issues"]:
        for row in part["rows"]:
            if row["figures"] is not None:
                figures = {"test": row["figures"], "kept": row["kept"], "qps_ratio": row["qps_ratio"]}
                rows[f"table {result['table']}: {part['issue']}, {row['name']}"] = figures
    return rows


def _page(path: Path) -> str:
    return read_text(path, missing="--write needs a page that is there", remedy="give a Markdown page")


def _section(
    request: TablesRequest,
    bench: Bench,
    results: Sequence[Mapping[str, Any]],
    cells: Mapping[Cell, PlannedCell],
    seconds: float,
) -> str:
    """The generated part of a page: how it was made, then the tables."""
    folders = {_folder(bench, cell) for cell in cells.values()}
    costs = [read_json(folder / COST) for folder in sorted(folders) if (folder / RESULT).is_file()]
    machines = sorted({cost["machine"] for cost in costs})
    splits = read_json(bench.root / bench.params.paths.reports / "splits.json")["splits"]
    sizes = ", ".join(f"{name} {found['kept']:,}" for name, found in splits.items() if found["kept"])
    drawn = max(found["labelled"] for found in splits["train"]["issues"].values())
    seeds = "" if request.seeds is None else f" --seeds {request.seeds}"
    command = f"coefvq tables {request.tables} --recipe {request.recipe}{seeds}"
    lines = [
        f"Made by `{command}`: {len(folders)} trainings, {sum(cost['cpu_s'] for cost in costs) / 60:.0f} CPU minutes; "
        f"the last run took {seconds / 60:.1f} minutes. {'; '.join(machines)}. Videos: {sizes}; "
        f"{drawn:,} labels were drawn for train before negatives were thinned.",
        "",
        "",
    ]
    return "\n".join(lines) + "\n".join(table_page(r["table"], r["title"], r["issues"], 3) for r in results)


def _failed(cells: Mapping[Cell, PlannedCell], failed: Mapping[Cell, CoefVQError]) -> CellsFailedError:
    first = next(iter(failed.values()))
    error = CellsFailedError(
        f"{len(failed)} of {len(cells)} cells failed; first: {first}; its log is in {FOLDER}/cells; "
        "the same command tries them again"
    )
    error.exit_code = first.exit_code
    return error
