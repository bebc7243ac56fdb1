"""Features in Redis: JSON objects under a prefix, alone or as a cache before another store.

As a cache Redis is never needed: where it does not answer, the store behind is asked. Rows are kept for a time, and
that there is none for a shorter one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from coefvq.documents import parse_json
from coefvq.errors import DataError
from coefvq.redaction import redact
from coefvq.vmp.features.values import FeatureStore, Kind, StoreError, Unusable, checked, checked_row
from coefvq.vmp.redis_client import open_client

if TYPE_CHECKING:
    from pybreaker import CircuitBreaker

#: share of the time that a cache may take before the store behind is asked
CACHE_SHARE = 0.25
#: that there is no row
_ABSENT = "null"


@contextmanager
def _named_errors(place: str) -> Iterator[None]:
    import redis

    try:
        yield
    except (redis.RedisError, OSError) as error:
        raise StoreError(f"{place}: {error}") from error


class RedisRows:
    """JSON objects under ``prefix``."""

    def __init__(self, url: str, prefix: str, seconds: float) -> None:
        """Connections are made at the first question; each waits at most ``seconds`` for an answer.

        Raises:
            ConfigError: redis-py is not installed, or refuses the URL.
        """
        self._prefix, self._place = prefix, redact(url)
        self._client = open_client(url, seconds)

    def fetch(self, keys: Sequence[str], seconds: float) -> dict[str, Any]:
        """The rows of ``keys``.

        Raises:
            StoreError: Redis does not answer.
        """
        return {key: row for key, row in self.kept(keys).items() if row is not None}

    def kept(self, keys: Sequence[str]) -> dict[str, Any]:
        """What is stored under each key that is there; None: that there is no row.

        Raises:
            StoreError: Redis does not answer.
        """
        with _named_errors(self._place):
            found = self._client.mget([self._prefix + key for key in keys])
        return {key: _row(text) for key, text in zip(keys, found, strict=True) if text is not None}

    def store(self, texts: Mapping[str, tuple[str, int]]) -> None:
        """Keep texts, each for its number of seconds.

        Raises:
            StoreError: Redis does not answer.
        """
        with _named_errors(self._place), self._client.pipeline(transaction=False) as pipe:
            for key, (text, ttl) in texts.items():
                pipe.set(self._prefix + key, text, ex=ttl)
            pipe.execute()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class ReadThrough:
    """A cache in Redis before another store."""

    def __init__(
        self,
        cache: RedisRows,
        behind: FeatureStore,
        kinds: Mapping[str, Kind],
        *,
        ttl: int,
        absent_ttl: int,
        circuit: CircuitBreaker,
    ) -> None:
        self._cache, self._behind, self._kinds, self._circuit = cache, behind, kinds, circuit
        self._ttl, self._absent_ttl = ttl, absent_ttl

    def fetch(self, keys: Sequence[str], seconds: float) -> dict[str, Any]:
        """The rows of ``keys``: those kept, and those that the store behind gives, which are kept from then on.

        Raises:
            StoreError: the store behind does not answer about a key that is not kept.
        """
        end = time.monotonic() + seconds
        rows = self._kept(keys)
        missing = [key for key in keys if key not in rows]
        if missing:
            answer = self._behind.fetch(missing, max(0.001, end - time.monotonic()))
            rows |= answer
            # checked before they are kept: garbage must not outlive the service's trouble
            fresh = checked(answer, missing, self._kinds)
            usable = {key: row for key in missing if not isinstance(row := fresh.get(key), Unusable)}
            self._keep(usable)
        return {key: row for key, row in rows.items() if row is not None}

    def close(self) -> None:
        """Close both."""
        self._cache.close()
        self._behind.close()

    def _kept(self, keys: Sequence[str]) -> dict[str, Any]:
        """What the cache knows; a row that nobody can use is not known, whoever wrote it."""
        from pybreaker import CircuitBreakerError

        try:
            rows = self._circuit.call(self._cache.kept, keys)
        except (StoreError, CircuitBreakerError):
            return {}
        return {
            key: row
            for key, row in rows.items()
            if row is None or not isinstance(checked_row(key, row, self._kinds), Unusable)
        }

    def _keep(self, rows: Mapping[str, Mapping[str, Any] | None]) -> None:
        from pybreaker import CircuitBreakerError

        texts = {
            key: (_ABSENT, self._absent_ttl) if row is None else (json.dumps(row), self._ttl)
            for key, row in rows.items()
        }
        try:
            self._circuit.call(self._cache.store, texts)
        except (StoreError, CircuitBreakerError):
            return  # the next question asks the store behind again


def _row(text: Any) -> Any:
    """The JSON value, else the text itself, which is no row."""
    try:
        return parse_json(text, "a row", "write a JSON object")
    except DataError:
        return text
