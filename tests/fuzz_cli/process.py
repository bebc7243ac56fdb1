"""One command in a forked child: as ``python -m coefvq`` would run it, without its 2 to 5 seconds of imports.

The parent imports coefvq and its heavy libraries once and stays single-threaded; each command is a fork of it.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tests.fuzz_cli.watch import Idle, resident_mib, watch

_FILE_LIMIT = 2 * 2**30  # bytes of any file that a command may write
_MEMORY_MIB = 2048.0  # above it a command is killed before the machine suffers; the judge's limit is lower
_IDLE_SECONDS = 25.0
_READ_CHUNK = 2**20  # of an output; a command that prints more has other problems


@dataclass(frozen=True)
class Outcome:
    """What a command did; ``code`` is negative for a signal, None for a command that had to be killed."""

    code: int | None
    stdout: str
    stderr: str
    seconds: float
    peak_mib: float
    events: tuple[str, ...]

    @property
    def hung(self) -> bool:
        return self.code is None


def run_forked(
    argv: Sequence[str],
    cwd: Path,
    scratch: Path,
    *,
    allowed: Path,
    env: Mapping[str, str | None],
    wall_seconds: float,
    entry: Callable[[], None] | None = None,
    inside: Callable[[Path], None] | None = None,
) -> Outcome:
    """``coefvq ARGV`` in a child of this process; its output and events pass through files in ``scratch``.

    ``inside`` runs in the child before the command; ``entry`` runs instead of coefvq's main, for planted faults.
    """
    files = {name: scratch / name for name in ("stdout", "stderr", "events")}
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        _command(argv, cwd, files, allowed, env, entry, inside)
    return _outcome(child, files, start, wall_seconds)


def run_spawned(
    argv: Sequence[str],
    cwd: Path,
    scratch: Path,
    *,
    env: Mapping[str, str | None],
    wall_seconds: float,
) -> Outcome:
    """The same as a process of its own, for what only a fresh interpreter shows (environment, DVC, Prefect)."""
    files = {name: scratch / name for name in ("stdout", "stderr", "events")}
    files["events"].write_text("")
    start = time.monotonic()
    with files["stdout"].open("wb") as out, files["stderr"].open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "coefvq", *argv],
            cwd=cwd,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    return _outcome(process.pid, files, start, wall_seconds)


def environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    """This process's environment with ``changes``; None removes a variable."""
    merged = {**os.environ, **{name: value for name, value in changes.items() if value is not None}}
    return {name: value for name, value in merged.items() if changes.get(name, "") is not None}


def _outcome(child: int, files: Mapping[str, Path], start: float, wall_seconds: float) -> Outcome:
    """Wait for the command, or kill it: too long, too idle, too large."""
    pause, memory, idle = 0.002, 0.0, Idle(child)
    while True:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        if pid:
            code: int | None = os.waitstatus_to_exitcode(status)
            break
        memory = max(memory, resident_mib(child))
        now = time.monotonic()
        if memory > _MEMORY_MIB or now > start + wall_seconds or idle.seconds(now) > min(_IDLE_SECONDS, wall_seconds):
            _kill(child)
            _, _, usage = os.wait4(child, 0)
            code = -signal.SIGKILL if memory > _MEMORY_MIB else None
            break
        time.sleep(pause)
        pause = min(0.05, pause * 1.5)
    _kill(child)  # what it left behind in its group
    return Outcome(
        code,
        _text(files["stdout"]),
        _text(files["stderr"]),
        time.monotonic() - start,
        max(memory, usage.ru_maxrss / 1024),
        tuple(dict.fromkeys(_text(files["events"]).splitlines())),
    )


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(_READ_CHUNK).decode("utf-8", "backslashreplace")
    except OSError:
        return ""


def _command(
    argv: Sequence[str],
    cwd: Path,
    files: Mapping[str, Path],
    allowed: Path,
    env: Mapping[str, str | None],
    entry: Callable[[], None] | None,
    inside: Callable[[Path], None] | None,
) -> NoReturn:
    """The child's whole life; never returns into the parent's code."""
    code = 70
    try:
        os.setsid()
        _redirect(files)
        changed = environment(env)
        os.environ.clear()
        os.environ.update(changed)
        tempfile.tempdir = None
        os.chdir(cwd)
        if inside is not None:
            inside(cwd)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _limit_files()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        main = sys.modules.get("coefvq.__main__")
        if main is not None:
            sys.modules["__main__"] = main  # what a spawned worker imports
        sys.argv = [str(Path(main.__file__ or "coefvq")) if main else "coefvq", *argv]
        watch(files["events"], allowed)
        code = _exit_code(entry or main.main)  # type: ignore[union-attr]
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
        with contextlib.suppress(BaseException):
            sys.stderr.flush()
        os._exit(code)


def _limit_files() -> None:
    """Bound what a command may write to one file; the hard limit stays, as limited workers set one of their own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if soft == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_LIMIT, hard))


def _exit_code(main: Callable[[], None]) -> int:
    """What the interpreter would make of ``main``, exit handlers included."""
    try:
        main()
        code: Any = 0
    except SystemExit as error:
        code = error.code
    except BaseException:  # noqa: BLE001 - the interpreter prints whatever comes
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if code is None:
        return 0
    if not isinstance(code, int):
        print(code, file=sys.stderr)
        return 1
    return code & 0xFF


def _redirect(files: Mapping[str, Path]) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    for number, name in ((1, "stdout"), (2, "stderr")):
        target = os.open(files[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        os.dup2(target, number)
        os.close(target)
    # as a fresh interpreter has them under a UTF-8 locale with output to a file
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = io.TextIOWrapper(open(1, "wb", closefd=False), encoding="utf-8")  # noqa: SIM115
    sys.stderr = io.TextIOWrapper(
        open(2, "wb", buffering=0, closefd=False),  # noqa: SIM115
        encoding="utf-8",
        errors="backslashreplace",
        write_through=True,
    )
