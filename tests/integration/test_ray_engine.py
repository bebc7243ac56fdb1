"""The engine ``ray`` gives what the local one gives, hostile items included, and listens on loopback only."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from coefvq.compute.engines import limited_map
from coefvq.data.media.decode import DEFAULT_LIMITS
from coefvq.data.media.probe import probe_all
from coefvq.errors import DataError
from tests.unit.worker_tasks import ANY, LIMITS, lost, obey, raise_on, square

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (coefvq[ray])")


def run(work: Callable[[Any], Any], items: Any, workers: int = 2) -> list[Any]:
    return list(limited_map(work, items, answer=ANY, failed=lost, limits=LIMITS, workers=workers, engine="ray"))


# before the tests that start Ray: what is there already is used, whatever the address says
@needs_ray
def test_a_cluster_that_is_not_there_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(DataError, match=f"RAY_ADDRESS={address}: Connection refused"):
        run(square, [1])


_SLOW_AGENT = """
import os, sys, time
from pathlib import Path

seen = Path(os.environ["SLOW_AGENT"])
if any(part.endswith("dashboard/agent.py") for part in sys.orig_argv) and len(os.listdir(seen)) < int({times}):
    (seen / str(os.getpid())).touch()
    time.sleep(40)
"""


# Ray stops a process of its own after 15 seconds, and what started it after 30
@needs_ray
@pytest.mark.long
@pytest.mark.parametrize(("times", "ends"), [(1, "answer: [1, 4]"), (9, "timed out during startup 3 times")])
def test_a_start_that_was_too_slow_is_made_again(tmp_path: Path, times: int, ends: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(_SLOW_AGENT.format(times=times))
    (tmp_path / "seen").mkdir()
    program = (
        "import psutil\n"
        "from coefvq.errors import DataError\n"
        "from tests.integration.test_ray_engine import run, square\n"
        "try:\n    print('answer:', run(square, [1, 2], workers=1))\n"
        "except DataError as error:\n    print(error, psutil.Process().children(recursive=True))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"SLOW_AGENT": str(tmp_path / "seen"), "PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300)
    assert ends in done.stdout
    assert times == 1 or done.stdout.rstrip().endswith("[]"), "processes of a start that failed are left"
    assert len(list((tmp_path / "seen").iterdir())) == min(times, 3)
    assert "ResourceWarning" not in done.stderr


@pytest.fixture(scope="module")
def _ray() -> Iterator[None]:
    """One Ray for the tests here, started by the first of them and stopped after the last."""
    patch = pytest.MonkeyPatch()
    patch.delenv("RAY_ADDRESS", raising=False)
    yield
    import ray

    ray.shutdown()
    patch.undo()


@needs_ray
@pytest.mark.usefixtures("_ray")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
class TestRay:
    def test_results_come_in_order(self) -> None:
        assert run(square, iter(range(100))) == [n * n for n in range(100)]
        assert run(square, []) == []

    @pytest.mark.long
    def test_a_hostile_item_costs_itself_only(self) -> None:
        orders = ["a", "segfault", "b", "abort", "c"]
        assert run(obey, orders) == ["a", "segfault: crashed", "b", "abort: out_of_memory", "c"]

    @pytest.mark.long
    def test_errors_of_the_work_reach_the_caller(self) -> None:
        with pytest.raises(ValueError, match="zero"):
            run(raise_on, [5, 4, 0, 6], workers=1)

    def test_nothing_listens_beyond_this_machine(self) -> None:
        assert run(square, [1, 2, 3], workers=1) == [1, 4, 9]
        found = set()
        for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
            try:
                found |= {c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
            except psutil.NoSuchProcess:
                continue
        assert found
        assert {ip for ip in found if not is_loopback(ip)} == set()

    @pytest.mark.long
    def test_probes_are_those_of_the_local_engine(self, clips: Path, tmp_path: Path) -> None:
        root = tmp_path / "raw"
        (root / "videos").mkdir(parents=True)
        for clip in sorted((clips / "videos").glob("*.mp4"))[:4]:
            (root / "videos" / clip.name).write_bytes(clip.read_bytes())
        (root / "videos" / "bad.mp4").write_bytes(b"no video at all")
        uris = [*sorted(f"videos/{path.name}" for path in (root / "videos").iterdir()), "videos/gone.mp4"]
        local = list(probe_all(uris, root, limits=DEFAULT_LIMITS, workers=2))
        assert [probe.reason for probe in local] == ["undecodable", "ok", "ok", "ok", "ok", "missing"]
        assert list(probe_all(uris, root, limits=DEFAULT_LIMITS, workers=2, engine="ray")) == local


def is_loopback(text: str) -> bool:
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def test_without_ray_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DataError, match=r"pip install 'coefvq\[ray\]'"):
        run(square, [1])
