"""``coefvq vmp rescore``: decide again what an earlier deployment decided."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from coefvq.cli.options import JsonOption, ParamsOption
from coefvq.cli.vmp_state import StateOption, print_result, state_folder
from coefvq.cli.workspace import given, open_workspace
from coefvq.config import PARAMS_FILE
from coefvq.vmp.campaigns import Campaign, Campaigns
from coefvq.vmp.state import open_state

app = typer.Typer(help="Decide again what an earlier deployment decided: a campaign.", no_args_is_help=True)


@app.command(epilog="Example: coefvq vmp rescore start --dry-run")
def start(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count only; change nothing.")] = False,
    rules: Annotated[Path | None, typer.Option(help="Filter rules of the dry run; default: shipped ones.")] = None,
    issue: Annotated[list[str] | None, typer.Option(help="Issues of the dry run; default: all.")] = None,
    state: StateOption = None,
    params: ParamsOption = PARAMS_FILE,
    as_json: JsonOption = False,
) -> None:
    """Begin a campaign; `coefvq vmp run` works on it between events.

    Rows below the newest deployment are decided again at their newest content, those of a withdrawn pair first. Where
    only thresholds or rules changed, the stored scores are enough and no model is asked.
    """
    if dry_run:
        _dry_run(rules, issue, given(state_folder(state, params), params), params, as_json)
        return
    for name, value in (("--rules", rules), ("--issue", issue)):
        if value:
            raise typer.BadParameter(f"{name} plays a part with --dry-run only: a campaign is of all issues and rules")
    with open_state(state_folder(state, params), create=False) as (_, index):
        campaign = Campaigns(index.database).start(datetime.now(UTC))
    _print(campaign, campaign.total, as_json)


@app.command(epilog="Example: coefvq vmp rescore pause")
def pause(state: StateOption = None, params: ParamsOption = PARAMS_FILE, as_json: JsonOption = False) -> None:
    """Stop after the batch in hand; the place is kept."""
    _move("paused", state, params, as_json)


@app.command(epilog="Example: coefvq vmp rescore resume")
def resume(state: StateOption = None, params: ParamsOption = PARAMS_FILE, as_json: JsonOption = False) -> None:
    """Go on where the campaign was paused."""
    _move("running", state, params, as_json)


@app.command(epilog="Example: coefvq vmp rescore status --json")
def status(state: StateOption = None, params: ParamsOption = PARAMS_FILE, as_json: JsonOption = False) -> None:
    """Show how far the campaign is and when it may end."""
    with open_state(state_folder(state, params), create=False) as (_, index):
        campaigns = Campaigns(index.database)
        campaign, remaining = campaigns.last(), campaigns.remaining()
    if campaign is None:
        print_result({"campaign": None}, as_json, ["no campaign yet; begin one: coefvq vmp rescore start"])
    else:
        _print(campaign, remaining, as_json)


def _move(target: Any, state: Path | None, params: Path, as_json: bool) -> None:
    with open_state(state_folder(state, params), create=False) as (_, index):
        campaigns = Campaigns(index.database)
        campaign, remaining = campaigns.move(target), campaigns.remaining()
    _print(campaign, remaining, as_json)


def _print(campaign: Campaign, remaining: int, as_json: bool) -> None:
    seconds = _seconds_left(campaign, remaining)
    left = "" if seconds is None else f", about {seconds:.0f} s left"
    line = (
        f"campaign {campaign.number} towards epoch {campaign.epoch}: {campaign.state}; {campaign.scored} scored, "
        f"{campaign.decided} decided on stored scores, {campaign.changed} changed; {remaining} to go{left}"
    )
    print_result({"campaign": asdict(campaign), "remaining": remaining, "seconds_left": seconds}, as_json, [line])


def _seconds_left(campaign: Campaign, remaining: int) -> float | None:
    """By the mean speed since the start; None before the first batch and while nothing runs."""
    done = campaign.scored + campaign.decided
    if campaign.state != "running" or not done:
        return None
    elapsed = (datetime.now(UTC) - datetime.fromisoformat(campaign.started_at)).total_seconds()
    return max(0.0, elapsed) / done * remaining


def _dry_run(rules: Path | None, issues: list[str] | None, folder: Path, params: Path, as_json: bool) -> None:
    from coefvq.registry import champions, tracking
    from coefvq.vmp.kept_rules import next_rules
    from coefvq.vmp.tenants import next_tenants
    from coefvq.vmp.worker import preview

    filter_rules, tenants = next_rules(folder, rules), next_tenants(folder, None)
    settings = open_workspace(params)
    chosen = [settings.check_issue(issue) for issue in issues or ()]
    tracking.configure(settings.tracking.uri, settings.tracking.experiment, create=False)
    with open_state(folder, create=False) as (log, index):
        found = preview(log, index, champions.head(chosen or None), filter_rules, tenants)
    print_result(
        asdict(found),
        as_json,
        [
            f"{found.rows} rows to decide again, {found.withdrawn} of a withdrawn pair: "
            f"{found.stored} on stored scores (of which {found.changed} change), {found.asked} need the models"
        ],
    )
