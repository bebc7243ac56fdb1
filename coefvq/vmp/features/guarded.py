"""One feature store under guard: a deadline, few retries, and a circuit breaker.

A retry is taken from a budget that questions fill, so that retries never multiply the load of a store in trouble. After
some failures in a row the store is not asked for a while; then one question tries it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import repeat

import tenacity
from pybreaker import CircuitBreaker, CircuitBreakerError, CircuitMemoryStorage

from coefvq.vmp.features.values import FeatureStore, Kind, Rows, StoreError, Unusable, Value, checked

#: keys of one question to a store; more are asked in so many questions at once
CHUNK = 500
_AT_ONCE = 4
_RETRIES_AT_ONCE = 10.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.2


class RetryBudget:
    """Retries as a share of questions; a few may come at once."""

    def __init__(self, share: float) -> None:
        self._share, self._left = share, _RETRIES_AT_ONCE if share else 0.0

    def asked(self) -> None:
        """A question fills the budget by its share."""
        self._left = min(_RETRIES_AT_ONCE, self._left + self._share)

    def take(self) -> bool:
        """Whether one more retry may be made; it is then spent."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class _Storage(CircuitMemoryStorage):
    """The state of a breaker that counts by a clock that nobody sets back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__("closed")
        self._clock, self._opened = clock, 0.0

    @property
    def opened_at(self) -> datetime | None:
        """When the circuit was opened, as wall time counted back from now."""
        return datetime.now(UTC) - timedelta(seconds=self._clock() - self._opened)

    @opened_at.setter
    def opened_at(self, moment: datetime) -> None:
        self._opened = self._clock()


def breaker(failures: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> CircuitBreaker:
    """A breaker that opens after so many failures in a row, for so many seconds."""
    return CircuitBreaker(
        fail_max=failures, reset_timeout=seconds, state_storage=_Storage(clock), throw_new_error_on_trip=False
    )


class Guarded:
    """A store whose answers are checked and whose failures are bounded; ``fetch`` is called by one thread at a time."""

    def __init__(
        self,
        store: FeatureStore,
        kinds: dict[str, Kind],
        *,
        deadline: float,
        retry_share: float,
        circuit: CircuitBreaker,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store, self._kinds, self._deadline = store, kinds, deadline
        self._circuit, self._clock, self._sleep = circuit, clock, sleep
        self._budget = RetryBudget(retry_share)

    def fetch(self, keys: Sequence[str]) -> Rows:
        """The checked rows of distinct ``keys``, within the deadline.

        Raises:
            StoreError: no answer, one that does not fit, or the circuit is open.
        """
        try:
            return self._circuit.call(self._with_retries, keys)
        except CircuitBreakerError as error:
            raise StoreError("not asked: it failed too often just now") from error

    def _with_retries(self, keys: Sequence[str]) -> Rows:
        end = self._clock() + self._deadline
        self._budget.asked()

        def is_over(state: tenacity.RetryCallState) -> bool:
            return self._clock() + state.upcoming_sleep >= end or not self._budget.take()

        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, StoreError) and error.temporary),
            wait=tenacity.wait_random_exponential(multiplier=_FIRST_PAUSE, max=_LONGEST_PAUSE),
            stop=is_over,
            sleep=self._sleep,
            reraise=True,
        )
        return attempts(self._attempt, keys, end)

    def _attempt(self, keys: Sequence[str], end: float) -> Rows:
        chunks = [keys[start : start + CHUNK] for start in range(0, len(keys), CHUNK)]
        if len(chunks) == 1:
            return self._ask(keys, end)
        rows: dict[str, Mapping[str, Value] | Unusable] = {}
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for answer in pool.map(self._ask, chunks, repeat(end)):
                rows |= answer
        return rows

    def _ask(self, keys: Sequence[str], end: float) -> Rows:
        left = end - self._clock()
        if left <= 0:
            raise StoreError(f"no answer in {self._deadline:g} s")
        return checked(self._store.fetch(keys, left), keys, self._kinds)
