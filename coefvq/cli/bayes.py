"""``coefvq data bayes``: what the best possible scorer of each view reaches in the synthetic world."""

from __future__ import annotations

from typing import Annotated

import typer

from coefvq.cli.numbers import number
from coefvq.terminal import echo, echo_json


def bayes(
    icd: Annotated[float, number(help="Prevalence of inappropriate content, 0 to 1.")] = 0.07,
    ucc: Annotated[float, number(help="Prevalence of unoriginal content, 0 to 1.")] = 0.09,
    precision: Annotated[
        list[float] | None,
        number(min=0, max=100, help="Report the recall at this precision, in %; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts; fractions.")] = False,
) -> None:
    """Exact figures of the best scorer of frames, of frames and text, and of everything.

    Example: coefvq data bayes --icd 0.07 --ucc 0.09 --json
    """
    from coefvq.simulation.synthetic.bayes import bayes_table

    targets = list(dict.fromkeys(precision or (60.0, 70.0)))
    table = bayes_table({"icd": icd, "ucc": ucc}, targets)
    if as_json:
        echo_json(table, indent=2)
        return
    echo("| issue | view | F1 | " + " | ".join(f"R@P{target:g}" for target in targets) + " | AUC |")
    echo("|---|---" + "|---" * (len(targets) + 2) + "|")
    for issue, views in table.items():
        for view, figures in views.items():
            echo(f"| {issue} | {view} | " + " | ".join(f"{100 * value:.1f}" for value in figures.values()) + " |")
