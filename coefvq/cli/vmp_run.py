"""``coefvq vmp run``: the loop over published videos."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Annotated, Literal

import typer

from coefvq.cli import vmp_engines
from coefvq.cli.numbers import number
from coefvq.cli.options import (
    BudgetOption,
    BurstOption,
    ConfigOption,
    FeaturesOption,
    JsonOption,
    LogOption,
    MaxWaitOption,
    ParamsOption,
)
from coefvq.cli.vmp_state import (
    BatchOption,
    FollowOption,
    PollOption,
    RulesOption,
    ScoredIssuesOption,
    StateOption,
    TenantsOption,
    print_result,
    state_folder,
)
from coefvq.cli.vmp_stream import open_stream
from coefvq.config import PARAMS_FILE
from coefvq.terminal import progress_bar, say
from coefvq.vmp.loop import CONSUMER
from coefvq.vmp.pending import Pending
from coefvq.vmp.records import BatchReport
from coefvq.vmp.stream_log import StreamLog

_AuditRate = Annotated[
    float, number(min=0.0, max=1.0, help="Share of filtered-out videos escalated anyway, drawn by id.")
]
_AuditSeed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Another seed draws other videos.")]
_Asker = Annotated[
    Literal["inline", "workers"], typer.Option(help="Who asks the MLLM: this run, or `coefvq vmp mllm`.")
]
_Consumer = Annotated[str, typer.Option(help="Whose offset to use; a new name reads the log from the start.")]


def run(
    once: Annotated[bool, typer.Option("--once", help="End when the log is drained.")] = False,
    batch_size: BatchOption = 32,
    rules: RulesOption = None,
    tenants: TenantsOption = None,
    issue: ScoredIssuesOption = None,
    poll_interval: PollOption = 1.0,
    follow_interval: FollowOption = 5.0,
    audit_rate: _AuditRate = 0.0,
    audit_seed: _AuditSeed = 0,
    mllm: _Asker = "inline",
    budget: BudgetOption = None,
    burst: BurstOption = 8,
    max_wait: MaxWaitOption = 1800.0,
    features: FeaturesOption = None,
    log_form: LogOption = None,
    consumer: _Consumer = CONSUMER,
    config: ConfigOption = None,
    params: ParamsOption = PARAMS_FILE,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score new events with the champion pairs, filter them and update the index.

    A new champion takes over between two batches. The MLLM's tasks and campaigns are worked on between events.
    Ctrl-C or SIGTERM finishes the batch in hand and ends with exit code 0.
    """
    from coefvq.cascade.audit_sample import AuditSample
    from coefvq.vmp import loop, worker

    audit = AuditSample(rate=audit_rate, seed=audit_seed) if audit_rate else None
    typed = {"--state": state, "--rules": rules, "--tenants": tenants, "--features": features, "--mllm-budget": budget}
    settings = vmp_engines.chosen(config, typed, state_folder(state, params))
    limits = vmp_engines.limits(settings, budget, burst, max_wait)
    lines = None if log_form is None else StreamLog(log_form, sys.stderr, consumer)
    with open_stream(
        settings.store.state, params, settings.rules or rules, settings.tenants or tenants, issue,
        interval=follow_interval, patient=not once, audit=audit, limits=limits, features=settings.features or features,
        tell=say if lines is None else lines.note,
    ) as stream:  # fmt: skip
        log, index = stream.log, stream.index
        todo = log.last_offset() - index.committed(consumer) if once and config is None else None
        display = _batch_display(todo, as_json) if lines is None else nullcontext(lines.batch)
        with (
            _totals(display) as (totals, on_batch),
            vmp_engines.events(settings, stream, once, on_batch) as (source, sink),
        ):
            loop.run(
                source, stream.deployments, sink, stop=stream.stop, on_batch=on_batch, batch_size=batch_size, once=once,
                poll_interval=poll_interval, consumer=consumer, work=worker.work(log, index, mllm=mllm == "inline"),
                on_hold=say if lines is None else lines.held,
            )  # fmt: skip
        waiting = Pending(index.database).waiting().tasks
        summary = {**totals, "offset": sink.committed(consumer), "pending": waiting}
    wait = [f"{waiting} wait for the MLLM; see `coefvq vmp status`"] if waiting else []
    print_result(summary, as_json, [_counts(summary), *wait])


@contextmanager
def _totals(
    display: AbstractContextManager[Callable[[BatchReport], None]],
) -> Iterator[tuple[Counter[str], Callable[[BatchReport], None]]]:
    """Counts over all batches, and what adds a batch to them and shows it."""
    totals: Counter[str] = Counter(events=0, live=0, removed=0, ignored=0, dead=0, stale=0)
    with display as show:

        def on_batch(report: BatchReport) -> None:
            totals.update({name: getattr(report, name) for name in totals})
            show(report)

        yield totals, on_batch


@contextmanager
def _batch_display(todo: int | None, as_json: bool) -> Iterator[Callable[[BatchReport], None]]:
    """A bar where the end is known, else one line per batch; on stderr, so that stdout stays the result."""
    if todo is None:
        yield lambda report: None if as_json else say(_counts(report.counts()))
        return
    with progress_bar(transient=True) as progress:
        task = progress.add_task("events", total=todo)
        yield lambda report: progress.advance(task, report.events)


def _counts(report: Mapping[str, int]) -> str:
    # a stream has an offset per partition
    upto = f" up to offset {report['offset']}" if report["offset"] else ""
    return (
        f"{report['events']} events{upto}: {report['live']} live, "
        f"{report['removed']} removed, {report['ignored']} ignored; "
        f"{report['dead']} dead letters, {report['stale']} stale"
    )
