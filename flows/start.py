"""A new workspace on a table of one's own: what was decided for it, and its clips as the first data version."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from coefvq.config import load_params
from coefvq.errors import ConfigError
from coefvq.terminal import cell, echo, say, show
from tasks import pipeline, workspace
from tasks.data_copy import copy_data, link_table
from tasks.start import IssueSource, Start, propose


def start_workspace(root: Path, data: Path, issues: list[IssueSource], media: Path | None, recipe: str) -> None:
    """Make a workspace whose settings fit a table, and commit its clips; nothing is made if the table does not fit.

    A start that was broken off before the clips were there is taken up again.

    Raises:
        ConfigError: the workspace has clips already.
        DataError: a label, a column or a clip's place does not fit.
    """
    if _has_clips(root):
        raise ConfigError(f"{root}: has clips already; --data is for a new workspace: choose another folder")
    start = propose(data, issues, media, recipe)
    show_start(start)
    workspace.create(root, start.settings, recipe)
    params = load_params(root / "params.yaml")
    raw, settings = root / params.paths.raw, params.ingest
    if media is not None:
        link_table(data, raw, media, settings.columns, settings.labels)
    else:
        for line in copy_data(data, raw, settings.protocols, settings.columns, settings.labels):
            say(line)
    workspace.dvc(root, "add", "--quiet", params.paths.raw)
    version = pipeline.data_version(root, params.paths.raw).removesuffix(".dir")
    workspace.commit(root, f"Data {version}", tag=f"data-{version[:12]}")
    register = " && ".join(f"coefvq register --issue {issue.name}" for issue in issues)
    echo(f"{root}: ready, recipe {recipe}, data {version[:12]}; next:", f"  cd {root} && dvc repro && {register}")


def _has_clips(root: Path) -> bool:
    if not (root / "params.yaml").exists():
        return False
    raw = root / load_params(root / "params.yaml").paths.raw
    return raw.exists() or raw.with_name(f"{raw.name}.dvc").exists()


def show_start(start: Start) -> None:
    """Decisions as a table, then what a person should know, a line each on stderr."""
    table = Table(title="params.yaml, as the table suggests", box=None)
    table.add_column("key", no_wrap=True)
    for name in ("value", "why"):
        table.add_column(name, overflow="fold")
    for decision in start.decisions:
        table.add_row(cell(decision.key), cell(decision.value), cell(decision.why))
    show(table, width=80)
    for warning in start.warnings:
        say(f"note: {warning}")
