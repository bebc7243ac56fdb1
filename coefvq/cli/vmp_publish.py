"""``coefvq vmp publish``: a table's rows or a folder's videos become events of the log, or messages of a topic."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Annotated

import typer

from coefvq.cli.options import ConfigOption, JsonOption, ParamsOption, TenantOption
from coefvq.cli.vmp_engines import publish_events, topic_of
from coefvq.cli.vmp_state import StateOption, print_result, state_folder
from coefvq.config import PARAMS_FILE, load_params
from coefvq.errors import ConfigError
from coefvq.terminal import progress_bar, say
from coefvq.vmp.keys import DEFAULT, key
from coefvq.vmp.log import open_log
from coefvq.vmp.records import Event
from coefvq.vmp.state import LOG, open_state

#: rows between two moves of the bar
_SHOWN_ROWS = 256


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
    topic = topic_of(config)
    with ExitStack() as stack:
        # the paths of a table start in the folder that the events will name
        read = _read_with_progress(stack, table, root or topic.root, tuple, params, tenant, versioned=True)
        sent = publish_events(topic, read)
    print_result({"events": sent, "topic": topic.topic}, as_json, [f"{sent} events sent to topic {topic.topic}"])


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

    def advance(done: int, total: int) -> None:
        if done % _SHOWN_ROWS == 0 or done == total:
            progress.update(task, completed=done, total=total)

    read = read_events(
        source,
        root,
        advance,
        published,
        say,
        columns,
        hashes,
        versioned,
    )
    return (_of_tenant(event, key(tenant, event.video_id)) for event in read)


def _of_tenant(event: Event, found: str) -> Event:
    """The event under its key, which is the bare id where no tenant is named."""
    return event if event.video_id == found else replace(event, video_id=found)


def _published(log: Path, tenant: str) -> Iterator[tuple[str, str]]:
    """Id and path of what the log holds of a tenant; a log that is not there yet is not made."""
    if log.is_file():
        with open_log(log, create=False) as source:
            yield from source.places(tenant)
