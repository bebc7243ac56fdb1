"""``python -m tasks.cell_host FOLDER...``: runs cells one after the other, each in a fork that has all imports done.

Importing the libraries takes longer than a small training. So a host imports them once and forks for each cell, which
starts from the same clean state every time. Hosts with the same list share its cells: who holds a folder's lock runs
it. The fork inherits the lock, so that a cell is never run twice, even when its host was killed. The list names
a cell after the one whose model it needs.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from filelock import FileLock, Timeout

from coefvq.errors import DataError
from coefvq.faults import explained
from coefvq.files import read_json, write_json
from coefvq.stages import STAGES
from coefvq.terminal import echo, protect, say
from tasks.cell_files import FAILURE, LOCK, LOG, is_done

_POLL = 0.1
#: what a cell would import otherwise
_HEAVY = ("mlflow", "sklearn.ensemble", "transformers.trainer", "peft")


def main(folders: Sequence[Path]) -> int:
    """Run what is not done and not taken; a line on stdout for each cell: ``done NAME`` or ``failed NAME``."""
    protect()
    for name in (*_HEAVY, *(stage.module for stage in STAGES), "tasks.cell_run"):
        import_module(name)
    parent = os.getppid()
    for folder in folders:
        cell = read_json(folder / "cell.json")
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue  # another host has it
        with lock:
            if not is_done(folder, cell["key"]):
                (folder / FAILURE).unlink(missing_ok=True)
                reason = _source_failed(folder, cell["source"]) or _forked(folder, lambda: os.getppid() == parent)
                if reason is not None and not (folder / FAILURE).is_file():
                    write_json(folder / FAILURE, {"reason": reason, "exit_code": 1})
            echo(f"{'done' if is_done(folder, cell['key']) else 'failed'} {cell['name']}")
            sys.stdout.flush()
    return 0


def _source_failed(folder: Path, source: str | None) -> str | None:
    """Wait for the cell whose model is needed, which another host may be training; why there is none."""
    if source is None:
        return None
    place = folder.parent / source
    with FileLock(place / LOCK):
        if is_done(place, read_json(place / "cell.json")["key"]):
            return None
    try:
        reason = read_json(place / FAILURE)["reason"]
    except (DataError, KeyError):
        reason = "it has no result"
    return f"the cell whose model it needs failed: {reason}"


def _forked(folder: Path, wanted: Callable[[], bool]) -> str | None:
    """Run the cell in a fork; why it did not end by itself. The fork is killed when nobody ``wanted`` it any more."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = _in_the_fork(folder)
        finally:
            os._exit(code)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if not wanted():
            os.kill(child, signal.SIGKILL)
            os._exit(1)
        time.sleep(_POLL)
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return None
    return f"its process was ended by signal {-code}" if code < 0 else f"its process ended with code {code}; see {LOG}"


def _in_the_fork(folder: Path) -> int:
    from tasks.cell_run import run_cell

    # a host that is killed must not leave its fork behind
    _end_with(os.getppid())
    with (folder / LOG).open("a", encoding="utf-8") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())
        try:
            run_cell(folder)
        except Exception as error:  # noqa: BLE001  whatever it was, the other cells go on
            ours = explained(error)
            say(f"error: {ours}")
            write_json(folder / FAILURE, {"reason": str(ours), "exit_code": ours.exit_code})
            return ours.exit_code
        finally:
            sys.stdout.flush()
    return 0


def _end_with(parent: int) -> None:
    import threading

    def watch() -> None:
        pause = threading.Event()
        while os.getppid() == parent:
            pause.wait(0.5)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main([Path(name) for name in sys.argv[1:]]))
