"""``coefvq cascade audit``: do the figures of a cascade fit each other?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coefvq.cli.options import IssuesOption, JsonOption, ParamsOption
from coefvq.cli.workspace import open_workspace
from coefvq.config import PARAMS_FILE
from coefvq.errors import DataError
from coefvq.terminal import cell, echo, echo_json, show

if TYPE_CHECKING:
    from coefvq.cascade.consistency import Finding


def audit(
    issue: IssuesOption = None,
    paper: Annotated[bool, typer.Option("--paper", help="Audit the paper's Tables 1 and 2 instead.")] = False,
    params: ParamsOption = PARAMS_FILE,
    as_json: JsonOption = False,
) -> None:
    """Hold evaluation.json and thresholds.json to what must be true of any cascade: cost, ceiling, order.

    Exit code 3 if a rule is broken in this workspace's reports. With --paper the exit code is 0: those
    figures are what they are.

    Example: coefvq cascade audit --issue icd --json
    """
    findings = _paper() if paper else _workspace(issue, params)
    if as_json:
        echo_json([asdict(finding) for finding in findings], indent=2)
    else:
        _print(findings)
    broken = [finding for finding in findings if finding.verdict == "broken"]
    if broken and not paper:
        first = broken[0]
        raise DataError(
            f"{len(broken)} of {len(findings)} checks broken; first: {first.rule}, {first.where}: {first.explanation}; "
            "run evaluate and thresholds again on one scores.parquet"
        )


def _paper() -> list[Finding]:
    from coefvq.cascade.paper_audit import audit_paper

    return audit_paper()


def _workspace(issues: list[str] | None, params: Path) -> list[Finding]:
    from coefvq.cascade.consistency import audit_issue
    from coefvq.reporting.files import read_evaluation, read_thresholds

    settings = open_workspace(params)
    findings: list[Finding] = []
    for name in issues or settings.issues:
        report = settings.check_issue(name)
        evaluation = read_evaluation(settings.paths.report(report, "evaluation.json"))
        findings += audit_issue(evaluation, read_thresholds(settings.paths.report(report, "thresholds.json")))
    return findings


def _print(findings: Sequence[Finding]) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("rule", "where", "verdict", "figures"):
        table.add_column(column, overflow="fold")
    for finding in sorted(findings, key=lambda finding: finding.verdict != "broken"):
        style = {"holds": "green", "broken": "bold red"}.get(finding.verdict, "dim")
        table.add_row(finding.rule, cell(finding.where), cell(finding.verdict, style), cell(finding.explanation))
    counts = [f"{sum(f.verdict == v for f in findings)} {v}" for v in ("holds", "broken", "not asked")]
    show(table, width=140)
    echo(", ".join(counts))
