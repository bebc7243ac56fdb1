"""``--config vmp.yaml``: a run, a check and a publication by a file instead of options."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import typer

from coefvq.cli.options import JsonOption, NeededConfigOption, ParamsOption
from coefvq.cli.vmp_state import print_result, result_table
from coefvq.cli.vmp_stream import Stream
from coefvq.config import PARAMS_FILE, load_params
from coefvq.errors import CoefVQError, ConfigError
from coefvq.terminal import cell, say
from coefvq.vmp.budget import Limits, parse_rate
from coefvq.vmp.configuration import Configuration, KafkaSource, LogSource, Store, load_configuration
from coefvq.vmp.loop import Sink, Source
from coefvq.vmp.records import BatchReport, Event
from coefvq.vmp.sources.engines import open_source, place_store


def chosen(config: Path | None, typed: Mapping[str, object], state: Path) -> Configuration:
    """The configuration of a run: the file's, or the log of ``state``. ``typed`` are options that a file replaces.

    Raises:
        ConfigError: the file does not fit, or an option says the same thing again.
    """
    if config is None:
        return Configuration(source=LogSource(kind="log"), store=Store(state=state))
    if twice := [name for name, value in typed.items() if value is not None]:
        raise ConfigError(f"{twice[0]}: {config} says that; leave the option out, or change the file")
    found = load_configuration(config)
    place_store(found.store)
    return found


@contextmanager
def events(
    settings: Configuration, stream: Stream, once: bool, on_batch: Callable[[BatchReport], None]
) -> Iterator[tuple[Source, Sink]]:
    """Source and Sink of a run."""
    with open_source(
        settings, stream.log, stream.index, stop=stream.stop, once=once, say=say, on_poison=on_batch
    ) as parts:
        yield parts


def limits(configuration: Configuration, typed: str | None, burst: int, max_wait: float) -> Limits | None:
    """The budget of the file, or the one that was typed; None: that of the index stays.

    Raises:
        ConfigError: the text is no rate.
    """
    if configuration.budget is not None:
        typed, burst, max_wait = configuration.budget.calls, configuration.budget.burst, configuration.budget.max_wait
    if typed is None:
        return None
    return Limits() if typed == "none" else Limits(parse_rate(typed), float(burst), max_wait)


def topic_of(config: Path) -> KafkaSource:
    """The topic that a file names.

    Raises:
        ConfigError: its source is another one.
    """
    source = load_configuration(config).source
    if not isinstance(source, KafkaSource):
        remedy = "leave --config out" if isinstance(source, LogSource) else "change the rows of the table itself"
        raise ConfigError(f"{config}: source.kind is {source.kind}, which nobody publishes to; {remedy}")
    return source


def publish_events(source: KafkaSource, events: Iterable[Event]) -> int:
    """Send events to the topic; how many."""
    from coefvq.vmp.sources.kafka_producer import publish

    return publish(source, events)


def check(config: NeededConfigOption, params: ParamsOption = PARAMS_FILE, as_json: JsonOption = False) -> None:
    """Connect to everything that the file names, and say what is wrong before the first event.

    One line per part: ok, or what is wrong and what to do. The exit code is that of the first part that is wrong.
    """
    from coefvq.vmp.sources.checks import checks

    if params != PARAMS_FILE:
        load_params(params)  # a file that was named is no part to report on
    found = [(name, *_outcome(look)) for name, look in (*checks(load_configuration(config)), _models(params))]
    table = result_table("", "", "")
    for name, code, line in found:
        table.add_row(cell(name), "ok" if code == 0 else "WRONG", cell(line))
    parts = [{"part": name, "ok": code == 0, "line": line} for name, code, line in found]
    print_result({"parts": parts}, as_json, table)
    raise typer.Exit(next((code for _, code, _ in found if code), 0))


def _outcome(look: Callable[[], str]) -> tuple[int, str]:
    try:
        return 0, look()
    except CoefVQError as error:
        return error.exit_code, str(error)


def _models(params: Path) -> tuple[str, Callable[[], str]]:
    def look() -> str:
        from coefvq.cli.workspace import connect_registry
        from coefvq.registry import champions

        connect_registry(params, create=False)
        head = champions.head(None)
        return ", ".join(f"{issue}={bundle}" for issue, bundle in sorted(head.bundles.items()))

    return "models", look
