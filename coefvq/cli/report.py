"""``coefvq report``: the page a release is decided from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coefvq.cli.workspace import connect_registry, given, open_workspace
from coefvq.config import PARAMS_FILE
from coefvq.errors import ConfigError
from coefvq.terminal import echo


def report(
    issue: Annotated[list[str] | None, typer.Option(help="Issue(s) of params.yaml; default: all.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write (one issue); default: reports/ISSUE/report.html.")
    ] = None,
    thumbnails: Annotated[bool, typer.Option(help="Show a frame of each example.")] = True,
    registry: Annotated[bool, typer.Option(help="Ask the registry for the gate and the pair served now.")] = True,
    pictures: Annotated[Path | None, typer.Option(help="Also write the charts as SVG, and one PNG, here.")] = None,
    params: Annotated[Path, typer.Option(help="Settings file of the workspace.")] = PARAMS_FILE,
) -> None:
    """Write one self-contained HTML page per issue: verdict, comparison, curves, drift, examples, lineage.

    Example: coefvq report --issue icd --out icd.html
    """
    from coefvq.reporting.gather import ReportSettings, write_pictures, write_report

    out, pictures = (None if path is None else given(path, params) for path in (out, pictures))
    settings = connect_registry(params, create=False) if registry else open_workspace(params)
    names = [settings.check_issue(name) for name in issue or settings.issues]
    if out is not None and len(names) > 1:
        raise ConfigError(f"--out {out}: one file for {len(names)} issues; add --issue NAME")
    for name in names:
        target = out or settings.paths.report(name, "report.html")
        shown = write_report(ReportSettings.of(settings), name, target, thumbnails, registry)
        echo(target)
        if pictures is not None:
            write_pictures(shown, pictures)
