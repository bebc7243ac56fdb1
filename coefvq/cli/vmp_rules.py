"""``coefvq vmp rules``: try a rules file before a stream runs with it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from coefvq.cli.options import JsonOption, ParamsOption, TenantOption
from coefvq.cli.vmp_state import StateOption, print_result, result_table, state_folder
from coefvq.config import PARAMS_FILE
from coefvq.terminal import cell, echo
from coefvq.vmp.keys import DEFAULT
from coefvq.vmp.rules import load_rules
from coefvq.vmp.state import open_state

app = typer.Typer(help="Rules files of the stream.", no_args_is_help=True)


@app.command("test", epilog="Example: coefvq vmp rules test mine.yaml")
def try_rules(
    rules: Annotated[Path, typer.Argument(help="Filter rules (YAML).")],
    tenant: TenantOption = DEFAULT,
    state: StateOption = None,
    params: ParamsOption = PARAMS_FILE,
    as_json: JsonOption = False,
) -> None:
    """Decide a tenant's videos of the index by these rules, on their stored scores, and show what would change.

    Nothing is written and no model is asked.
    """
    from coefvq.vmp.rule_trial import trial

    tried = load_rules(rules)
    with open_state(state_folder(state, params), create=False) as (log, index):
        found = trial(log, index, tried, datetime.now(UTC), tenant)
    if as_json:
        rows = [{**asdict(row), "changes": row.changes} for row in found.rows]
        counts = {"videos": found.videos, "changed": found.changed, "waiting": found.waiting}
        print_result({**counts, "rows": rows}, as_json, ())
        return
    table = result_table("now", "by these rules", "rule", "videos", "for example")
    for row in found.rows:
        after = row.after if row.changes else "the same"
        table.add_row(row.before, after, cell(row.rule), str(row.videos), cell(", ".join(row.examples)))
    if found.rows:
        print_result({}, as_json, table)
    echo(f"{found.changed} of {found.videos} videos would change; {found.waiting} are not decided yet")
