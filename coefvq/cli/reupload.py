"""``coefvq data reupload``: originals and simulated re-uploads from a folder of clips."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from coefvq.cli.numbers import number
from coefvq.cli.options import OutFolderOption
from coefvq.terminal import echo, echo_json, progress, say


def reupload(
    source: Annotated[Path, typer.Option("--from", help="Originals: a folder of clips, VideoFolder or a table.")],
    out: OutFolderOption,
    copies: Annotated[float, number(help="Copies per original, on average.")] = 1.0,
    own_edits: Annotated[float, number(help="Share of originals edited by their own creators.")] = 0.3,
    seed: Annotated[int, typer.Option(min=0, help="Same seed and input, same bytes.")] = 7,
    size: Annotated[int, typer.Option(help="Short side in pixels, at most.")] = 360,
    fps: Annotated[int, typer.Option(help="Frames per second of every clip made.")] = 25,
    seconds: Annotated[float, number(help="How much of an original is used, at most.")] = 60.0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that decode and render.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Make a labelled data set for unoriginal content (ucc): re-encoded originals and edited copies of them.

    Example: coefvq data reupload --from clips/ --out data/raw --copies 1.0 --own-edits 0.3
    """
    from coefvq.data.importers.left_out import not_taken
    from coefvq.data.importers.sources import find_source
    from coefvq.data.media.decode import DEFAULT_LIMITS
    from coefvq.simulation.reupload.generate import Settings, count_videos
    from coefvq.simulation.reupload.generate import reupload as make

    if line := not_taken(find_source(source)).line():
        say(line)
    settings = Settings(seed=seed, copies=copies, own_edits=own_edits, size=size, fps=fps, seconds=seconds)
    with progress("making re-uploads", count_videos(source, settings)) as advance:
        summary = make(source, out, settings, workers=workers, limits=DEFAULT_LIMITS, progress=advance)
    if as_json:
        echo_json({"out": str(out), **asdict(summary)})
        return
    edits = ", ".join(f"{kind} {count}" for kind, count in summary.edits.items())
    echo(
        f"{out}: {summary.originals} originals ({summary.own_edited} edited by their creator), {summary.copies} copies"
    )
    echo(f"edits of the copies: {edits or 'none'}")
    echo(f"skipped: {len(summary.skipped)} of {summary.originals + len(summary.skipped)} input clips")
    for footage in summary.skipped:
        say(f"skipped {footage.uri}: {footage.reason} ({footage.message})")
