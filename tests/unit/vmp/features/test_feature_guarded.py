"""Deadline, retries and circuit breaker of a store, on a clock that the test turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from coefvq.vmp.features.guarded import CHUNK, Guarded, RetryBudget, breaker
from coefvq.vmp.features.values import LONGEST_TEXT, StoreError, Unusable, checked

ROW = {"reputation": 0.5}


class Clock:
    """Time moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Scripted:
    """A store that takes ``seconds`` and fails while ``is_down``."""

    def __init__(self, clock: Clock, is_down: Callable[[], bool] = lambda: False, seconds: float = 0.0) -> None:
        self.clock, self.is_down, self.seconds = clock, is_down, seconds
        self.asked: list[int] = []
        self.temporary = True

    def fetch(self, keys: Sequence[str], seconds: float) -> Mapping[str, Mapping[str, Any]]:
        self.asked.append(len(keys))
        self.clock.sleep(min(self.seconds, seconds))
        if self.is_down() or self.seconds > seconds:
            raise StoreError("down", temporary=self.temporary)
        return dict.fromkeys(keys, ROW)

    def close(self) -> None:
        """Nothing is open."""


def guarded(store: Scripted, deadline: float = 1.0, retry_share: float = 0.1, failures: int = 5) -> Guarded:
    circuit = breaker(failures, 10.0, store.clock)
    return Guarded(store, {"reputation": "number"}, deadline=deadline, retry_share=retry_share, circuit=circuit,
                   clock=store.clock, sleep=store.clock.sleep)  # fmt: skip


def fails(store: Guarded) -> str:
    with pytest.raises(StoreError) as caught:
        store.fetch(["a"])
    return str(caught.value)


def outcomes(*words: bool) -> Callable[[], bool]:
    rest: Iterator[bool] = iter(words)
    return lambda: next(rest)


def test_a_short_trouble_is_retried() -> None:
    store = Scripted(Clock(), outcomes(True, True, False))
    assert guarded(store).fetch(["a"]) == {"a": ROW}
    assert store.asked == [1, 1, 1]


def test_no_retry_begins_after_the_deadline() -> None:
    clock = Clock()
    store = Scripted(clock, lambda: True, seconds=0.4)
    assert fails(guarded(store)) == "down"
    assert clock.now - 1000.0 <= 1.0
    assert 2 <= len(store.asked) <= 3


def test_what_will_not_change_is_not_retried() -> None:
    store = Scripted(Clock(), lambda: True)
    store.temporary = False
    fails(guarded(store))
    assert store.asked == [1]


def test_retries_are_a_share_of_questions() -> None:
    store = Scripted(Clock(), lambda: True)
    guard = guarded(store, failures=10_000, deadline=1000.0)
    for _ in range(1000):
        fails(guard)
    # ten at once, then one for ten questions
    assert 1100 <= len(store.asked) <= 1111


def test_without_a_share_nothing_is_retried() -> None:
    budget = RetryBudget(0.0)
    budget.asked()
    assert not budget.take()


def test_a_store_that_keeps_failing_is_left_alone_then_tried_once() -> None:
    clock = Clock()
    store = Scripted(clock, lambda: clock.now < 1030.0)
    guard = guarded(store, retry_share=0.0, failures=3)
    for _ in range(3):
        assert fails(guard) == "down"
    for _ in range(100):
        assert fails(guard) == "not asked: it failed too often just now"
    assert len(store.asked) == 3
    clock.now = 1010.1
    assert fails(guard) == "down"  # one question tries it
    assert fails(guard) == "not asked: it failed too often just now"
    assert len(store.asked) == 4
    clock.now = 1031.0
    assert guard.fetch(["a"]) == {"a": ROW}
    assert guard.fetch(["a"]) == {"a": ROW}


def test_many_keys_are_asked_in_pieces_within_one_deadline() -> None:
    clock = Clock()
    keys = [str(number) for number in range(2 * CHUNK + 1)]
    store = Scripted(clock, seconds=0.3)
    assert set(guarded(store).fetch(keys)) == set(keys)
    assert sorted(store.asked) == [1, CHUNK, CHUNK]
    with pytest.raises(StoreError):
        guarded(Scripted(clock, seconds=1.5), retry_share=0.0).fetch(keys)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"a": 3}, "key 'a': 3 is no row of fields"),
        ({"a": {"n": float("nan")}}, "key 'a': n = nan: expected a number"),
        ({"a": {"n": True}}, "key 'a': n = True: expected a number"),
        ({"a": {"f": [True, 1.0]}}, "key 'a': f = [True, 1.0]: expected true or false"),
        ({"a": {"f": 1}}, "key 'a': f = 1: expected true or false"),
        ({"a": {"t": b"x"}}, "key 'a': t = b'x': expected a text of at most 1024 characters"),
        ({"a": {"t": "x" * (LONGEST_TEXT + 1)}}, "expected a text of at most 1024 characters"),
    ],
)
def test_rows_that_nobody_can_use(answer: Any, message: str) -> None:
    rows = checked({**answer, "b": {}}, ["a", "b"], {"n": "number", "f": "flag", "t": "text"})
    assert isinstance(rows["a"], Unusable)
    assert message in rows["a"].reason
    assert rows["b"] == {}


def test_an_answer_about_others_is_none() -> None:
    with pytest.raises(StoreError, match="answers about 'b', which was not asked for") as caught:
        checked({"b": ROW}, ["a"], {"reputation": "number"})
    assert not caught.value.temporary


def test_other_fields_and_values_that_are_missing_are_left_out() -> None:
    assert checked({"a": {"n": None, "t": "x", "other": object()}}, ["a"], {"n": "number", "t": "text"}) == {
        "a": {"t": "x"}
    }
