"""The pipeline's stages as commands: each reads params.yaml; training may run as several processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from coefvq.cli.options import IssueOption, ParamsOption
from coefvq.cli.workspace import given, open_workspace
from coefvq.config import PARAMS_FILE, Params
from coefvq.stages import Stage

Engine = Literal["local", "ray"] | None
Launcher = Literal["torchrun", "ray"]
EngineOption = Annotated[Engine, typer.Option(help="Where clips are probed or scored; default: runtime.engine.")]
RanksOption = Annotated[
    int | None, typer.Option(min=1, help="Processes on this machine; default: training.nproc_per_node.")
]
ResumeOption = Annotated[
    Path | None, typer.Option(help="Folder of checkpoints; default: runtime.resume_from, else the cache.")
]
LauncherOption = Annotated[Launcher, typer.Option(help="What starts the processes; ray may use a Ray cluster.")]


def add(app: typer.Typer, stage: Stage) -> None:
    """Make a stage a command of ``app``."""
    example = f"Example: coefvq {stage.name}" + (" --issue icd" if stage.per_issue else "")
    if stage.name == "train-mllm":
        example += "\n\nOn two processes: coefvq train-mllm --issue ucc --nproc 2"
    app.command(name=stage.name, help=f"{stage.help}\n\n{example}", rich_help_panel="Pipeline stages")(_command(stage))


def _command(stage: Stage) -> Any:
    if stage.name in ("train-base", "train-mllm"):
        return _training(stage)
    if stage.name in ("ingest", "teach", "predict"):
        return _on_an_engine(stage)

    def for_issue(issue: IssueOption, params: ParamsOption = PARAMS_FILE) -> None:
        loaded = open_workspace(params)
        stage.run(stage.inputs.of(loaded, loaded.check_issue(issue)))

    def for_all(params: ParamsOption = PARAMS_FILE) -> None:
        stage.run(stage.inputs.of(open_workspace(params)))

    return for_issue if stage.per_issue else for_all


def _training(stage: Stage) -> Any:
    def train(
        issue: IssueOption,
        params: ParamsOption = PARAMS_FILE,
        nproc: RanksOption = None,
        resume_from: ResumeOption = None,
        launcher: LauncherOption = "torchrun",
    ) -> None:
        resume = None if resume_from is None else given(resume_from, params)
        loaded = open_workspace(params)
        _train(stage, loaded, params.name, loaded.check_issue(issue), nproc, resume, launcher)

    return train


def _on_an_engine(stage: Stage) -> Any:
    def for_issue(issue: IssueOption, params: ParamsOption = PARAMS_FILE, engine: EngineOption = None) -> None:
        loaded = open_workspace(params)
        stage.run(stage.inputs.of(_with_engine(loaded, engine), loaded.check_issue(issue)))

    def for_all(params: ParamsOption = PARAMS_FILE, engine: EngineOption = None) -> None:
        stage.run(stage.inputs.of(_with_engine(open_workspace(params), engine)))

    return for_issue if stage.per_issue else for_all


def _train(
    stage: Stage,
    params: Params,
    source: str,
    issue: str,
    nproc: int | None,
    resume_from: Path | None,
    launcher: Launcher,
) -> None:
    """Run a training stage here, or start it as several ranks, which read ``source`` in this folder."""
    training = (params.mllm if stage.name == "train-mllm" else params.base)[issue].training
    ranks = nproc or training.nproc_per_node
    # torchrun, whoever started it, says how many there are
    if (ranks > 1 or training.deepspeed) and "WORLD_SIZE" not in os.environ:
        more = [] if resume_from is None else ["--resume-from", str(resume_from)]
        _launch(launcher, ranks, [stage.name, "--issue", issue, "--params", source, *more], training.deepspeed)
        return
    if resume_from is not None:
        update = {"resume_from": str(resume_from)}
        params = params.model_copy(update={"runtime": params.runtime.model_copy(update=update)})
    stage.run(stage.inputs.of(params, issue))


def _launch(launcher: Launcher, ranks: int, arguments: list[str], deepspeed: str | None) -> None:
    if launcher == "ray":
        from coefvq.training.ray_train import launch_on_ray

        launch_on_ray(ranks, arguments)
    else:
        from coefvq.training.launch import launch

        launch(ranks, arguments, deepspeed)


def _with_engine(params: Params, engine: Engine) -> Params:
    if engine is None:
        return params
    return params.model_copy(update={"runtime": params.runtime.model_copy(update={"engine": engine})})
