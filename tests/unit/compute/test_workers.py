"""Limited workers: order, limits, one death costs one item, nothing is left behind."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import TypeAdapter

from coefvq.compute.engines import limited_map
from coefvq.compute.limited_worker import reason_of_exit
from coefvq.compute.pools import spawn_pool
from coefvq.compute.workers import LimitedPool
from coefvq.errors import DataError
from tests.unit.hostile_worker import misbehave
from tests.unit.worker_tasks import (
    ANY,
    LIMITS,
    AwkwardError,
    Fatal,
    burn,
    facts,
    lost,
    obey,
    pid,
    raise_on,
    square,
    unpicklable,
)


def run(orders: list[str], workers: int = 1, **limits: float) -> list[str]:
    bounds = LIMITS.model_copy(update=limits)
    return list(limited_map(obey, orders, answer=ANY, failed=lost, limits=bounds, workers=workers))


def children() -> set[psutil.Process]:
    # the resource tracker stays for the life of the interpreter
    return {child for child in psutil.Process().children() if "resource_tracker" not in "".join(child.cmdline())}


@pytest.fixture(autouse=True)
def _leaves_no_process() -> Iterator[None]:
    before = children()
    yield
    assert children() <= before


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order(workers: int) -> None:
    results = limited_map(square, range(100), answer=ANY, failed=lost, limits=LIMITS, workers=workers)
    assert list(results) == [n * n for n in range(100)]


def test_nothing_to_do_starts_no_process() -> None:
    before = children()
    with LimitedPool(LIMITS, 2) as pool:
        assert list(pool.map(square, [], ANY, lost)) == []
        assert children() == before


def test_an_endless_source_is_taken_a_little_ahead() -> None:
    taken = itertools.count()
    results = limited_map(square, taken, answer=ANY, failed=lost, limits=LIMITS, workers=2)
    assert [next(results) for _ in range(50)] == [n * n for n in range(50)]
    assert next(taken) <= 50 + 2 * 16 + 2
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("order", "reason"),
    [("segfault", "crashed"), ("exit", "crashed"), ("abort", "out_of_memory"), ("killed", "out_of_memory")],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_death_costs_one_item(order: str, reason: str, workers: int) -> None:
    assert run(["a", order, "b", "c"], workers) == ["a", f"{order}: {reason}", "b", "c"]


def test_only_the_guilty_item_is_charged() -> None:
    orders = [order for n in range(8) for order in ("exit", f"good {n}", "large")]
    for order, result in zip(orders, run(orders, workers=3), strict=True):
        assert result == {"exit": "exit: crashed", "large": "x" * (5 << 20)}.get(order, order)


def test_a_memory_hog_is_ended() -> None:
    assert run(["hog", "a"]) == ["hog: out_of_memory", "a"]


def test_a_busy_loop_runs_out_of_cpu_time() -> None:
    assert run(["a", "spin", "b"], cpu_seconds=1, wall_seconds=3600.0) == ["a", "spin: timeout", "b"]


def test_cpu_time_is_counted_per_item() -> None:
    # one worker needs 0.2 s each; were the limit one for all of them, it would die half-way
    assert (
        len(
            set(
                limited_map(
                    burn,
                    range(15),
                    answer=ANY,
                    failed=lost,
                    limits=LIMITS.model_copy(update={"cpu_seconds": 1}),
                    workers=1,
                )
            )
        )
        == 1
    )


def test_a_sleeper_runs_out_of_time() -> None:
    assert run(["sleep", "a", "sleep"], workers=2, wall_seconds=0.5) == ["sleep: timeout", "a", "sleep: timeout"]


def test_errors_of_the_work_reach_the_caller_in_their_turn() -> None:
    results = limited_map(raise_on, [5, 4, 0, 6], answer=ANY, failed=lost, limits=LIMITS, workers=2)
    assert [next(results), next(results)] == [5, 4]
    with pytest.raises(ValueError, match="zero") as caught:
        next(results)
    assert "in raise_on" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("number", "kind", "match"),
    [(1, RuntimeError, AwkwardError.__name__), (2, RuntimeError, "SystemExit"), (3, TimeoutError, "three")],
)
def test_awkward_errors_reach_the_caller(number: int, kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        list(limited_map(raise_on, [number], answer=ANY, failed=lost, limits=LIMITS, workers=1))


def test_what_does_not_travel_is_an_error_of_the_caller() -> None:
    with pytest.raises(TypeError, match="no form for lock"):
        list(limited_map(unpicklable, [1], answer=ANY, failed=lost, limits=LIMITS, workers=1))
    with pytest.raises((AttributeError, TypeError), match=r"pickle|local"):
        list(limited_map(lambda n: n, [1], answer=ANY, failed=lost, limits=LIMITS, workers=1))
    with pytest.raises(TypeError, match="pickle"):
        list(limited_map(square, [threading.Lock()], answer=ANY, failed=lost, limits=LIMITS, workers=1))  # type: ignore[list-item]


def test_workers_hold_their_limits_and_no_torch() -> None:
    [found] = limited_map(facts, [0], answer=ANY, failed=lost, limits=LIMITS, workers=1)
    assert found == {"torch": False, "core": 0, "memory": 2**30, "file": 2**30, "nice": 5, "threads": "1"}


@pytest.mark.parametrize("worker_mib", [1, 8, 32, 64])
def test_limits_too_small_to_start_are_an_error_and_not_a_rejection(worker_mib: int) -> None:
    with pytest.raises(DataError, match=r"raise worker_mib of ingest\.limits"):
        run(["a"], worker_mib=worker_mib)


def test_a_worker_that_cannot_start_is_an_error_and_is_not_started_for_ever() -> None:
    with pytest.raises(DataError, match=r"ended before its first clip \(crashed, exit code 9\)"):
        list(limited_map(Fatal(), ["a", "b"], answer=ANY, failed=lost, limits=LIMITS, workers=2))


def test_a_pool_keeps_its_workers_between_calls() -> None:
    with LimitedPool(LIMITS, 2) as pool:
        before = children()
        [first] = pool.map(pid, [0], ANY, lost)
        assert list(pool.map(square, [3], ANY, lost)) == [9]
        assert list(pool.map(pid, [0], ANY, lost)) == [first]
        assert {child.pid for child in children() - before} == {first}  # one item needs one worker
        assert list(pool.map(obey, ["exit", "a"], ANY, lost)) == ["exit: crashed", "a"]


def test_a_worker_that_dies_between_calls_is_replaced() -> None:
    with LimitedPool(LIMITS) as pool:
        [first] = pool.map(pid, [0], ANY, lost)
        worker = psutil.Process(first)
        worker.kill()
        psutil.wait_procs([worker])
        [second] = pool.map(pid, [0], ANY, lost)
    assert isinstance(second, int)  # not a reason: the item never reached the dead one
    assert first != second


def test_an_abandoned_map_leaves_no_stale_answer() -> None:
    with LimitedPool(LIMITS, 2) as pool:
        results = pool.map(square, range(100), ANY, lost)
        assert next(results) == 0
        results.close()  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match="zero"):
            list(pool.map(raise_on, [0, 5, 0], ANY, lost))
        assert list(pool.map(square, range(20), ANY, lost)) == [n * n for n in range(20)]


def test_a_pool_serves_one_map_at_a_time() -> None:
    with LimitedPool(LIMITS) as pool:
        first = pool.map(square, range(9), ANY, lost)
        assert next(first) == 0
        with pytest.raises(RuntimeError, match="one pool per thread"):
            next(pool.map(square, [1], ANY, lost))
        assert next(first) == 1


def test_workers_outlive_the_thread_that_started_them() -> None:
    with LimitedPool(LIMITS) as pool:
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.extend(pool.map(pid, [0], ANY, lost)))
        thread.start()
        thread.join()
        assert list(pool.map(pid, [0], ANY, lost)) == found


def test_exit_codes() -> None:
    assert reason_of_exit(-signal.SIGXCPU) == "timeout"
    assert reason_of_exit(-signal.SIGSEGV) == "crashed"
    assert reason_of_exit(None) == "crashed"  # stuck in the kernel


def test_spawn_pool_gives_up_its_queue_on_an_error() -> None:
    with pytest.raises(ValueError, match="zero"), spawn_pool(1) as pool:
        list(pool.map(raise_on, itertools.chain([0], range(4, 2000))))


@pytest.mark.parametrize("kind", ["limited", "trusted"])
def test_workers_end_when_their_parent_is_killed(kind: str, repository: Path) -> None:
    command = [sys.executable, "-m", "tests.unit.worker_tasks", kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=repository) as parent:
        assert parent.stdout is not None
        workers = [psutil.Process(int(parent.stdout.readline())) for _ in range(3)]
        parent.kill()
        assert parent.stdout.read() == ""  # returns when the last holder of the pipe has gone
    # the pipe is closed a moment before the process is gone
    _, left = psutil.wait_procs(workers, timeout=10)
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in left)


#: what a worker that a clip took over may send, and what becomes of its item
HOSTILE = {
    "garbage": "crashed",
    "pickle": "crashed",
    "pickle_framed": "crashed",
    "giant": "crashed",
    "beyond": "crashed",
    "cut": "timeout",
    "cut_and_gone": "crashed",
    "dribble": "timeout",
    "ready": "crashed",
    "empty": "crashed",
    "shape": "crashed",
    "text": "crashed",
    "nested": "crashed",
    "no_json": "crashed",
    "error_name": "crashed",
    "error_shape": "crashed",
    "error_nested": "crashed",
}


def test_whatever_a_worker_sends_costs_its_item_and_runs_no_code(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    orders = [order for kind in HOSTILE for order in (f"{kind} {mark}", "good")]
    limits = LIMITS.model_copy(update={"wall_seconds": 3.0})
    number: TypeAdapter[Any] = TypeAdapter(int)
    answers = limited_map(misbehave, orders, answer=number, failed=why, limits=limits, workers=2)
    found = dict(zip(orders[::2], zip(answers, answers, strict=True), strict=True))
    assert found == {f"{kind} {mark}": (reason, 1) for kind, reason in HOSTILE.items()}
    assert not mark.exists()


def why(_: object, reason: str) -> str:
    return reason
