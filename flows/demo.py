"""The demo: the whole way once, in a workspace of its own, as a person would go it by hand."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from coefvq.config import Params, load_params
from coefvq.data.importers import import_table
from coefvq.data.locations import media_root
from coefvq.data.manifest import read_table, to_inputs
from coefvq.evaluation.table import Row, markdown_table, rich_table
from coefvq.files import read_json, write_text
from coefvq.records import VideoInput
from coefvq.registry.champions import load_scorer
from coefvq.reporting.results import read_result
from coefvq.terminal import cell
from flows.controls import controls_of
from flows.demo_release import LOOSE_GATE, release_pair
from flows.demo_settings import synthetic_demo
from flows.own_workspace import ToyClips, is_new, label_settings, provide_clips, version_clips
from flows.start import show_start
from tasks import pipeline, workspace
from tasks.release import connect
from tasks.start import IssueSource, Start, propose

_UNSEEN = 3


@dataclass(frozen=True)
class DemoRequest:
    """What to run the demo on."""

    folder: Path
    data: Path | None
    issues: tuple[IssueSource, ...]
    recipe: str
    videos: int
    seed: int


def run_demo(request: DemoRequest) -> None:
    """Workspace, data, pipeline, release, use; each step finds what an earlier run has done.

    Raises:
        CoefVQError: a step failed; the message says which file or row and what to do.
    """
    # tables need their width; where output goes to a file there is no terminal to ask
    console = Console() if Console().is_terminal else Console(width=120)
    fresh = is_new(request.folder)
    start = _start(request, request.data) if fresh and request.data is not None else None
    workspace.create(request.folder, _settings(request, start, fresh), request.recipe)
    if workspace.recipe_differs(request.folder, request.recipe):
        console.print(f"{request.folder}/recipe.yaml is not recipe {request.recipe}; it was there already and stays")
    root = request.folder.resolve()
    params = load_params(root / "params.yaml")
    provide_clips(root, params, request.data or _toy_clips(request), lambda line: console.print(cell(line)))
    version = version_clips(root, params)
    console.print(f"[bold]data version[/bold] {params.paths.raw} @ {version} (git tag data-{version[:12]})")
    _run_pipeline(root, console)
    workspace.commit(root, "Pipeline results")
    os.chdir(root)  # the champion is used as a person would use it: from within the workspace
    connect(root, workspace.run_environment(root))
    _show_results(params, console)
    for issue in params.issues:
        release_pair(issue, root, console)
    _show_decisions(_unseen(request, root, params, console), console)
    console.print(_next_steps(request.folder), markup=False)


def _start(request: DemoRequest, data: Path) -> Start:
    # what the demo itself decides: any prevalence, and that a person judges what the gate would ask
    start = propose(data, request.issues, recipe=request.recipe).without("validate.prevalence.", "gate.")
    show_start(start)
    return start


def _settings(request: DemoRequest, start: Start | None, fresh: bool) -> dict[str, Any]:
    """Dotted keys of params.yaml; a workspace that is not ``fresh`` keeps the thresholds and gate it has."""
    # stability scores each in six other ways: the 64 of params.yaml would take too much of the demo's minutes
    chosen: dict[str, Any] = {"seed": request.seed, "stability.videos_per_threshold": 4}
    chosen |= label_settings(request.issues)
    if not fresh:
        return chosen
    chosen |= LOOSE_GATE
    if start is not None:
        return chosen | start.settings
    demo = synthetic_demo(request.recipe)
    issues = chosen.get("issues", ["icd", "ucc"])
    return chosen | {f"thresholds.{issue}.max_qps_ratio": demo.calls for issue in issues} | demo.settings


def _toy_clips(request: DemoRequest) -> ToyClips:
    return ToyClips(request.videos, request.seed, synthetic_demo(request.recipe).prevalence)


def _run_pipeline(root: Path, console: Console) -> None:
    params = load_params(root / "params.yaml")
    pipeline.repro_issues(
        root,
        params.issues,
        pipeline.sharing(params),
        workspace.run_environment(root),
        lambda line: console.print(cell(line, "dim"), soft_wrap=True),
    )
    checks = read_json(root / "reports" / "validation.json")
    console.print(f"[bold]validation passed[/bold] ({len(checks['checks'])} expectations)")


def _show_results(params: Params, console: Console) -> None:
    controls = controls_of(params)
    for issue in params.issues:
        result = read_result(params.paths, issue)
        rows = _with_controls(list(result.rows), controls[issue])
        console.print(rich_table(rows, issue, result.notes))
        console.print(cell(f"{issue}: {result.reason}"))
        write_text(params.paths.report(issue, "result.md"), markdown_table(rows, result.notes))


def _with_controls(rows: list[Row], controls: list[Row]) -> list[Row]:
    """``controls`` before the base model of the pair."""
    at = next(number for number, row in enumerate(rows) if row.name == "base")
    return [*rows[:at], *controls, *rows[at:]]


def _unseen(request: DemoRequest, root: Path, params: Params, console: Console) -> list[VideoInput]:
    if request.data is None:
        folder = root / "unseen"
        replace(_toy_clips(request), videos=_UNSEEN).render(folder, workers=1, first=request.videos)
        console.print("three clips rendered after training:")
        table = import_table(folder)
        return to_inputs(table.frame.assign(sha256=None), table.root, ())
    console.print("three clips of the test split, which no model was trained on:")
    splits = read_table(root / params.paths.splits)[["video_id", "split"]]
    rows = read_table(root / params.paths.manifest).drop(columns="split").merge(splits, on="video_id")
    chosen = (
        rows[rows["split"] == "test"]
        .sort_values("video_id")
        .iloc[:: max(1, (rows["split"] == "test").sum() // _UNSEEN)]
    )
    return to_inputs(chosen.head(_UNSEEN), media_root(params.paths), params.ingest.protocols)


def _show_decisions(videos: Sequence[VideoInput], console: Console) -> None:
    from coefvq.cli.score import results_table

    console.print(results_table(load_scorer()(videos)))


def _next_steps(folder: Path) -> str:
    return (
        f"next, from within {folder}:\n"
        "  coefvq score CLIP|FOLDER|TABLE        decisions on anything; --json for scripts\n"
        "  coefvq status | history | rollback    the release, without a UI\n"
        "  mlflow ui --backend-store-uri sqlite:///mlflow.db   runs and registry on http://127.0.0.1:5000\n"
        "  prefect server start                  flows on http://127.0.0.1:4200 (deploy: see prefect.yaml)\n"
        "  dvc repro | dvc metrics show | dvc plots show        the pipeline by hand"
    )
