"""What ``coefvq tables`` refuses before it makes anything, and what it forecasts."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from coefvq.data.manifest import write_table
from coefvq.errors import ConfigError, DataError
from coefvq.experiments.grid import Cell, shipped_grid
from flows.experiments import run_tables
from flows.forecast import forecast
from flows.table_bench import Bench, TablesRequest, obstacle
from tasks.cells import planned, workspace_files
from tasks.workspace import write_pipeline


def request(folder: Path, **changes) -> TablesRequest:
    given = {
        "tables": "3",
        "recipe": "tiny",
        "seeds": None,
        "folder": folder / "w",
        "data": None,
        "issue": None,
        "positive": (),
        "label_column": "label",
        "write": None,
    }
    return TablesRequest(**given | changes)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"tables": "7"}, ConfigError, "expected one of 1, 2, 3, 4, 5, 6 or all"),
        ({"recipe": "huge"}, ConfigError, "expected one of tiny, starter"),
        ({"data": Path("clips")}, ConfigError, "--data needs --issue"),
        ({"write": Path("none.md")}, DataError, "none.md: no such file"),
    ],
)
def test_it_refuses_before_it_makes_anything(tmp_path, changes, kind, message):
    with pytest.raises(kind, match=message):
        run_tables(request(tmp_path, **changes))
    assert not any(tmp_path.iterdir())


def bench(folder: Path, **columns) -> Bench:
    grid = shipped_grid()
    write_pipeline(folder, {}, "tiny")
    params = planned(workspace_files(folder, grid, "tiny"), grid, Cell("mllm", "ucc", 0)).settings
    paths = params.paths.model_copy(update={"manifest": "manifest.parquet"})
    rows = pd.DataFrame({"video_id": ["a", "b"], "has_audio": True, "title": "x", "stickers": [[], []]} | columns)
    write_table(rows, folder / "manifest.parquet")
    return Bench(folder, grid, grid.data["tiny"], params.model_copy(update={"paths": paths}), None, False)


def test_a_table_needs_its_modalities(tmp_path):
    tables = shipped_grid().tables
    assert obstacle(bench(tmp_path), tables["6"]) is None
    silent = bench(tmp_path, has_audio=False)
    assert obstacle(silent, tables["3"]).startswith("table 3: no clip has sound")
    assert obstacle(silent, tables["4"]) is None
    textless = bench(tmp_path, title="")
    assert obstacle(textless, tables["6"]).startswith("table 6: no clip has a title or stickers")
    assert obstacle(bench(tmp_path, title="", stickers=[["sale"], []]), tables["6"]) is None


def test_the_forecast_counts_a_shared_cell_once(tmp_path):
    found = forecast("all", "tiny", None, tmp_path)
    named = {row["name"]: row["tables"] for row in found["cells"]}
    assert len(named) == 31
    assert named["ucc-mllm-s0"] == ["1", "2", "3", "5", "6"]
    assert found["hours"] == pytest.approx(sum(row["hours"] for row in found["cells"]))
    rows = {row["name"]: row for row in found["cells"]}
    # the split that a new workspace gets, and the one training of an MLLM for both issues
    assert rows["icd-distilled-s0"]["train_videos"] > rows["icd-base-s0"]["train_videos"] > 0
    assert (rows["icd-mllm-both-s0"]["train_videos"], rows["ucc-mllm-both-s0"]["train_videos"]) == (
        rows["icd-mllm-s0"]["train_videos"],
        0,
    )
    assert rows["icd-attention-lora-s0"]["hours"] > rows["icd-attention-unaligned-s0"]["hours"]
    twice = forecast("3", "tiny", 2, tmp_path)
    assert twice["hours"] == pytest.approx(2.0 * forecast("3", "tiny", 1, tmp_path)["hours"])
    assert twice["lines"][-1] == "then: coefvq tables 3 --recipe tiny --seeds 2"
    assert found["lines"][-1] == "then: coefvq tables all --recipe tiny"


def test_the_forecast_on_gpus_is_marked_as_not_run(tmp_path):
    found = forecast("3", "onevision-0.5b", None, tmp_path)
    assert found["lines"][0].startswith("not run")
    assert 0.0 < found["memory_gib"] < 24.0
    assert all(row["hours"] > 0.0 for row in found["cells"])
