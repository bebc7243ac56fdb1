"""What the paper's tables are made on: the request, the workspace with its clips and splits, the grid as it applies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coefvq.config import Params, check_issue_names, load_params
from coefvq.data.manifest import read_table
from coefvq.errors import ConfigError
from coefvq.experiments.grid import DataSpec, Grid, TableSpec, table_issues, table_seeds
from coefvq.shipped_recipes import shipped_recipe
from coefvq.terminal import say
from flows.own_workspace import ToyClips, is_new, label_settings, provide_clips, version_clips
from tasks import pipeline, workspace
from tasks.start import IssueSource

_MODALITIES = {
    "audio": "no clip has sound (column has_audio); choose another table or clips with sound",
    "text": "no clip has a title or stickers; choose another table or add a column title",
}


@dataclass(frozen=True)
class TablesRequest:
    """Which tables, how models are made, on what; ``seeds`` None: as many as the grid says."""

    tables: str
    recipe: str
    seeds: int | None
    folder: Path
    data: Path | None
    issue: str | None
    positive: tuple[str, ...]
    label_column: str
    write: Path | None


@dataclass(frozen=True)
class Bench:
    """The workspace with its settings, and the grid as it applies here."""

    root: Path
    grid: Grid
    spec: DataSpec
    params: Params
    asked: int | None
    own_data: bool

    def issues(self, table: TableSpec) -> tuple[str, ...]:
        """Issues of a table on this data."""
        return table_issues(table, self.params.issues, self.own_data)

    def seeds(self, table: TableSpec) -> tuple[int, ...]:
        """Seeds of a table."""
        return tuple(table_seeds(table, self.spec, self.asked))


def data_spec(grid: Grid, recipe: str) -> DataSpec:
    """What a recipe is run on.

    Raises:
        ConfigError: there is no such recipe.
    """
    shipped_recipe(recipe)
    return grid.data[recipe]


def open_bench(request: TablesRequest, grid: Grid, spec: DataSpec) -> Bench:
    """Make or complete the workspace, up to the splits that all cells share.

    Raises:
        ConfigError: the folder holds something else, or the workspace was made for another recipe.
        CoefVQError: a step failed.
    """
    root = request.folder
    workspace.create(root, _settings(request, spec) if is_new(root) else {}, request.recipe)
    if workspace.recipe_differs(root, request.recipe):
        raise ConfigError(
            f"{root}/recipe.yaml is not recipe {request.recipe}, so the grid's changes do not fit it; "
            "choose another --workspace"
        )
    root = root.resolve()
    params = load_params(root / "params.yaml")
    toy = ToyClips(spec.videos, spec.seed, spec.prevalence)
    provide_clips(root, params, request.data or toy, say)
    version_clips(root, params)
    pipeline.repro(root, ["split"], env=workspace.run_environment(root), on_line=say)
    return Bench(root, grid, spec, params, request.seeds, request.data is not None)


def world_settings(spec: DataSpec) -> dict[str, Any]:
    """Dotted keys of params.yaml of a new workspace of synthetic clips."""
    return {"seed": spec.seed, **spec.settings}


def _settings(request: TablesRequest, spec: DataSpec) -> dict[str, Any]:
    """Dotted keys of params.yaml of a new workspace."""
    if request.data is None:
        return world_settings(spec)
    if request.issue is None:
        raise ConfigError("--data needs --issue: which question the labels answer, e.g. --issue icd")
    check_issue_names("--issue", [request.issue])
    return {
        "seed": spec.seed,
        **label_settings([IssueSource(request.issue, request.label_column, request.positive)]),
        "evaluate.bootstrap": spec.settings["evaluate.bootstrap"],
    }


def obstacle(bench: Bench, table: TableSpec) -> str | None:
    """Why a table cannot be made of these clips."""
    number = next(name for name, other in bench.grid.tables.items() if other is table)
    rows = read_table(bench.root / bench.params.paths.manifest, ["has_audio", "title", "stickers"])
    texts = rows["title"].fillna("").str.strip().ne("") | rows["stickers"].map(lambda found: len(found) > 0)
    has = {"audio": bool(rows["has_audio"].fillna(False).any()), "text": bool(texts.any())}
    missing = next((name for name in table.needs if not has[name]), None)
    if missing is not None:
        return f"table {number}: {_MODALITIES[missing]}"
    if not bench.issues(table):
        known = ", ".join(bench.params.issues)
        return f"table {number}: about {', '.join(table.issues)}, and the workspace has {known}; choose another table"
    return None
