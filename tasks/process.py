"""Child processes that stream their output and never outlive the run that started them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TAIL_LINES = 40
_GRACE_SECONDS = 5.0


@dataclass(frozen=True)
class Finished:
    """Exit code and the last lines of output (stdout and stderr together)."""

    returncode: int
    tail: tuple[str, ...]


class ProcessGroups:
    """Children of this process, each in a group of its own, so that all of a child's children end with it."""

    def __init__(self) -> None:
        self._running: dict[int, subprocess.Popen[str]] = {}
        self._lock = threading.Lock()

    def run(
        self,
        argv: Sequence[str],
        cwd: Path,
        env: Mapping[str, str],
        on_line: Callable[[str], None] = lambda _: None,
    ) -> Finished:
        """Run to the end, handing over each line; the group is killed if the caller is interrupted."""
        process = subprocess.Popen(
            list(argv),
            cwd=cwd,
            env={**os.environ, **env, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        with self._lock:
            self._running[process.pid] = process
        tail: deque[str] = deque(maxlen=_TAIL_LINES)
        try:
            for line in process.stdout or ():
                if text := line.rstrip():
                    tail.append(text)
                    on_line(text)
            return Finished(process.wait(), tuple(tail))
        finally:
            _end(process)
            if process.stdout:
                process.stdout.close()
            with self._lock:
                del self._running[process.pid]

    def terminate(self) -> None:
        """End every running group; a run that is being cancelled calls this."""
        with self._lock:
            running = list(self._running.values())
        for process in running:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(timeout=_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        return


CHILDREN = ProcessGroups()
