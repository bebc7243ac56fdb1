"""What `coefvq vmp check` looks at: every part that a vmp.yaml names, before the first event."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import tenacity

from coefvq.errors import ConfigError, DataError
from coefvq.vmp.configuration import Configuration, KafkaSource, LogSource, RedisIndex, TableSource
from coefvq.vmp.configuration import Store as StorePlace
from coefvq.vmp.features.lookup import open_guarded
from coefvq.vmp.features.settings import Store, check_rules
from coefvq.vmp.features.values import StoreError
from coefvq.vmp.index import open_index
from coefvq.vmp.kept_rules import next_rules
from coefvq.vmp.log import open_log
from coefvq.vmp.sources.engines import place_store, reading_of, stored_positions
from coefvq.vmp.sources.kafka_client import (
    ANSWER_SECONDS,
    Reports,
    consumer_settings,
    library,
    made,
    partitions,
    what_of,
)
from coefvq.vmp.state import LOG, open_state
from coefvq.vmp.tenants import own_rules

#: a key that no store has
_NOBODY = "coefvq-vmp-check"
_PAUSE_SECONDS = 0.2
#: name of a part and what looks at it: it returns a line, or raises what is wrong
Check = tuple[str, Callable[[], str]]


def checks(configuration: Configuration) -> Iterator[Check]:
    """The checks of a configuration, in the order in which a run needs the parts."""
    yield "store", partial(_store, configuration)
    source = configuration.source
    if not isinstance(source, LogSource):
        yield "files", partial(_files, source)
    if isinstance(source, TableSource):
        yield "source", partial(_table, source, configuration)
    elif isinstance(source, KafkaSource):
        yield "source", partial(_topic, source, configuration)
        if configuration.dead_letters.topic is not None:
            yield "dead letters", partial(_dead_letters, source, configuration.dead_letters.topic)
    else:
        yield "source", partial(_log, configuration.store.state / LOG)
    yield "rules", partial(_rules, configuration)
    for store in () if configuration.features is None else configuration.features.stores:
        yield f"features {store.name}", partial(_features, store)
    if configuration.serve is not None:
        yield "serve", partial(_serve, configuration.serve, configuration.store)


def _store(configuration: Configuration) -> str:
    place = place_store(configuration.store)
    if isinstance(place, Path) and not place.exists():
        return f"{place}: will be made by the first run"
    if (configuration.store.state / LOG).is_file():
        with open_state(configuration.store.state, create=False) as (_, index):
            return f"{index.database.place}: {sum(index.states().values())} videos"
    with open_index(place) as index:
        return f"{index.database.place}: {sum(index.states().values())} videos"


def _files(source: KafkaSource | TableSource) -> str:
    if not source.root.is_dir():
        raise ConfigError(f"source.root {source.root}: no such folder; events name files below it")
    return str(source.root)


def _topic(source: KafkaSource, configuration: Configuration) -> str:
    kafka, reports = library(), Reports()
    consumer = made("Consumer", consumer_settings(source, reports))
    try:
        numbers = partitions(consumer, source, reports)
        asked = [kafka.TopicPartition(source.topic, number) for number in numbers]
        ask_coordinator(consumer, asked)
        ends = {one.partition: consumer.get_watermark_offsets(one, timeout=ANSWER_SECONDS) for one in asked}
    except kafka.KafkaException as error:
        raise reports.tell(what_of(source), error.args[0]) from error
    finally:
        consumer.close()
    place = place_store(configuration.store)
    reached = {} if isinstance(place, Path) and not place.exists() else _reached(place, source)
    waiting = sum(max(0, high - reached.get(number, low)) for number, (low, high) in ends.items())
    return f"{what_of(source)}: {len(numbers)} partitions, {waiting} messages to read as group {source.group}"


def ask_coordinator(consumer: Any, asked: Sequence[Any]) -> None:
    """Whether we may use the group, which its coordinator says.

    Brokers that have just started name one that is not ready yet; a run's consumer waits for it too.

    Raises:
        KafkaException: it says no, or was not ready in time.
    """
    error = library().KafkaError
    early = {error.NOT_COORDINATOR, error.COORDINATOR_NOT_AVAILABLE, error.COORDINATOR_LOAD_IN_PROGRESS}
    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception(
            lambda raised: isinstance(raised, library().KafkaException) and raised.args[0].code() in early
        ),
        wait=tenacity.wait_fixed(_PAUSE_SECONDS),
        stop=tenacity.stop_after_delay(ANSWER_SECONDS),
        reraise=True,
    )
    attempts(consumer.committed, asked, timeout=ANSWER_SECONDS)


def _table(source: TableSource, configuration: Configuration) -> str:
    from coefvq.vmp.sources.table_check import look

    place = place_store(configuration.store)
    if isinstance(place, Path) and not place.exists():
        return look(source, reading_of(source), lambda video_ids: {})
    with open_index(place) as index:
        return look(source, reading_of(source), index.known)


def _reached(place: Path | str, source: KafkaSource) -> dict[int, int]:
    from coefvq.vmp.stores.tables import have_tables

    with open_index(place) as index:
        if not have_tables(index.database):
            return {}
    return dict(stored_positions(place, source.group, source.topic, range(1 << 15)))


def _dead_letters(source: KafkaSource, topic: str) -> str:
    from coefvq.vmp.sources.kafka_producer import Outbox

    return f"topic {topic}: {Outbox(source).check(topic)} partitions"


def _log(path: Path) -> str:
    if not path.is_file():
        return f"{path}: will be made by the first `coefvq vmp publish`"
    with open_log(path, create=False) as log:
        return f"{path}: ends at offset {log.last_offset()}"


def _rules(configuration: Configuration) -> str:
    rules = next_rules(configuration.store.state, configuration.rules)
    owners = own_rules(configuration.tenants, rules)
    for one in (rules, *owners.values()):
        check_rules(one, configuration.features)
    return f"{len(rules.rules)} rules, else {rules.default}; {len(owners)} tenants beside the default one"


def _features(store: Store) -> str:
    with open_guarded(store) as guarded:
        try:
            guarded.fetch([_NOBODY])
        except StoreError as error:
            raise DataError(f"features.{store.name}: {error}; start the store, or correct its source") from error
    return f"{store.source.kind}: answers; gives {', '.join(store.fields)}"


def _serve(settings: RedisIndex, store: StorePlace) -> str:
    from coefvq.vmp.mirror import following, rows
    from coefvq.vmp.mirror.redis_copy import open_copy

    with open_copy(settings) as copy:
        kept, place = copy.check(), copy.place()
    found = place_store(store)
    if isinstance(found, Path) and not found.exists():
        return f"redis: answers, {kept}; no index yet"
    with open_index(found) as index:
        head = rows.head(index.database)
        why = following.reason_anew(index.database, place, head) if head.newest else None
    behind = 0 if place is None else head.newest - place.since
    return f"redis: answers, {kept}; " + (f"{behind} changes behind" if why is None else f"to be built: {why}")
