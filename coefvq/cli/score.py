"""``coefvq score``: scores and decisions of the champion for files, a folder or a manifest."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coefvq.cli.options import ParamsOption
from coefvq.config import PARAMS_FILE
from coefvq.errors import ConfigError, DataError
from coefvq.records import ScoredVideo, VideoInput
from coefvq.terminal import cell, echo, echo_json, say, show

if TYPE_CHECKING:
    from rich.table import Table

_CSV_COLUMNS = ("video_id", "issue", "positive", "base_score", "mllm_score", "decided_by", "bundle_version", "error")
#: errors that are shown, beside all in --json and --csv
_TOLD = 10
# the shell's text has become a path by now, which has lost one of the slashes
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def score(
    videos: Annotated[list[Path], typer.Argument(help="Video files, a folder, or a .csv/.jsonl/.parquet table.")],
    title: Annotated[str, typer.Option(help="Title of the video (files only).")] = "",
    sticker: Annotated[list[str] | None, typer.Option(help="On-screen text; may be repeated (files only).")] = None,
    issue: Annotated[list[str] | None, typer.Option(help="Issue(s); default: all with a champion.")] = None,
    version: Annotated[str, typer.Option(help="Alias or version of the pair.")] = "champion",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="A table for a spreadsheet.")] = False,
    params: ParamsOption = PARAMS_FILE,
) -> None:
    """Score videos with the approved pair: decision, both scores, and which stage decided; video by video.

    Exit code 3 if any clip could not be scored.

    Example: coefvq score clip.mp4 --title "my dinner" --json

    Example: coefvq score clips.csv --csv > scores.csv
    """
    from coefvq.cli.workspace import given, open_workspace
    from coefvq.registry.champions import served_scorer

    if as_json and as_csv:
        raise ConfigError("--json and --csv: choose one")
    sources = [given(video, params) for video in videos]
    settings = open_workspace(params)
    inputs = collect(sources, title, tuple(sticker or ()), settings.ingest.protocols, settings.ingest.columns)
    rows = by_video(served_scorer(settings.tracking, issue, version, apart=True)(inputs), len(inputs))
    failed = {row.video_id: row.error for row in rows if row.error}
    if as_json:
        for row in rows:
            echo_json(asdict(row))
    elif as_csv:
        echo(*csv_lines(rows))
    else:
        show(results_table(rows))
        for error in list(failed.values())[1:_TOLD]:
            say(f"not scored: {error}")
    if failed:
        raise DataError(f"{len(failed)} of {len(inputs)} not scored; first: {next(iter(failed.values()))}")


def by_video(rows: Sequence[ScoredVideo], videos: int) -> list[ScoredVideo]:
    """Rows that come issue by issue, video by video."""
    return [row for video in range(videos) for row in rows[video::videos]]


def csv_lines(rows: Sequence[ScoredVideo]) -> list[str]:
    """A header and a line per row; what does not exist is empty."""
    lines = []
    for values in (_CSV_COLUMNS, *([getattr(row, name) for name in _CSV_COLUMNS] for row in rows)):
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(values)
        lines.append(text.getvalue())
    return lines


def collect(
    sources: Sequence[Path],
    title: str,
    stickers: tuple[str, ...],
    protocols: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
) -> list[VideoInput]:
    """Files as they are; folders and tables through the importer, whose rows stay below them or in ``protocols``.

    ``columns`` is ``ingest.columns``: what a table calls its columns.

    Raises:
        DataError: a source does not exist, or is neither clip, folder nor table.
    """
    from coefvq.data.clip_names import check_clip
    from coefvq.data.locations import Location, person_file

    inputs: list[VideoInput] = []
    for source in sources:
        if _has_rows(source):
            inputs.extend(_from_table(source, protocols, columns or {}))
        elif not os.path.lexists(source) and _ADDRESS.match(str(source)):
            raise DataError(f"{source}: no such file; to score what lies at an address, list it in a table")
        else:
            path = person_file(source)
            check_clip(Location(source.name.lstrip("."), path))  # a person may name a hidden file
            inputs.append(VideoInput(source.stem, path, title, stickers))
    return inputs


def _has_rows(source: Path) -> bool:
    """Whether a source is a folder or a table; the readers of tables, which need pandas, are asked about no clip."""
    from coefvq.data.locations import CLIP_SUFFIXES

    # os.path: where Path raises, as for a name too long, it says no
    if os.path.isdir(source):  # noqa: PTH112
        return True
    if source.suffix.lower() in CLIP_SUFFIXES:
        return False
    from coefvq.data.importers.tables import TABLE_SUFFIXES

    return source.suffix.lower() in TABLE_SUFFIXES


def _from_table(source: Path, protocols: Sequence[str], columns: Mapping[str, str]) -> list[VideoInput]:
    from coefvq.data.importers import Naming, import_table
    from coefvq.data.manifest import to_inputs

    table = import_table(source, naming=Naming(columns, lenient=True))
    if line := table.left_out.line():
        say(line)
    return to_inputs(table.frame.assign(sha256=None), table.root, protocols)


def results_table(rows: Sequence[ScoredVideo]) -> Table:
    """Decision, scores and deciding stage as a rich table."""
    from rich.table import Table

    bundles = dict(sorted((row.issue, row.bundle_version) for row in rows))
    table = Table(title=cell(", ".join(f"{issue}: bundle {version}" for issue, version in bundles.items())))
    table.add_column("video", overflow="fold")  # an id is shown whole, on two lines if need be
    table.add_column("issue", overflow="fold")
    table.add_column("decision")
    for name in ("base", "MLLM"):
        table.add_column(name, justify="right")
    table.add_column("decided by")
    for row in rows:
        decision = "error" if row.error else "positive" if row.positive else "negative"
        scores = (_number(row.base_score), _number(row.mllm_score))
        table.add_row(*map(cell, (row.video_id, row.issue, decision, *scores, row.decided_by)))
    return table


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
