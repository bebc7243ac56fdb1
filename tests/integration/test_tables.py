"""`coefvq tables` for real: all tables of recipe tiny, kill -9 in a cell, a failing cell, test labels turned round."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from coefvq.config import load_params
from coefvq.experiments.grid import Cell, shipped_grid
from coefvq.files import write_text
from tasks.cell_files import SCORES
from tasks.cell_pool import run_cells
from tasks.cells import data_hashes, planned, workspace_files

pytestmark = pytest.mark.long


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    clean = {key: value for key, value in os.environ.items() if key not in {"MLFLOW_TRACKING_URI", "COEFVQ_CACHE"}}
    command = [sys.executable, "-m", "coefvq", "tables", *arguments, "--recipe", "tiny", "--workspace", str(folder)]
    return subprocess.Popen(
        command, env={**clean, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def tables(folder: Path, *arguments: str, code: int = 0) -> tuple[str, str]:
    run = start(folder, *arguments)
    output, errors = run.communicate(timeout=1500)
    assert run.returncode == code, f"{output[-2000:]}{errors[-3000:]}"
    return output, errors


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with Table 3; do not change it."""
    folder = tmp_path_factory.mktemp("tables") / "w"
    tables(folder, "3")
    return folder


@pytest.fixture
def again(finished: Path, tmp_path: Path) -> Path:
    """A copy with the clips and splits, and nothing trained."""
    shutil.copytree(finished, tmp_path / "w", symlinks=True)
    shutil.rmtree(tmp_path / "w" / "tables")
    return tmp_path / "w"


def results(folder: Path) -> dict[str, bytes]:
    found = [*folder.glob("tables/table-*"), *folder.glob("tables/cells/*/scores.parquet")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_killed_in_a_cell_and_started_again_ends_in_the_same_bytes(
    finished: Path, again: Path, wait_until: Callable[[Callable[[], bool], float], None]
) -> None:
    run = start(again, "3")

    def an_epoch_is_done() -> bool:
        assert run.poll() is None, "it ended before it could be killed"
        return any("epoch 1:" in log.read_text() for log in again.glob("tables/cells/*/log.txt"))

    wait_until(an_epoch_is_done, 900.0)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert not list(again.glob("tables/table-*"))
    tables(again, "3")
    assert results(again) == results(finished)
    # and once more: nothing to do
    before = {path: path.stat().st_mtime_ns for path in again.glob("tables/cells/*/result.json")}
    tables(again, "3")
    assert before == {path: path.stat().st_mtime_ns for path in again.glob("tables/cells/*/result.json")}
    assert results(again) == results(finished)


def test_a_failed_cell_keeps_its_reason_and_the_others_go_on(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "w"
    shutil.copytree(finished, folder, symlinks=True)
    cells = folder.glob("tables/cells/*/cell.json")
    late = next(path for path in cells if "late" in json.loads(path.read_text())["name"])
    for name in ("result.json", "scores.parquet"):
        (late.parent / name).unlink()
    shutil.rmtree(late.parent / "models")
    write_text(late.parent / "models", "a file where a folder belongs")
    run = start(folder, "3")
    _, errors = run.communicate(timeout=1500)
    assert run.returncode in (3, 7)
    assert "1 of 2 cells failed" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert json.loads((late.parent / "failure.json").read_text())["exit_code"] == run.returncode
    rows = json.loads((folder / "tables" / "table-3.json").read_text())["issues"][0]["rows"]
    assert [row["figures"] is None for row in rows] == [False, True]
    assert rows[1]["reason"].startswith("failed: ucc-mllm-late-s0")


def test_labels_of_test_reach_no_score(finished: Path, again: Path) -> None:
    """The guard: with all test labels turned round a training ends in the same scores."""
    params, grid = load_params(again / "params.yaml"), shipped_grid()
    manifest, splits = (again / getattr(params.paths, name) for name in ("manifest", "splits"))
    rows, test = pd.read_parquet(manifest), pd.read_parquet(splits).query("split == 'test'")["video_id"]
    turned = rows["video_id"].isin(test)
    rows.loc[turned, "label_ucc"] = 1 - rows.loc[turned, "label_ucc"]
    rows.to_parquet(manifest, index=False)
    cell = planned(workspace_files(again, grid, "tiny"), grid, Cell("mllm-late", "ucc", 0))
    before = cell.folder(finished, data_hashes(finished, params)) / SCORES
    data = data_hashes(again, params)
    assert run_cells(again, [cell], data, 1, lambda _: None) == {}
    assert (cell.folder(again, data) / SCORES).read_bytes() == before.read_bytes()


def test_all_tables_of_recipe_tiny(tmp_path: Path) -> None:
    output, _ = tables(tmp_path / "w", "all")
    for number in "123456":
        part = json.loads((tmp_path / "w" / "tables" / f"table-{number}.json").read_text())["issues"]
        rows = [row for each in part for row in each["rows"]]
        # on so few clips a base may reach no precision, and nothing can be certified
        missing = [row["reason"] for row in rows if row["figures"] is None]
        assert all("unreachable" in reason or "cannot certify" in reason for reason in missing)
    assert "Table 2, icd" in output
