"""``coefvq data``: make a synthetic data set, ask for its bounds, or simulate re-uploads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coefvq.cli.bayes import bayes
from coefvq.cli.lazy import Entry, lazy_group, plugins
from coefvq.cli.numbers import number
from coefvq.cli.options import OutFolderOption, ParamsOption
from coefvq.cli.reupload import reupload
from coefvq.config import PARAMS_FILE
from coefvq.terminal import echo, progress


def _plugins() -> list[Entry]:
    return plugins("coefvq.commands.data", "Versions")


app = typer.Typer(cls=lazy_group(_plugins), no_args_is_help=True)
app.command()(bayes)
app.command()(reupload)


@app.callback()
def _root() -> None:
    pass


@app.command()
def synth(
    out: OutFolderOption,
    videos: Annotated[int, typer.Option(min=1, help="How many clips.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")] = 7,
    icd: Annotated[float, number(help="Prevalence of inappropriate content, 0 to 1.")] = 0.07,
    ucc: Annotated[float, number(help="Prevalence of unoriginal content, 0 to 1.")] = 0.09,
    copies: Annotated[
        float, number(min=0.0, max=1.0, help="Share of videos whose source is another creator's video.")
    ] = 0.0,
    first_index: Annotated[
        int, typer.Option(min=0, help="Number of the first clip; another range needs another folder.")
    ] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that render.")] = 2,
) -> None:
    """Render labelled synthetic short videos (H.264 + AAC) with title, stickers and exact posteriors.

    Example: coefvq data synth --out data/raw --videos 400 --seed 7
    """
    from coefvq.simulation.synthetic.generate import generate

    with progress("rendering clips", videos) as advance:
        summary = generate(out, videos, seed, {"icd": icd, "ucc": ucc}, workers, first_index, advance, copies)
    positives = ", ".join(f"{issue} {count}" for issue, count in summary.positives.items())
    echo(f"{out}: {summary.videos} clips, {summary.seconds:.0f} s of footage, positives: {positives}")


@app.command()
def reference(
    params: ParamsOption = PARAMS_FILE,
    issue: Annotated[list[str] | None, typer.Option(help="Whose champion; default: the first that has one.")] = None,
) -> None:
    """Write what the champion was trained on to paths.reference, so that validate can measure drift.

    A scheduled retrain does this by itself.

    Example: coefvq data reference && dvc repro validate
    """
    from coefvq.cli.workspace import connect_registry
    from coefvq.files import write_json
    from coefvq.registry.champions import champion_profile

    loaded = connect_registry(params, create=False)
    found = champion_profile([loaded.check_issue(name) for name in issue] if issue else loaded.issues)
    if found is None:
        echo("no champion with a data profile yet; drift is not measured")
        return
    write_json(Path(loaded.paths.reference), found[1])
    echo(f"{loaded.paths.reference}: training data of the {found[0]} champion ({found[1]['rows']} videos)")
