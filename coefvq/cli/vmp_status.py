"""``coefvq vmp``: look at the state, put a person's word first."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

import typer

from coefvq.cli.options import AnyTenantOption, ByOption, JsonOption, ParamsOption, ReasonOption, TenantOption
from coefvq.cli.vmp_data import describe
from coefvq.cli.vmp_mllm import queue_lines
from coefvq.cli.vmp_state import StateOption, print_result, result_table, state_folder
from coefvq.config import PARAMS_FILE
from coefvq.terminal import cell
from coefvq.vmp.keys import DEFAULT, SEPARATOR, key
from coefvq.vmp.state import open_state


def override(
    video_id: Annotated[str, typer.Argument(help="Key in the index.")],
    verdict: Annotated[
        Literal["live", "removed", "model"], typer.Option(help="What readers see; model: what the models say.")
    ],
    by: ByOption,
    reason: ReasonOption,
    tenant: TenantOption = DEFAULT,
    state: StateOption = None,
    params: ParamsOption = PARAMS_FILE,
    as_json: JsonOption = False,
) -> None:
    """Put a person's word before the models' verdict, until the video's content changes."""
    from coefvq.registry.history import checked_person
    from coefvq.vmp.loop import now
    from coefvq.vmp.overrides import override as pin

    name, why = checked_person(by, reason)
    with open_state(state_folder(state, params), create=False) as (log, index):
        entry = pin(log, index, key(tenant, video_id), verdict, name, why, now())
    print_result(asdict(entry), as_json, describe(entry))


def status(
    tenant: AnyTenantOption = None,
    state: StateOption = None,
    params: ParamsOption = PARAMS_FILE,
    as_json: JsonOption = False,
) -> None:
    """Show the log's end, each consumer's lag, the index by state and the queue of the MLLM."""
    from coefvq.vmp.loop import now
    from coefvq.vmp.outlook import outlook

    with open_state(state_folder(state, params), create=False) as (log, index):
        last, consumers, states = log.last_offset(), index.consumers(), index.states(tenant)
        dead = len(index.dead_letters(tenant))
        queue = outlook(index.database, now().timestamp(), tenant)
    lags = {name.replace(SEPARATOR, "/"): {"offset": at, "lag": last - at} for name, at in consumers.items()}
    table = result_table("", "")
    for title, count in (("events in the log", last), *states.items(), ("dead letters", dead)):
        table.add_row(cell(title), str(count))
    for name, value in queue_lines(queue):
        table.add_row(cell(name), cell(value))
    for name, lag in lags.items():
        table.add_row(cell(f"lag of {name}"), str(lag["lag"]))
    summary = {"last_offset": last, "consumers": lags, "index": states, "dead_letters": dead}
    summary |= {"mllm": {**asdict(queue), "certificate_holds": queue.certificate_holds}}
    print_result(summary, as_json, table)
