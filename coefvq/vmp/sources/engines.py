"""From a vmp.yaml to the parts of a run: the state's place, the source, where dead events go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from coefvq.data.locations import root_at
from coefvq.errors import ConfigError
from coefvq.files import private_folder, storage_errors, write_text
from coefvq.vmp.configuration import Configuration, KafkaSource, LogSource, Store, TableSource
from coefvq.vmp.index import IndexStore, open_index
from coefvq.vmp.lanes import ends
from coefvq.vmp.log import EventLog
from coefvq.vmp.loop import Sink, Source, Stop, now
from coefvq.vmp.records import BatchReport
from coefvq.vmp.sources.batches import Poison
from coefvq.vmp.sources.inbox import Inbox, PoisonShare
from coefvq.vmp.sources.messages import Reading
from coefvq.vmp.state import CONFIG, INDEX, index_place
from coefvq.vmp.stores import poison, positions
from coefvq.vmp.stores.tables import make_tables


def place_store(store: Store) -> Path | str:
    """Where the index of a configured store is; the state's folder gets the URL, for all other commands.

    Raises:
        ConfigError: the folder holds another index.
    """
    if store.url is None:
        return index_place(store.state)
    found = index_place(store.state)
    if isinstance(found, str):
        if found != store.url:
            raise ConfigError(f"{store.state / CONFIG}: names another index than store.url; correct one of the two")
        return found
    if found.exists():
        raise ConfigError(f"{store.state / INDEX}: an index is there, store.url would leave it; move it away")
    with storage_errors(store.state, "choose another store.state"):
        private_folder(store.state)
        write_text(store.state / CONFIG, f"index: {store.url}\n")
    return store.url


@contextmanager
def open_source(
    configuration: Configuration,
    log: EventLog,
    index: IndexStore,
    *,
    stop: Stop,
    once: bool,
    say: Callable[[str], None],
    on_poison: Callable[[BatchReport], None],
) -> Iterator[tuple[Source, Sink]]:
    """Source and Sink of a run; the log's own are log and index, by turns where there are tenants.

    Raises:
        ConfigError: the state's log has events of its own.
        DataError: the source does not answer, or the topic or table is not there.
    """
    source = configuration.source
    if isinstance(source, LogSource):
        yield ends(log, index)
        return
    if log.last_offset():
        raise ConfigError(
            f"{configuration.store.state}: its log has events, numbered by the log; a topic needs a state of its own, "
            "and so does a table (store.state)"
        )
    make_tables(index.database)
    opened = (
        open_table(configuration, source, index, stop=stop, once=once, say=say, on_poison=on_poison)
        if isinstance(source, TableSource)
        else open_kafka(configuration, source, index, stop=stop, once=once, say=say, on_poison=on_poison)
    )
    with opened as inbox:
        yield inbox, inbox


@contextmanager
def open_table(
    configuration: Configuration,
    source: TableSource,
    index: IndexStore,
    *,
    stop: Stop,
    once: bool,
    say: Callable[[str], None],
    on_poison: Callable[[BatchReport], None],
) -> Iterator[Inbox]:
    """The inbox of a table.

    Raises:
        ConfigError: the URL or its driver does not fit.
        DataError: the database does not answer, or refuses.
    """
    from coefvq.vmp.sources.table import TableStream

    def start() -> tuple[int, str]:
        with index.database.reading() as connection:
            return positions.read_mark(connection, source.group, stream.name)

    def is_kept(one: Poison) -> bool:
        return poison.holds(index.database, one.topic, one.key, one.value)

    dead = configuration.dead_letters
    with TableStream(
        source, reading_of(source), start, index.known, is_kept, stop=stop, once=once, say=say
    ) as stream:  # fmt: skip
        yield Inbox(stream, index, source.group, now, PoisonShare(dead.max_share, dead.window), on_poison=on_poison)


@contextmanager
def open_kafka(
    configuration: Configuration,
    source: KafkaSource,
    index: IndexStore,
    *,
    stop: Stop,
    once: bool,
    say: Callable[[str], None],
    on_poison: Callable[[BatchReport], None],
) -> Iterator[Inbox]:
    """The inbox of a topic, whose dead events go to ``dead_letters.topic`` too.

    Raises:
        DataError: no broker answers, or a topic is not there.
    """
    from coefvq.vmp.sources.kafka import KafkaStream
    from coefvq.vmp.sources.kafka_producer import DeadLetterTopic, Outbox

    dead = configuration.dead_letters
    start = partial(stored_positions, index_place(configuration.store.state), source.group, source.topic)
    with KafkaStream(source, reading_of(source), start, stop=stop, once=once, say=say) as stream:
        inbox = Inbox(
            stream, index, source.group, now, PoisonShare(dead.max_share, dead.window), on_poison=on_poison
        )  # fmt: skip
        if dead.topic is not None:
            outbox = Outbox(source)
            outbox.check(dead.topic)
            inbox.forward = DeadLetterTopic(outbox, dead.topic)
        yield inbox


def reading_of(source: KafkaSource | TableSource) -> Reading:
    """How the source's messages become events; a row is a message of JSON."""
    decoder = source.decoder if isinstance(source, KafkaSource) else "json"
    return Reading(root_at(source.root), max_bytes=source.max_bytes, decoder=decoder)


def stored_positions(place: Path | str, consumer: str, stream: str, numbers: Sequence[int]) -> Mapping[int, int]:
    """Where the index stands, read over a connection of its own: the caller may be any thread."""
    with open_index(place, create=False) as index, index.database.reading() as connection:
        return positions.read(connection, consumer, stream, numbers)
