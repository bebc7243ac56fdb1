"""Training cells of the paper's tables: two child processes of one thread each, failures kept, results found again."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TextIO

from coefvq.errors import CoefVQError, DataError
from coefvq.experiments.grid import Cell
from coefvq.files import read_json, sha256_file, write_json
from coefvq.terminal import clean
from tasks.cells import PlannedCell, write_overlay
from tasks.pipeline import child_path
from tasks.process import CHILDREN
from tasks.workspace import run_environment

RESULT, FAILURE, COST, SCORES = "result.json", "failure.json", "cost.json", "scores.parquet"
#: two processes with two threads each slow each other on two cores
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


def is_done(folder: Path, key: str) -> bool:
    """Whether a cell has its result, and its scores are those that the result names."""
    try:
        result = read_json(folder / RESULT)
        return bool(result["key"] == key and sha256_file(folder / SCORES) == result["scores_sha256"])
    except (DataError, KeyError, OSError):
        return False


def run_cells(
    root: Path,
    cells: Sequence[PlannedCell],
    data: Mapping[str, str],
    workers: int,
    on_done: Callable[[PlannedCell, str | None], None],
) -> dict[Cell, CoefVQError]:
    """Train what has no result yet, ``workers`` at a time; returns the cells that failed and why.

    Cells of the same key are trained once. A failed teacher fails its pupil; all others go on.
    """
    waiting: dict[str, Future[CoefVQError | None]] = {}
    failed: dict[Cell, CoefVQError] = {}
    with ThreadPoolExecutor(workers) as pool:
        try:
            for cell in sorted(cells, key=_turn):
                key = cell.key(data)
                if key not in waiting:
                    before = None if cell.teacher is None else waiting[cell.teacher.key(data)]
                    waiting[key] = pool.submit(_run, root, cell, data, before)
                    waiting[key].add_done_callback(partial(_tell, on_done, cell))
            for cell in cells:
                if (error := waiting[cell.key(data)].result()) is not None:
                    failed[cell.cell] = error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            CHILDREN.terminate()
            raise
    return failed


def _turn(cell: PlannedCell) -> tuple[int, Cell]:
    """MLLMs first, as they take longest and teach; pupils last."""
    return (0 if cell.kind == "mllm" else 1 if cell.teacher is None else 2), cell.cell


def _tell(
    on_done: Callable[[PlannedCell, str | None], None], cell: PlannedCell, done: Future[CoefVQError | None]
) -> None:
    if not done.cancelled() and done.exception() is None:
        error = done.result()
        on_done(cell, None if error is None else str(error))


def _run(
    root: Path, cell: PlannedCell, data: Mapping[str, str], teacher: Future[CoefVQError | None] | None
) -> CoefVQError | None:
    if teacher is not None and teacher.result() is not None:
        return DataError(f"{cell.cell}: its teacher failed: {teacher.result()}")
    folder = write_overlay(root, cell, data)
    if is_done(folder, cell.key(data)):
        return None
    (folder / FAILURE).unlink(missing_ok=True)
    argv = [sys.executable, "-m", "tasks.cell_run", str(folder)]
    env = {**child_path(), **run_environment(root), **ONE_THREAD}
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        finished = CHILDREN.run(argv, root, env, lambda line: _log(log, line))
    if finished.returncode == 0 and is_done(folder, cell.key(data)):
        return None
    return _failure(folder, cell, finished.returncode)


def _log(log: TextIO, line: str) -> None:
    log.write(f"{clean(line)}\n")
    log.flush()


def _failure(folder: Path, cell: PlannedCell, code: int) -> CoefVQError:
    """Why a cell has no result; a process that could not say so itself was killed."""
    try:
        kept = read_json(folder / FAILURE)
    except DataError:
        kept = {"reason": f"its process ended with {code}; see {folder / 'log.txt'}", "exit_code": 1}
        write_json(folder / FAILURE, kept)
    error = CoefVQError(f"{cell.cell}: {kept['reason']}")
    error.exit_code = int(kept["exit_code"])
    return error


def threads() -> int:
    """Cells at once: as many as processors, at most two."""
    return min(2, os.cpu_count() or 1)
