"""``coefvq clips``: the decoded clips that stages share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import typer

from coefvq.cli.numbers import prune_limits
from coefvq.cli.options import JsonOption, MaxGibOption, ParamsOption, UnusedDaysOption
from coefvq.config import PARAMS_FILE
from coefvq.data.media.clip_room import GIB, entries
from coefvq.data.media.clip_room import prune as prune_clips
from coefvq.data.media.clips import default_cache
from coefvq.terminal import cell, echo, echo_json, show, size_text

app = typer.Typer(no_args_is_help=True)


@app.command()
def stats(params: ParamsOption = PARAMS_FILE, as_json: JsonOption = False) -> None:
    """What the store holds, by decode settings: clips, bytes, last use.

    Example: coefvq clips stats --json
    """
    max_bytes = _limit(params)
    rows = _rows(default_cache())
    if as_json:
        echo_json({"root": str(default_cache()), "max_bytes": max_bytes, "settings": rows}, indent=2)
        return
    from rich.table import Table

    table = Table("settings", "clips", "size", "last use")
    for row in rows:
        last = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["last_use"]))
        table.add_row(cell(row["settings"]), f"{row['clips']:,}", size_text(row["bytes"]), last)
    show(table)
    total = sum(row["bytes"] for row in rows)
    echo(f"{default_cache()}: {size_text(total)} of at most {size_text(max_bytes)}")


@app.command()
def prune(
    params: ParamsOption = PARAMS_FILE,
    max_gib: MaxGibOption = None,
    unused_days: UnusedDaysOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make room: the least recently used clips go; whoever needs one decodes it again.

    Without an option the limit is runtime.clips_gib.

    Example: coefvq clips prune --unused-days 30

    Example: coefvq clips prune --max-gib 0
    """
    count, size = prune_clips(default_cache(), *prune_limits(_limit(params), max_gib, unused_days))
    if as_json:
        echo_json({"clips": count, "bytes": size})
    else:
        echo(f"{count} clips removed ({size_text(size)})")


def _limit(params: Path) -> int:
    from coefvq.cli.workspace import open_workspace

    return round(open_workspace(params).runtime.clips_gib * GIB)


def _rows(root: Path) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for entry in entries(root):
        name = entry.path.parent.parent.name
        row = rows.setdefault(name, {"settings": name, "clips": 0, "bytes": 0, "last_use": 0.0})
        row["clips"] += 1
        row["bytes"] += entry.bytes
        row["last_use"] = max(row["last_use"], entry.last_use)
    return sorted(rows.values(), key=lambda row: -row["last_use"])
