"""``coefvq vmp mirror``: keep the copy of the index that a recommender reads."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from coefvq.cli.options import JsonOption, NeededConfigOption
from coefvq.cli.vmp_state import PollOption, print_result
from coefvq.errors import ConfigError
from coefvq.terminal import say
from coefvq.vmp.configuration import load_configuration
from coefvq.vmp.index import open_index
from coefvq.vmp.sources.engines import place_store

if TYPE_CHECKING:
    from coefvq.vmp.mirror.following import Step


def mirror(
    config: NeededConfigOption,
    once: Annotated[bool, typer.Option("--once", help="End when the copy is up to date.")] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Write all rows again, whatever the copy holds.")] = False,
    poll_interval: PollOption = 1.0,
    as_json: JsonOption = False,
) -> None:
    """Copy the index into Redis and follow its changes.

    More than one may run. A Redis that does not answer is waited for. Ctrl-C or SIGTERM ends it with exit code 0.
    """
    from coefvq.vmp import loop
    from coefvq.vmp.mirror import following
    from coefvq.vmp.mirror.redis_copy import open_copy

    settings = load_configuration(config)
    if settings.serve is None:
        raise ConfigError(f"{config}: nothing to mirror to; name a server in the section serve (docs/engines.md)")
    totals: Counter[str] = Counter(written=0, removed=0, built=0)
    last: list[Step] = []

    def on_step(step: Step) -> None:
        totals.update(written=step.written, removed=step.removed, built=int(step.why is not None))
        last[:] = [step]
        if not (as_json or step.idle):
            say(_line(step))

    with (
        loop.stop_on_signals() as stop,
        open_index(place_store(settings.store), create=False) as index,
        open_copy(settings.serve) as copy,
    ):
        following.follow(
            index.database, copy, stop=stop, once=once, anew=rebuild, interval=poll_interval, say=say, on_step=on_step
        )  # fmt: skip
    cursor, lag = (last[0].cursor, last[0].lag) if last else (0, None)
    behind = "not built yet" if lag is None else f"{lag} changes behind"
    line = f"{totals['written']} rows written, {totals['removed']} removed; {behind} at change {cursor}"
    print_result({**totals, "cursor": cursor, "lag": lag}, as_json, [line])


def _line(step: Step) -> str:
    behind = "being built" if step.lag is None else f"{step.lag} changes behind"
    return f"{step.written} rows written, {step.removed} removed; {behind}"
