"""Features of a batch of events: all stores at once, each within its deadline, and what follows where one is silent."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillRunningError
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any

from coefvq.files import sha256_json
from coefvq.vmp.deployment import kept_features
from coefvq.vmp.features.guarded import Guarded, breaker
from coefvq.vmp.features.settings import FeatureSettings, RedisSource, SqlSource, Store, ThriftSource
from coefvq.vmp.features.values import FeatureStore, HeldError, Rows, StoreError, Unusable
from coefvq.vmp.keys import SEPARATOR, tenant_of
from coefvq.vmp.keys import key as key_of
from coefvq.vmp.records import ABSENT, FAILED, FOUND, STATUS, Event, Features, Known

_KEY = re.compile("[^\x00\ud800-\udfff]{1,1024}")
#: a store ends its own question at the deadline; so much longer is waited for its thread
_GRACE_SECONDS = 0.25


@dataclass
class _Lane:
    """A store and the last question that it was asked; while it hangs in one it gets no other."""

    settings: Store
    guarded: Guarded
    last: Future[Rows] | None = None


class StoreLookup:
    """The stores of a stream, as a deployment asks them (``Lookup``); close it with ``close``."""

    def __init__(self, lanes: Sequence[tuple[Store, Guarded]], clock: Callable[[], float] = time.monotonic) -> None:
        self._lanes = [_Lane(settings, guarded) for settings, guarded in lanes]
        self._pool = ThreadPoolExecutor(len(self._lanes), thread_name_prefix="coefvq-features")
        self._clock = clock

    def __call__(self, events: Sequence[Event], known: Mapping[str, Known]) -> list[Features]:
        """The features of each event; those that the index keeps of the same content are taken from there.

        Raises:
            HeldError: a store that the stream waits for does not answer.
        """
        found = [self._from_index(event, known.get(event.video_id)) for event in events]
        asked = [event for event, kept in zip(events, found, strict=True) if kept is None]
        fresh = iter(self._ask(asked) if asked else ())
        return [next(fresh) if kept is None else kept for kept in found]

    def close(self) -> None:
        """End the threads; what runs ends at its deadline."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _from_index(self, event: Event, known: Known | None) -> Features | None:
        """What the verdict on this content was made with, where every store had answered."""
        values = kept_features(event, known).values
        for lane in self._lanes:
            status = values.get(lane.settings.name, {}).get(STATUS)
            if status != FOUND and (status != ABSENT or lane.settings.missing != "mark"):
                return None
        return Features(values)

    def _ask(self, events: Sequence[Event]) -> list[Features]:
        begun = self._clock()
        asked = [self._begin(lane, events) for lane in self._lanes]
        # all answers first: a question that still runs would keep its store from the next batch
        answers = [self._answer(lane, future, begun) for lane, future in zip(self._lanes, asked, strict=True)]
        for lane, answer in zip(self._lanes, answers, strict=True):
            if lane.settings.missing == "hold" and isinstance(answer, StoreError):
                raise HeldError(lane.settings.name, answer)
        return [self._features(event, answers) for event in events]

    def _begin(self, lane: _Lane, events: Sequence[Event]) -> Future[Rows] | None:
        """The question of this batch; None while the store hangs in an earlier one."""
        keys = list(dict.fromkeys(key for event in events if (key := _key(lane, event)) is not None))
        if lane.last is not None and not lane.last.done():
            return None
        lane.last = self._pool.submit(lane.guarded.fetch, keys) if keys else _settled({})
        return lane.last

    def _answer(self, lane: _Lane, future: Future[Rows] | None, begun: float) -> Rows | StoreError:
        if future is None:
            return StoreError("not asked: it still works on an earlier question")
        left = begun + lane.settings.deadline_s + _GRACE_SECONDS - self._clock()
        try:
            return future.result(max(0.0, left))
        except StillRunningError:
            return StoreError(f"no answer in {lane.settings.deadline_s:g} s")
        except StoreError as error:
            return error

    def _features(self, event: Event, answers: Sequence[Rows | StoreError]) -> Features:
        values: dict[str, dict[str, Any]] = {}
        errors = []
        for lane, answer in zip(self._lanes, answers, strict=True):
            key = _key(lane, event)
            row = None if key is None else answer if isinstance(answer, StoreError) else answer.get(key)
            if isinstance(row, StoreError | Unusable):
                values[lane.settings.name] = {STATUS: FAILED}
                why = row.reason if isinstance(row, Unusable) else str(row)
            elif row is None:
                values[lane.settings.name] = {STATUS: ABSENT}
                name = lane.settings.key
                why = f"the event has no usable {name}" if key is None else f"nothing about {name} {key!r:.60}"
            else:
                values[lane.settings.name] = {STATUS: FOUND, **row}
                continue
            if lane.settings.missing != "mark":
                errors.append(f"features of {lane.settings.name}: {why}")
        return Features(values, "; ".join(errors) or None)


@contextmanager
def open_lookup(settings: FeatureSettings) -> Iterator[StoreLookup]:
    """The stores of ``settings``; none is asked before the first batch.

    Raises:
        ConfigError: a library is missing, or a URL does not fit.
    """
    with ExitStack() as opened:
        lanes = [(store, opened.enter_context(open_guarded(store))) for store in settings.stores]
        lookup = StoreLookup(lanes)
        opened.callback(lookup.close)
        yield lookup


@contextmanager
def open_guarded(store: Store) -> Iterator[Guarded]:
    """One store under the guard that its settings name.

    Raises:
        ConfigError: its library is missing, or its URL does not fit.
    """
    opened = _open_store(store)
    guarded = Guarded(
        opened,
        dict(store.fields),
        deadline=store.deadline_s,
        retry_share=store.retry_share,
        circuit=breaker(store.breaker_failures, store.breaker_seconds),
    )
    with closing(opened):
        yield guarded


def _open_store(store: Store) -> FeatureStore:
    source = store.source
    if not isinstance(source, RedisSource):
        return _plain_store(store, source)
    from coefvq.vmp.features.redis_store import CACHE_SHARE, ReadThrough, RedisRows

    if source.behind is None:
        return RedisRows(source.url, source.prefix or f"coefvq:{store.name}:", store.deadline_s)
    # rows that were kept for other fields are another cache
    prefix = source.prefix or f"coefvq:{store.name}:{sha256_json(store.fields)[:8]}:"
    return ReadThrough(
        RedisRows(source.url, prefix, store.deadline_s * CACHE_SHARE),
        _plain_store(store, source.behind),
        store.fields,
        ttl=source.ttl_s,
        absent_ttl=source.absent_ttl_s,
        circuit=breaker(store.breaker_failures, store.breaker_seconds),
    )


def _plain_store(store: Store, source: ThriftSource | SqlSource) -> FeatureStore:
    if isinstance(source, ThriftSource):
        from coefvq.vmp.features.thrift_store import ThriftStore

        return ThriftStore(store.name, source.host, source.port, source.pool)
    from coefvq.vmp.features.sql_store import SqlStore

    return SqlStore(source.url, source.table, source.key_column, store.fields, source.columns)


def _key(lane: _Lane, event: Event) -> str | None:
    """What is looked up; None where the event has none, or one that some stores refuse for all keys of a question.

    A tenant's creators are its own, as its videos are, so both are asked for by a key that holds it.
    """
    asked: str | None = getattr(event, lane.settings.key)
    if asked is not None and lane.settings.key == "creator_id":
        tenant = tenant_of(event.video_id)
        asked = None if SEPARATOR in asked else key_of(tenant, asked)
    return asked if asked is not None and _KEY.fullmatch(asked) else None


def _settled(rows: Rows) -> Future[Rows]:
    future: Future[Rows] = Future()
    future.set_result(rows)
    return future
