"""``coefvq vmp``: publish videos, run the loop over them, look into the index."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from coefvq.cli import vmp_audit, vmp_data, vmp_dlq, vmp_engines, vmp_mllm, vmp_rescore, vmp_rules
from coefvq.cli.numbers import number
from coefvq.cli.options import (
    AnyTenantOption,
    BudgetOption,
    BurstOption,
    ByOption,
    ConfigOption,
    FeaturesOption,
    JsonOption,
    LogOption,
    MaxWaitOption,
    ParamsOption,
    ReasonOption,
    TenantOption,
)
from coefvq.cli.vmp_data import describe
from coefvq.cli.vmp_mllm import limits_of, queue_lines
from coefvq.cli.vmp_state import (
    BatchOption,
    FollowOption,
    PollOption,
    RulesOption,
    ScoredIssuesOption,
    StateOption,
    TenantsOption,
    print_result,
    result_table,
    state_folder,
)
from coefvq.cli.vmp_stream import open_stream
from coefvq.config import PARAMS_FILE, load_params
from coefvq.errors import ConfigError
from coefvq.terminal import cell, progress_bar, say
from coefvq.vmp.keys import DEFAULT, SEPARATOR, key
from coefvq.vmp.log import open_log
from coefvq.vmp.loop import CONSUMER
from coefvq.vmp.pending import Pending
from coefvq.vmp.records import BatchReport, Event
from coefvq.vmp.state import LOG, open_state
from coefvq.vmp.stream_log import StreamLog

app = typer.Typer(
    help="Video Management Platform: Source → Retriever → Filter → Sink over a local event log.",
    no_args_is_help=True,
)

app.add_typer(vmp_rescore.app, name="rescore")
app.add_typer(vmp_rules.app, name="rules")
app.add_typer(vmp_data.app)
app.add_typer(vmp_audit.app, name="audit")
app.add_typer(vmp_dlq.app, name="dlq")
app.command("mllm", epilog="Example: coefvq vmp mllm --mllm-budget 0.5/s")(vmp_mllm.mllm)
app.command("check", epilog="Example: coefvq vmp check --config vmp.yaml")(vmp_engines.check)


@app.command(epilog="Example: coefvq vmp publish data/raw --state vmp")
def publish(
    source: Annotated[
        Path | None, typer.Argument(help="Folder of videos, metadata.csv/.jsonl or Parquet manifest.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder the paths are relative to (default: the table's own).")
    ] = None,
    delete: Annotated[list[str] | None, typer.Option(help="Publish the deletion of this video id.")] = None,
    tenant: TenantOption = DEFAULT,
    state: StateOption = None,
    config: ConfigOption = None,
    params: ParamsOption = PARAMS_FILE,
    as_json: JsonOption = False,
) -> None:
    """Append new, changed and deleted videos to the event log; what is unchanged makes no event.

    The log takes 10,000 videos at a time, so that others may publish too. If a later row does not fit, what came
    before it stays published: correct the row and publish again. With --config the rows of a table go to the topic of
    that file, each with its columns source_version and, for a deletion, deleted.
    """
    if source is None and not delete:
        raise ConfigError("vmp publish: nothing to publish; give a folder or table, or --delete ID")
    if config is not None:
        _publish_to_topic(config, source, root, (state, delete), params, tenant, as_json)
        return
    folder = state_folder(state, params)
    deletions = [Event(key(tenant, video_id), "delete") for video_id in delete or []]
    with ExitStack() as stack:
        known = partial(_published, folder / LOG, tenant)
        read = iter(()) if source is None else _read_with_progress(stack, source, root, known, params, tenant)
        # what is wrong with the table or its first rows is said before a state is made
        first = list(islice(read, 1))
        log, _ = stack.enter_context(open_state(folder))
        published = log.publish_all(chain(first, read, deletions))
        counts = {
            "events": published.appended,
            "unchanged": published.events - published.appended,
            "last_offset": log.last_offset(),
        }
    print_result(counts, as_json, [f"{counts['events']} events published, {counts['unchanged']} unchanged"])


def _publish_to_topic(
    config: Path,
    table: Path | None,
    root: Path | None,
    given: tuple[object, ...],
    params: Path,
    tenant: str,
    as_json: bool,
) -> None:
    if table is None or any(given):
        raise ConfigError(
            f"vmp publish --config {config}: takes a table alone; a deletion is a row with deleted = true"
        )
    topic = vmp_engines.topic_of(config)
    with ExitStack() as stack:
        # the paths of a table start in the folder that the events will name
        read = _read_with_progress(stack, table, root or topic.root, tuple, params, tenant, versioned=True)
        sent = vmp_engines.publish_events(topic, read)
    print_result({"events": sent, "topic": topic.topic}, as_json, [f"{sent} events sent to topic {topic.topic}"])


_AuditRate = Annotated[
    float, number(min=0.0, max=1.0, help="Share of filtered-out videos escalated anyway, drawn by id.")
]
_AuditSeed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Another seed draws other videos.")]
_Asker = Annotated[
    Literal["inline", "workers"], typer.Option(help="Who asks the MLLM: this run, or `coefvq vmp mllm`.")
]
_Consumer = Annotated[str, typer.Option(help="Whose offset to use; a new name reads the log from the start.")]


@app.command(epilog="Example: coefvq vmp run --once --issue icd --json")
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
    limits = vmp_engines.limits(settings) or limits_of(budget, burst, max_wait)
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


@app.command(epilog="Example: coefvq vmp override clip_0001 --verdict removed --by ana --reason 'court order'")
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


@app.command(epilog="Example: coefvq vmp status --json")
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


def _read_with_progress(
    stack: ExitStack,
    source: Path,
    root: Path | None,
    published: Callable[[], Iterable[tuple[str, str]]],
    params: Path,
    tenant: str,
    versioned: bool = False,
) -> Iterator[Event]:
    """A tenant's events of a table while ``stack`` is open, and a bar."""
    from coefvq.data.media.clips import default_cache
    from coefvq.data.media.probe_cache import open_cache
    from coefvq.vmp.publications import HASHES, read_events

    columns = load_params(params).ingest.columns if params.is_file() or params != PARAMS_FILE else {}
    # the cache of the workspace, wherever the command is called
    hashes = stack.enter_context(open_cache(params.parent / default_cache(), HASHES))
    progress = stack.enter_context(progress_bar(transient=True))
    task = progress.add_task("reading", total=None)
    advance = partial(progress.update, task)
    read = read_events(
        source,
        root,
        lambda done, total: advance(completed=done, total=total),
        published,
        say,
        columns,
        hashes,
        versioned,
    )
    return (replace(event, video_id=key(tenant, event.video_id)) for event in read)


def _published(log: Path, tenant: str) -> Iterator[tuple[str, str]]:
    """Id and path of what the log holds of a tenant; a log that is not there yet is not made."""
    if log.is_file():
        with open_log(log, create=False) as source:
            yield from source.places(tenant)


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
        yield lambda report: None if as_json else say(_counts(asdict(report)))
        return
    with progress_bar(transient=True) as progress:
        task = progress.add_task("events", total=todo)
        yield lambda report: progress.advance(task, report.events)


def _counts(report: dict[str, Any]) -> str:
    # a stream has an offset per partition
    upto = f" up to offset {report['offset']}" if report["offset"] else ""
    return (
        f"{report['events']} events{upto}: {report['live']} live, "
        f"{report['removed']} removed, {report['ignored']} ignored; "
        f"{report['dead']} dead letters, {report['stale']} stale"
    )
