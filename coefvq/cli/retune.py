"""``coefvq retune``: a new policy for the champion's models, proposed from present traffic and fresh labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coefvq.cli.numbers import number
from coefvq.cli.options import JsonOption, ParamsOption, TenantOption
from coefvq.cli.registry import gate_table
from coefvq.cli.workspace import connect_registry, given
from coefvq.config import PARAMS_FILE
from coefvq.errors import ConfigError, RegistryError
from coefvq.retuning.settings import MIN_LABELS
from coefvq.terminal import cell, echo, echo_json, show
from coefvq.vmp.keys import DEFAULT

if TYPE_CHECKING:
    from rich.table import Table

    from coefvq.retuning.proposal import Proposal

_FIGURES = ("f1", "precision", "recall")


def retune(
    issue: Annotated[str, typer.Argument(help="One of the issues in params.yaml, e.g. icd.")],
    labels: Annotated[
        Path, typer.Option(help="Table with video_id, label (or label_ISSUE) and, if not drawn evenly, probability.")
    ],
    scores: Annotated[
        Path | None, typer.Option(help="Table of scored traffic: video_id, base, mllm; default: the VMP's index.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="Folder of log.sqlite and index.sqlite; default: vmp of the workspace.")
    ] = None,
    tenant: TenantOption = DEFAULT,
    qps: Annotated[
        float | None,
        number(min=0.01, max=100.0, help="Percent of videos that may reach the MLLM; default: thresholds.ISSUE."),
    ] = None,
    min_labels: Annotated[
        int, typer.Option(min=2, max=1_000_000, help="Positive and negative labels needed of each.")
    ] = MIN_LABELS,
    out: Annotated[Path | None, typer.Option(help="Folder of the proposal; default: reports/ISSUE/retuned.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the proposal and write nothing.")] = False,
    as_json: JsonOption = False,
    params: ParamsOption = PARAMS_FILE,
) -> None:
    """Propose new thresholds for the champion's models; nothing is served before registration and approval.

    Writes candidate.json, proposal.json, and flips.csv with the videos whose decision changes.
    Exit code 6 if the gate would refuse it, 3 if scores or labels do not suffice.

    Example: coefvq retune icd --labels reviewed.csv --dry-run

    Example: coefvq retune icd --labels reviewed.csv --scores traffic.parquet --qps 12 --json
    """
    from coefvq.retuning.proposal import propose, write
    from coefvq.retuning.settings import RetuneRequest, RetuneSettings

    if scores is not None and tenant != DEFAULT:
        raise ConfigError(f"retune: --scores is a table of one tenant's videos; leave --tenant {tenant} out")
    places = [None if path is None else given(path, params) for path in (labels, scores, state, out)]
    settings = connect_registry(params, create=False)
    retuning = RetuneSettings.of(settings, settings.check_issue(issue))
    request = RetuneRequest(places[0] or labels, places[1], places[2] or Path("vmp"), qps, min_labels, tenant)
    proposal = propose(retuning, request)
    folder = places[3] or retuning.folder
    if not dry_run:
        write(proposal, folder)
    if as_json:
        echo_json(proposal.report, indent=2)
    else:
        _print(proposal, None if dry_run else folder)
    if proposal.gate is not None and not proposal.gate.passed:
        raise RegistryError(f"the gate would refuse the new thresholds of {issue}: {proposal.gate.failures}")


def _print(proposal: Proposal, folder: Path | None) -> None:
    report = proposal.report
    show(_table(report))
    echo(f"{report['reason']} (validation: the half of the labels that chooses)")
    flips, labels, traffic = (report[name] for name in ("flips", "labels", "traffic"))
    echo(
        f"decisions that change: {flips['to_positive']} of {flips['of']} videos become positive, "
        f"{flips['to_negative']} negative, {flips['to_unknown']} unknown",
        f"labels: {labels['used']} used ({labels['positives']} positive), {labels['unused']} not used; traffic: "
        f"{traffic['videos']} videos, {traffic['failed']} failed, {traffic['of_other_models']} scored by other models",
        *(f"note: {note}" for note in report["notes"]),
    )
    if proposal.gate is None:
        echo("the thresholds stay as they are: nothing to propose")
        return
    show(gate_table(report["issue"], proposal.gate))
    if folder is not None:
        echo(f"{folder}: written; next: coefvq register --issue {report['issue']} --retuned")


def _table(report: dict[str, Any]) -> Table:
    from rich.table import Table

    from coefvq.cascade.policy import threshold_text

    table = Table(title=cell(f"{report['issue']}: {report['champion']} against the proposal"), title_justify="left")
    for name in ("", "champion", "proposal", "difference"):
        table.add_column(name, justify="right" if name else "left")
    old, new = report["policy"]["old"], report["policy"]["new"]
    for name in ("base_threshold", "decision_threshold"):
        table.add_row(name, *(threshold_text(policy[name]) for policy in (old, new)), "")
    calls, quality = report["calls"], report["quality"]
    table.add_row(f"MLLM calls, % of {calls['n']} videos", _shown(calls["old"], 1.0), _shown(calls["new"], 1.0), "")
    for name in _FIGURES:
        title = f"{name}, % on {quality['n']} held-out labels"
        table.add_row(title, *(_shown(quality[side][name], 100.0) for side in ("old", "new", "difference")))
    return table


def _shown(interval: dict[str, float | None], scale: float) -> str:
    value, low, high = (interval[name] for name in ("value", "low", "high"))
    if value is None:
        return "–"
    ends = "" if low is None or high is None else f"  [{scale * low:.1f}, {scale * high:.1f}]"
    return f"{scale * value:.1f}{ends}"
