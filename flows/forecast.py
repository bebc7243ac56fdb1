"""``coefvq tables --dry-run``: the grid with hours and memory, nothing made and nothing run."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from coefvq.experiments.estimate import Estimate, estimate, once_hours
from coefvq.experiments.grid import Cell, DataSpec, Grid, cells_of, shipped_grid, table_seeds
from coefvq.files import write_text
from flows.own_workspace import is_new
from flows.table_bench import data_spec, world_settings
from tasks.cell_pool import threads
from tasks.cells import Files, PlannedCell, planned, with_sources, workspace_files
from tasks.workspace import write_pipeline

_NO_DATA = {"manifest": "", "splits": ""}


def forecast(tables: str, recipe: str, seeds: int | None, root: Path) -> dict[str, Any]:
    """Distinct cells with the tables that need them, their hours and memory, and the sums; JSON-ready.

    Raises:
        ConfigError: no such table or recipe, or a file of the workspace is damaged.
    """
    grid = shipped_grid()
    numbers, spec = grid.chosen(tables), data_spec(grid, recipe)
    files = _files(root, grid, recipe)
    used: dict[str, tuple[PlannedCell, list[str]]] = {}
    for number in numbers:
        table = grid.tables[number]
        cells = cells_of(table, table.issues, table_seeds(table, spec, seeds))
        for one in with_sources(planned(files, grid, cell) for cell in cells):
            listed = used.setdefault(one.key(_NO_DATA), (one, []))[1]
            listed += [] if number in listed else [number]
    estimates = _estimates(spec, files, {key: one for key, (one, _) in used.items()})
    command = f"coefvq tables {tables} --recipe {recipe}" + (f" --seeds {seeds}" if seeds else "")
    rows = [_row(used[key][0].cell, used[key][1], found) for key, found in estimates.items()]
    return {
        "recipe": recipe,
        "tables": list(numbers),
        "title": f"Recipe {recipe}: {len(rows)} cells for table(s) {', '.join(numbers)}",
        "cells": rows,
        **_sums(spec, list(estimates.values()), command),
    }


def _files(root: Path, grid: Grid, recipe: str) -> Files:
    """Those of the workspace, or of the one that would be made."""
    if not is_new(root):
        return workspace_files(root, grid, recipe)
    with TemporaryDirectory() as folder:
        write_pipeline(Path(folder), world_settings(grid.data[recipe]), recipe)
        return workspace_files(Path(folder), grid, recipe)


def _estimates(spec: DataSpec, files: Files, cells: dict[str, PlannedCell]) -> dict[str, Estimate]:
    with TemporaryDirectory() as folder:
        presets = Path(folder) / "presets.yaml"
        write_text(presets, yaml.safe_dump(files.presets))
        return {
            key: estimate(
                spec,
                getattr(one.settings, one.kind)[one.cell.issue],
                one.settings.media[one.cell.issue],
                presets,
                one.share if one.trains else 0.0,
            )
            for key, one in cells.items()
        }


def _row(cell: Cell, tables: list[str], found: Estimate) -> dict[str, Any]:
    return {
        "name": str(cell),
        "tables": tables,
        "train_videos": found.train_videos,
        "scored_videos": found.scored_videos,
        "epochs": found.epochs,
        "hours": found.hours,
        "memory_gib": found.memory_gib,
    }


def _sums(spec: DataSpec, found: list[Estimate], command: str) -> dict[str, Any]:
    hours = sum(each.hours or 0.0 for each in found)
    if spec.gpu is not None:
        gpu = spec.gpu
        most = max((each.memory_gib or 0.0 for each in found), default=0.0)
        lines = [
            f"not run: nobody has run this recipe. {hours:,.1f} hours of {gpu.gpus} GPU(s), MLLMs only, one after the "
            f"other; at most {most:.1f} of {gpu.memory_gib:g} GiB per GPU",
            f"then: {command}",
        ]
        note = (
            f"hours: FLOPs of coefvq models plan, {gpu.utilisation:.0%} of {gpu.tflops:g} TFLOPS; "
            "base models, decoding and what CUDA keeps are not counted"
        )
        return {"hours": hours, "once_hours": None, "memory_gib": most, "lines": lines, "note": note}
    once = once_hours(spec) or 0.0
    together = (once + hours) / threads()
    lines = [
        f"{spec.videos:,} clips and features of frozen towers, once: {once:.2f} CPU hours",
        f"all cells: {hours:.2f} CPU hours; with {threads()} at a time about {together:.2f} hours in all",
        f"then: {command}",
    ]
    note = "CPU hours of one thread, from seconds per clip in coefvq/experiments/grid.yaml; memory is not estimated"
    return {"hours": hours, "once_hours": once, "memory_gib": None, "lines": lines, "note": note}
