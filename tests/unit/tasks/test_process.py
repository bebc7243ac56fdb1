"""Child processes: streamed output, exit codes, and no orphans."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import psutil
import pytest

from tasks.process import ProcessGroups

#: starts a grandchild, tells its pid, waits for ever
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
print(child.pid, flush=True)
child.wait()
"""


def test_lines_arrive_and_the_exit_code_is_kept(tmp_path: Path) -> None:
    lines: list[str] = []
    code = "import sys; print('one'); print('two', file=sys.stderr); sys.exit(3)"
    done = ProcessGroups().run([sys.executable, "-c", code], tmp_path, {}, lines.append)
    assert sorted(lines) == ["one", "two"]
    assert done.returncode == 3
    assert set(done.tail) == {"one", "two"}


def test_terminate_ends_children_and_grandchildren(tmp_path: Path) -> None:
    groups, started, pids = ProcessGroups(), threading.Event(), []

    def on_line(line: str) -> None:
        pids.append(int(line))
        started.set()

    runner = threading.Thread(target=groups.run, args=([sys.executable, "-c", PARENT], tmp_path, {}, on_line))
    runner.start()
    assert started.wait(30)
    groups.terminate()
    runner.join(30)
    assert not runner.is_alive()
    assert gone(pids[0])


def gone(pid: int) -> bool:
    """Whether a process has ended, or ends within some seconds of the signal that was sent to it."""
    try:
        psutil.Process(pid).wait(timeout=10)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def test_an_interrupted_caller_leaves_nothing_running(tmp_path: Path) -> None:
    pids: list[int] = []

    def on_line(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ProcessGroups().run([sys.executable, "-c", PARENT], tmp_path, {}, on_line)
    assert pids
    assert gone(pids[0])
