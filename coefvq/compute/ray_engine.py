"""The engine ``ray``: the same limited work through Ray Data, on this machine or on a cluster.

Each Ray actor keeps one limited worker process, so a hostile file costs one item there as well. Without
``RAY_ADDRESS`` a Ray of our own is started for this process, reachable from this machine only; with it the
running cluster is used, whose machines need coefvq installed and the clips at the same paths or URLs.

An actor opens no clip: it hands a worker's answer on as the bytes that came (``answers``), unread, and the driver
reads them as JSON. Ray unpickles its own messages between driver and actors, none of which holds what a worker sent
in any other form than these bytes.
"""

from __future__ import annotations

import gc
import logging
import os
import socket
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from ipaddress import ip_address
from itertools import islice
from typing import Any, TypeVar

import psutil
from pydantic import TypeAdapter

from coefvq.compute.answers import Outcome, error_bytes, read_answer
from coefvq.compute.workers import LimitedPool, pickled, result
from coefvq.config import MediaLimits
from coefvq.errors import DataError

T = TypeVar("T")
R = TypeVar("R")

# items per Ray Data execution: what is held in memory at once; between two of them actors start anew
_CHUNK = 10_000
_BLOCK = 16  # items per block at most: a block's results arrive together
_ACTOR_CPUS = 1.0
_REACH_SECONDS = 10.0
_STARTS = 3  # a second start finds in memory what the first one read
_END_SECONDS = 10.0
# read when Ray is imported or started: no reports home, no bars between our own lines
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
# 0 makes Ray take the loopback address on Linux as well, and with it listen nowhere else
_OWN_RAY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
_EXPOSED = "Ray was imported before coefvq could confine it to this machine: import it later, or set RAY_ADDRESS"
_NO_RAY = "runtime.engine is ray, but Ray cannot be reached or started; see RAY_ADDRESS and Ray's token settings"
_TOO_SLOW = "timed out during startup"
_SLOW = (
    f"runtime.engine is ray, but Ray {_TOO_SLOW} {_STARTS} times: free the machine, set runtime.engine to local, "
    "or start Ray yourself (ray start --head) and set RAY_ADDRESS"
)
_MISSING = "runtime.engine is ray, but Ray is not installed: pip install 'coefvq[ray]', or set it to local"


def ray_map(
    work: Callable[[T], R],
    items: Iterable[T],
    *,
    answer: TypeAdapter[R],
    failed: Callable[[T, str], R],
    limits: MediaLimits,
    workers: int,
) -> Iterator[R]:
    """As ``engines.limited_map``; results come in order, at most one chunk is held.

    Raises:
        DataError: Ray is not installed, cannot be reached or would be open to other machines.
    """
    join_ray(workers)
    source = iter(items)
    order = pickled(work)
    while chunk := list(islice(source, _CHUNK)):
        for item, row in zip(chunk, _run(order, chunk, limits, workers), strict=True):
            yield result(_outcome(row, answer), item, failed)


def join_ray(workers: int) -> None:
    """Use the Ray that is there or named by RAY_ADDRESS, else start one that only this machine can reach."""
    local = not os.environ.get("RAY_ADDRESS")
    if not local:
        _check_reachable(os.environ["RAY_ADDRESS"])
    for name, value in {**_QUIET, **(_OWN_RAY if local else {})}.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise DataError(_MISSING) from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if ray.is_initialized():
        return
    # one CPU more than the actors take: Ray Data waits for ever if its actors have them all. "local" is said
    # because Ray would else join whatever cluster somebody started on this machine
    own = {"address": "local", "num_cpus": workers + 1, "include_dashboard": False} if local else {}
    try:
        started = any(_started(own) for _ in range(_STARTS))
    except (ConnectionError, RuntimeError) as error:
        raise DataError(f"{_NO_RAY} ({str(error).splitlines()[0]})") from error
    if not started:
        raise DataError(_SLOW)
    address = ray.util.get_node_ip_address()
    if local and not ip_address(address).is_loopback:
        ray.shutdown()
        raise DataError(f"{_EXPOSED} (it would listen on {address})")


def _started(settings: dict[str, Any]) -> bool:
    """Whether Ray was started or joined; False where its own processes took longer than it waits for them.

    Ray gives its agent 15 seconds, fixed (ray-project/ray#65983), which reading it from a cold disk can take.
    """
    import ray

    before = set(psutil.Process().children(recursive=True))
    with warnings.catch_warnings():
        # of Ray's handles of the processes that are ended below
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            ray.init(logging_level=logging.ERROR, log_to_driver=False, **settings)
            return True
        except Exception as error:
            # Ray leaves running what did start
            _end([process for process in psutil.Process().children(recursive=True) if _is_rays(process, before)])
            if _TOO_SLOW not in str(error):
                raise
        gc.collect()
    return False


def _is_rays(process: psutil.Process, before: Collection[psutil.Process]) -> bool:
    """Whether a process is new and Ray's: another thread may have started one of its own meanwhile."""
    if process in before:
        return False
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return f"{os.sep}ray{os.sep}" in command or command.startswith("ray::")


def _end(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=_END_SECONDS)


def _check_reachable(address: str) -> None:
    """Ray itself tries for many minutes (more than 6 were seen) where nobody listens."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdigit():
        return  # such as "auto", which is for Ray to resolve
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_SECONDS).close()
    except OSError as error:
        raise DataError(f"{_NO_RAY} (RAY_ADDRESS={address}: {error.strerror or error})") from error


def _outcome(row: dict[str, Any], answer: TypeAdapter[R]) -> Outcome:
    if row["lost"]:
        return "lost", row["lost"]
    try:
        return read_answer(row["answer"], answer)
    except ValueError:
        return "lost", "crashed"


def _run(order: bytes, chunk: Sequence[Any], limits: MediaLimits, workers: int) -> Iterator[dict[str, Any]]:
    """A row per item: ``answer`` as the worker sent it, or why it was ``lost``."""
    import ray
    import ray.data

    # Arrow knows no Python objects: rows carry them as bytes, which only the limited worker unpacks
    rows = [{"item": pickled(item)} for item in chunk]
    # the cluster may be smaller than asked for, and one CPU has to stay free (see join_ray)
    team = max(1, min(workers, len(rows), int(ray.cluster_resources().get("CPU", 1)) - 1))
    blocks = max(team, -(-len(rows) // _BLOCK))
    data = ray.data.from_items(rows, override_num_blocks=min(blocks, len(rows)))
    data.context.execution_options.preserve_order = True
    data.context.enable_progress_bars = False
    done = data.map(
        _LimitedActor,
        fn_constructor_args=(order, limits.model_dump()),
        compute=ray.data.ActorPoolStrategy(size=team),
        num_cpus=_ACTOR_CPUS,
    )
    yield from done.iter_rows()


class _LimitedActor:
    """One limited worker process in a Ray actor; bytes in, bytes out."""

    def __init__(self, order: bytes, limits: dict[str, Any]) -> None:
        self._order, self._pool = order, LimitedPool(MediaLimits(**limits))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            [(kind, payload)] = self._pool.exchange(self._order, [row["item"]], _unread)
        except DataError as error:  # raised again where the caller is
            kind, payload = "value", error_bytes(error)
        return {"answer": b"", "lost": payload} if kind == "lost" else {"answer": payload, "lost": ""}


def _unread(answer: bytes) -> Outcome:
    return "value", answer
