"""``coefvq vmp``: read the index in one go, page by page or by its changes; keep it small; forget videos."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import asdict, fields
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from coefvq.cli.options import JsonOption, ParamsOption, TenantOption
from coefvq.cli.vmp_state import StateOption, print_result, result_table, state_folder
from coefvq.config import PARAMS_FILE
from coefvq.errors import ConfigError, DataError
from coefvq.files import ROOM, atomic_path, storage_errors, write_csv
from coefvq.terminal import cell, echo
from coefvq.vmp import feed, served
from coefvq.vmp.keys import DEFAULT, key, shown
from coefvq.vmp.records import IndexEntry, Served
from coefvq.vmp.state import open_state

_FIELDS = tuple(field.name for field in fields(IndexEntry))
CsvOption = Annotated[bool, typer.Option("--csv", help="Print CSV; override and value are JSON texts.")]
OneStateOption = Annotated[Served | None, typer.Option("--in", help="Only videos that readers see in this state.")]
LimitOption = Annotated[int, typer.Option(min=1, max=100_000, help="At most so many rows.")]


def get(
    video_id: Annotated[str, typer.Argument(help="Key in the index.")],
    tenant: TenantOption = DEFAULT,
    state: StateOption = None,
    params: ParamsOption = PARAMS_FILE,
    as_json: JsonOption = False,
) -> None:
    """Show what the index holds of one video; exit code 3 if it never held it."""
    with open_state(state_folder(state, params), create=False) as (_, index):
        entry = index.get(name := key(tenant, video_id))
    if entry is None:
        raise DataError(f"video '{shown(name)}': not in the index; publish it and run, or see `coefvq vmp dlq list`")
    print_result(asdict(entry), as_json, describe(entry))


def scan(
    after: Annotated[str, typer.Option(help="Go on after this id: the last one of the page before.")] = "",
    limit: LimitOption = 100,
    only: OneStateOption = None,
    tenant: TenantOption = DEFAULT,
    state: StateOption = None,
    params: ParamsOption = PARAMS_FILE,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """Show the index page by page, ordered by id."""
    with open_state(state_folder(state, params), create=False) as (_, index):
        entries = served.page(index.database, after, limit, only, tenant)
    if as_csv:
        text = io.StringIO(newline="")
        csv.writer(text).writerows([_FIELDS, *map(_cells, entries)])
        # split at line feeds only: a rule's name may hold other characters that end a line
        echo(*text.getvalue().removesuffix("\r\n").split("\r\n"))
        return
    table = result_table("video", "state", "rule", "version", "epoch")
    for entry in entries:
        table.add_row(*map(cell, (entry.video_id, entry.state, entry.rule, entry.source_version, entry.epoch)))
    more = entries[-1].video_id if len(entries) == limit else None
    print_result({"entries": [asdict(entry) for entry in entries], "after": more}, as_json, table)


def export(
    target: Annotated[Path, typer.Argument(help="File to write: .csv or .jsonl.")],
    only: OneStateOption = None,
    tenant: TenantOption = DEFAULT,
    state: StateOption = None,
    params: ParamsOption = PARAMS_FILE,
    as_json: JsonOption = False,
) -> None:
    """Write a tenant's index to a file and print the cursor from which `changes` goes on."""
    writers = {".csv": _csv_file, ".jsonl": _jsonl_file}
    if target.suffix not in writers:
        raise ConfigError(f"{target}: expected a name that ends in {' or '.join(writers)}; name the file so")
    with open_state(state_folder(state, params), create=False) as (_, index):
        # the cursor first: what changes while the file is written comes again in the feed
        cursor = feed.newest(index.database)
        rows = writers[target.suffix](target, served.scan(index.database, only, tenant))
    summary = {"file": str(target), "rows": rows, "cursor": cursor}
    print_result(summary, as_json, [f"{rows} rows in {target}; go on with: coefvq vmp changes --since {cursor}"])


def changes(
    since: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Cursor of the last call; 0: from the start.")] = 0,
    limit: LimitOption = 1000,
    tenant: TenantOption = DEFAULT,
    state: StateOption = None,
    params: ParamsOption = PARAMS_FILE,
    as_json: JsonOption = False,
) -> None:
    """Show which videos read otherwise since a cursor, each once and as it is now."""
    with open_state(state_folder(state, params), create=False) as (_, index):
        page = feed.read(index.database, since, limit, tenant)
    table = result_table("change", "video", "state", "rule")
    for change in page.changes:
        entry = change.entry
        table.add_row(*map(cell, (change.number, entry.video_id, entry.state, entry.rule)))
    table.add_row(str(page.cursor), "cursor", "more follow" if page.more else "", "")
    print_result(asdict(page), as_json, table)


def compact(
    audit_days: Annotated[int, typer.Option(min=0, max=36500, help="Older audit rows go to Parquet.")] = 30,
    tombstone_days: Annotated[
        int, typer.Option(min=0, max=36500, help="Older deletions are dropped; longer than an event may be late.")
    ] = 30,
    state: StateOption = None,
    params: ParamsOption = PARAMS_FILE,
    as_json: JsonOption = False,
) -> None:
    """Drop events that no consumer needs, old audit rows and old deletions, and shrink the files."""
    from coefvq.vmp.loop import now
    from coefvq.vmp.retention import compact as shrink

    folder = state_folder(state, params)
    with open_state(folder, create=False) as (log, index):
        made = shrink(folder, log, index, now(), timedelta(days=audit_days), timedelta(days=tombstone_days))
    line = (
        f"{made.events} events, {made.tombstones} deletions dropped, {made.audit_rows} audit rows to Parquet; "
        f"{made.bytes_before} bytes before, {made.bytes_after} now"
    )
    print_result(asdict(made), as_json, [line])


def forget(
    video_id: Annotated[list[str], typer.Argument(help="Videos of which nothing but a tombstone shall stay.")],
    tenant: TenantOption = DEFAULT,
    state: StateOption = None,
    params: ParamsOption = PARAMS_FILE,
    as_json: JsonOption = False,
) -> None:
    """Delete videos and remove all that log, index and audit files hold of them. It cannot be undone."""
    from coefvq.vmp.loop import now
    from coefvq.vmp.retention import forget as remove

    folder = state_folder(state, params)
    with open_state(folder, create=False) as (log, index):
        made = remove(folder, log, index, [key(tenant, one) for one in video_id], now())
    line = f"{made.videos} videos forgotten: {made.events} events and {made.audit_rows} audit rows removed"
    print_result(asdict(made), as_json, [line])


def _cells(entry: IndexEntry) -> list[Any]:
    """The values of ``_FIELDS``; objects as JSON texts."""
    return [
        json.dumps(value, sort_keys=True, ensure_ascii=False) if isinstance(value, dict) else value
        for value in asdict(entry).values()
    ]


def _csv_file(target: Path, entries: Iterable[IndexEntry]) -> int:
    return write_csv(target, _FIELDS, map(_cells, entries))


def _jsonl_file(target: Path, entries: Iterable[IndexEntry]) -> int:
    with (
        storage_errors(target, ROOM),
        atomic_path(target, private=True) as temporary,
        temporary.open("w", encoding="utf-8") as stream,
    ):
        lines = (json.dumps(asdict(entry), sort_keys=True, ensure_ascii=False) for entry in entries)
        return sum(stream.write(f"{line}\n") > 0 for line in lines)


def describe(entry: IndexEntry) -> list[str]:
    """An entry in lines for a person."""
    version = f"source version {entry.source_version}, bundle {entry.bundle_version or 'none'}, epoch {entry.epoch}"
    if entry.state == "deleted":
        return [f"{entry.video_id}: removed by rule 'deleted' (deleted at the source, {version})"]
    if entry.override is not None:
        word = entry.override
        head = f"{entry.video_id}: {entry.state} by {word.by} at {word.at}: {word.reason} ({version})"
    elif entry.state == "held":
        head = f"{entry.video_id}: held until the MLLM answers, by the base model so far ({version})"
    elif entry.state == "withdrawn":
        head = f"{entry.video_id}: withdrawn with its pair, was {entry.verdict} by rule '{entry.rule}' ({version})"
    else:
        head = f"{entry.video_id}: {entry.state} by rule '{entry.rule}' ({version})"
    # split at line feeds only: a title may hold other characters that end a line
    return [head, *json.dumps(entry.value, indent=2, sort_keys=True, ensure_ascii=False).split("\n")]
