"""``coefvq vmp scores``: the MLLM's logged answers as a table that the next retraining learns from."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from coefvq.cli.options import IssueOption, JsonOption, ParamsOption, TenantOption
from coefvq.cli.vmp_state import StateOption, print_result, state_folder
from coefvq.config import PARAMS_FILE
from coefvq.errors import DataError
from coefvq.vmp.keys import DEFAULT
from coefvq.vmp.state import open_state


def scores(
    issue: IssueOption,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the table; default: data/logged of the workspace.")
    ] = None,
    tenant: TenantOption = DEFAULT,
    state: StateOption = None,
    params: ParamsOption = PARAMS_FILE,
    as_json: JsonOption = False,
) -> None:
    """Write the MLLM's logged scores with their propensities, and print the setting with which a base learns them.

    The clips of these videos belong into the data with `unlabelled` in the column split. Nothing is asked again.
    """
    import pandas as pd

    from coefvq.training.logged_scores import write_logged
    from coefvq.vmp.answers import answers

    place = state_folder(state, params)
    with open_state(place, create=False) as (_, index):
        found = list(answers(index.scores(issue, tenant=tenant)))
    if not found:
        raise DataError(f"{place}: the MLLM has answered no video of {issue}; run the stream: coefvq vmp run")
    path = write_logged(out or params.parent / "data" / "logged", issue, pd.DataFrame(found))
    pairs = dict(Counter(each.bundle for each in found).most_common())
    audited = sum(each.probability < 1.0 for each in found)
    summary = {"file": str(path), "rows": len(found), "audited": audited, "pairs": pairs}
    print_result(
        summary,
        as_json,
        [
            f"{len(found)} scores, {audited} of audited videos, by {', '.join(pairs)}: {path}",
            f"learn from them: base.{issue}.distil.logged: {os.path.relpath(path, params.parent)}",
        ],
    )
