"""``coefvq vmp dlq``: videos that could not be scored, and messages that are no events."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from coefvq.cli.options import AnyTenantOption, ConfigOption, JsonOption, ParamsOption
from coefvq.cli.vmp_state import StateOption, print_result, result_table, state_folder
from coefvq.config import PARAMS_FILE
from coefvq.errors import DataError
from coefvq.terminal import cell
from coefvq.vmp.configuration import KafkaSource, TableSource, load_configuration
from coefvq.vmp.index import IndexStore
from coefvq.vmp.keys import shown
from coefvq.vmp.log import EventLog
from coefvq.vmp.records import DeadLetter
from coefvq.vmp.state import open_state
from coefvq.vmp.stores import contents, poison
from coefvq.vmp.stores.poison import DeadEvent

app = typer.Typer(help="Dead letters: what could not be scored, and messages that are no events.", no_args_is_help=True)

_NamesArgument = Annotated[
    list[str] | None,
    typer.Argument(help="Video id (TENANT/ID of a tenant), or topic/partition/offset of a message; default: all."),
]
_ChosenArgument = Annotated[
    list[str], typer.Argument(help="Video id (TENANT/ID of a tenant), or topic/partition/offset of a message.")
]
_PREVIEW = 200


@app.command("list", epilog="Example: coefvq vmp dlq list --json")
def list_letters(
    tenant: AnyTenantOption = None,
    state: StateOption = None,
    config: ConfigOption = None,
    params: ParamsOption = PARAMS_FILE,
    as_json: JsonOption = False,
) -> None:
    """List dead letters with their reasons, the oldest first; messages belong to no tenant."""
    with open_state(_folder(state, config, params), create=False) as (_, index):
        letters, events, count = index.dead_letters(tenant), poison.read(index.database), poison.count(index.database)
    table = result_table("video or message", "version", "failed at", "reason")
    for letter in letters:
        table.add_row(*map(cell, (shown(letter.key), letter.source_version, letter.failed_at, letter.reason)))
    for event in events:
        table.add_row(*map(cell, (event.name, "", event.failed_at, event.poison.reason)))
    if count > len(events):
        table.add_row(cell(f"{count - len(events)} messages more"))
    value = {"videos": [asdict(letter) for letter in letters], "messages": [_summary(event) for event in events]}
    print_result({**value, "message_count": count}, as_json, table)


@app.command("show", epilog="Example: coefvq vmp dlq show videos/0/17")
def show_letter(
    name: Annotated[
        str, typer.Argument(help="Video id (TENANT/ID of a tenant), or topic/partition/offset of a message.")
    ],
    state: StateOption = None,
    config: ConfigOption = None,
    params: ParamsOption = PARAMS_FILE,
    as_json: JsonOption = False,
) -> None:
    """Show one dead letter whole: reason, place, key, headers and the first bytes of a message."""
    with open_state(_folder(state, config, params), create=False) as (_, index):
        letter, event = _found(index, _by_name(index), name)
    if letter is not None:
        found = asdict(letter)
    else:
        assert event is not None  # noqa: S101
        found = _summary(event) | {
            "key": _text(event.poison.key),
            "headers": {header: _text(value) for header, value in event.poison.headers},
            "value": _text(event.poison.value),
            "value_base64": None
            if event.poison.value is None
            else base64.b64encode(event.poison.value).decode("ascii"),
        }
    lines = [f"{key}: {str(value)[:_PREVIEW]}" for key, value in found.items() if key != "value_base64"]
    print_result(found, as_json, lines)


@app.command(epilog="Example: coefvq vmp dlq replay videos/0/17 --config vmp.yaml")
def replay(
    names: _NamesArgument = None,
    tenant: AnyTenantOption = None,
    state: StateOption = None,
    config: ConfigOption = None,
    params: ParamsOption = PARAMS_FILE,
    as_json: JsonOption = False,
) -> None:
    """Bring dead letters back to the source, once their cause is gone.

    A message goes to its topic again byte for byte, a video of a topic with the version that it had. A video of the
    log gets a new event; one of a table is judged again as it is. Then `coefvq vmp run`.
    """
    source = None if config is None else load_configuration(config).source
    topic = source if isinstance(source, KafkaSource) else None
    with open_state(_folder(state, config, params), create=False) as (log, index):
        letters, events = _chosen(index, names, tenant)
        if isinstance(source, TableSource):
            sent, events = _retried(index, letters), [] if names is None else events
        else:
            sent = _replayed_to_log(log, letters) if topic is None else _replayed_to_topic(topic, log, letters)
        if events and isinstance(source, TableSource):
            raise DataError(f"{events[0].name}: a row of the table: correct it there, the change brings it again")
        if events and topic is None:
            raise DataError(f"{events[0].name}: name the file of its topic with --config, to send it there again")
        if events and topic is not None:
            from coefvq.vmp.sources.kafka_producer import Outbox
            from coefvq.vmp.sources.kafka_producer import replay as send

            send(Outbox(topic), [event.poison for event in events])
            # only now: a message that is not safe in the topic stays here
            poison.drop(index.database, events)
    value = {"videos": sent, "messages": len(events)}
    print_result(value, as_json, [f"{sent} videos and {len(events)} messages are with the source again"])


@app.command(epilog="Example: coefvq vmp dlq drop videos/0/17")
def drop(
    names: _ChosenArgument,
    state: StateOption = None,
    config: ConfigOption = None,
    params: ParamsOption = PARAMS_FILE,
    as_json: JsonOption = False,
) -> None:
    """Throw dead letters away. A video stays as the index has it until its next event."""
    with open_state(_folder(state, config, params), create=False) as (_, index):
        letters, events = _chosen(index, names)
        index.drop_dead_letters([letter.key for letter in letters])
        poison.drop(index.database, events)
    value = {"videos": len(letters), "messages": len(events)}
    print_result(value, as_json, [f"{len(letters)} videos and {len(events)} messages dropped"])


def _folder(state: Path | None, config: Path | None, params: Path) -> Path:
    return state_folder(state, params) if config is None else load_configuration(config).store.state


def _chosen(
    index: IndexStore, names: Sequence[str] | None, tenant: str | None = None
) -> tuple[list[DeadLetter], list[DeadEvent]]:
    """The dead letters of these names, each once; without any, those of the tenant, or all."""
    if not names:
        return index.dead_letters(tenant), [] if tenant is not None else poison.read(index.database)
    letters = _by_name(index)
    found = [_found(index, letters, name) for name in dict.fromkeys(names)]
    return [letter for letter, _ in found if letter is not None], [event for _, event in found if event is not None]


def _by_name(index: IndexStore) -> dict[str, DeadLetter]:
    """All videos that could not be scored, by the names that people type."""
    # of two keys that read alike the older letter is meant
    return {shown(one.key): one for one in reversed(index.dead_letters())}


def _found(
    index: IndexStore, letters: Mapping[str, DeadLetter], name: str
) -> tuple[DeadLetter | None, DeadEvent | None]:
    letter = letters.get(name)
    event = poison.find(index.database, name) if letter is None else None
    if letter is None and event is None:
        raise DataError(f"'{name}': no dead letter of that name; see `coefvq vmp dlq list`")
    return letter, event


def _replayed_to_log(log: EventLog, letters: Sequence[DeadLetter]) -> int:
    return len(log.republish({letter.key: letter.source_version for letter in letters}))


def _retried(index: IndexStore, letters: Sequence[DeadLetter]) -> int:
    return contents.retry(index.database, {letter.key: letter.source_version for letter in letters})


def _replayed_to_topic(topic: KafkaSource, log: EventLog, letters: Sequence[DeadLetter]) -> int:
    """A video whose content is newer by now needs no replay."""
    from coefvq.vmp.sources.kafka_producer import publish

    newest = log.newest([letter.key for letter in letters])
    again = [event for letter in letters if (event := newest.get(letter.key)) is not None
             and event.source_version == letter.source_version]  # fmt: skip
    return publish(topic, again) if again else 0


def _summary(event: DeadEvent) -> dict[str, Any]:
    found = event.poison
    return {
        "name": event.name,
        "topic": found.topic,
        "partition": found.partition,
        "offset": found.offset,
        "reason": found.reason,
        "failed_at": event.failed_at,
        "produced_at": found.produced_at,
        "bytes": len(found.value or b""),
    }


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", errors="backslashreplace")
