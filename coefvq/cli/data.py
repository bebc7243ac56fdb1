"""``coefvq data``: make a synthetic data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _root() -> None:
    pass


@app.command()
def synth(
    out: Annotated[Path, typer.Option(help="Folder to write; made if missing.")],
    videos: Annotated[int, typer.Option(min=1, help="How many clips.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")] = 7,
    icd: Annotated[float, typer.Option(help="Prevalence of inappropriate content, 0 to 1.")] = 0.07,
    ucc: Annotated[float, typer.Option(help="Prevalence of unoriginal content, 0 to 1.")] = 0.09,
    first_index: Annotated[
        int, typer.Option(min=0, help="Number of the first clip; another range needs another folder.")
    ] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that render.")] = 2,
) -> None:
    """Render labelled synthetic short videos (H.264 + AAC) with title, stickers and the exact posterior.

    Example: coefvq data synth --out data/raw --videos 400 --seed 7
    """
    from coefvq.data.synthetic.generate import generate
    from coefvq.stages.common import progress

    with progress("rendering clips", videos) as advance:
        summary = generate(
            out, videos, seed, {"icd": icd, "ucc": ucc}, workers=workers, first_index=first_index, progress=advance
        )
    positives = ", ".join(f"{issue} {count}" for issue, count in summary.positives.items())
    print(f"{out}: {summary.videos} clips, {summary.seconds:.0f} s of footage, positives: {positives}")
