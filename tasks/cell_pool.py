"""Training cells of the paper's tables: hosts of one thread each, failures kept, results found again."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from coefvq.errors import CoefVQError, DataError
from coefvq.experiments.grid import Cell
from coefvq.files import read_json, write_text
from coefvq.terminal import clean
from tasks.cell_files import FAILURE, LOG, is_done
from tasks.cells import FOLDER, PlannedCell, with_sources, write_overlay
from tasks.pipeline import child_path
from tasks.process import CHILDREN
from tasks.workspace import run_environment

#: two processes with two threads each slow each other on two cores
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


def run_cells(
    root: Path,
    cells: Sequence[PlannedCell],
    data: Mapping[str, str],
    workers: int,
    on_done: Callable[[str], None],
) -> dict[Cell, CoefVQError]:
    """Train what has no result yet, ``workers`` at a time; returns the cells that failed and why.

    Cells of the same key are trained once, and so is a cell whose model another needs. Where it fails, that one fails
    too; all others go on. ``on_done`` gets the name of each cell that comes to its end.
    """
    distinct: dict[str, PlannedCell] = {}
    for cell in sorted(with_sources(cells), key=_turn):
        distinct.setdefault(cell.key(data), cell)
    # models are in the tracking store as well; git keeps results, not weights
    write_text(root / FOLDER / ".gitignore", "/cells/\n")
    folders = {key: write_overlay(root, cell, data) for key, cell in distinct.items()}
    missing = [str(folder) for key, folder in folders.items() if not is_done(folder, key)]
    for key, folder in folders.items():
        if is_done(folder, key):
            on_done(str(distinct[key].cell))
    if missing:
        _host(root, missing, min(workers, len(missing)), on_done)
    return {
        cell.cell: _failure(folders[cell.key(data)], cell)
        for cell in cells
        if not is_done(folders[cell.key(data)], cell.key(data))
    }


def _turn(cell: PlannedCell) -> tuple[int, Cell]:
    """MLLMs first, as they take longest and teach; last what needs another's model."""
    return (2 if cell.source is not None else 0 if cell.kind == "mllm" else 1), cell.cell


def _host(root: Path, folders: Sequence[str], workers: int, on_done: Callable[[str], None]) -> None:
    """Hosts with the same list, until all have gone through it."""
    argv = [sys.executable, "-m", "tasks.cell_host", *folders]
    env = {**child_path(), **run_environment(root), **ONE_THREAD}
    said: list[str] = []

    def on_line(line: str) -> None:
        state, _, name = line.partition(" ")
        if state in ("done", "failed"):
            on_done(name)
        else:
            said.append(clean(line))

    with ThreadPoolExecutor(workers) as pool:
        try:
            running = [pool.submit(CHILDREN.run, argv, root, env, on_line) for _ in range(workers)]
            codes = [host.result().returncode for host in running]
        except BaseException:
            CHILDREN.terminate()
            raise
    if all(codes):
        raise CoefVQError(f"the process that runs cells ended with code {codes[0]}: {(said or ['no output'])[-1]}")


def _failure(folder: Path, cell: PlannedCell) -> CoefVQError:
    """Why a cell has no result."""
    try:
        kept = read_json(folder / FAILURE)
    except DataError:
        kept = {"reason": f"its process was ended; see {folder / LOG}", "exit_code": 1}
    error = CoefVQError(f"{cell.cell}: {kept['reason']}")
    error.exit_code = int(kept["exit_code"])
    return error


def threads() -> int:
    """Cells at once: as many as processors, at most two."""
    return min(2, os.cpu_count() or 1)
