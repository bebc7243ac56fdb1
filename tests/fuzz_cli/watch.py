"""What a command does while it runs: idleness and memory from outside, writes and connections from inside."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import Any


class Idle:
    """How long no process of a command's session has used the CPU: it waits for something that does not come."""

    def __init__(self, session: int) -> None:
        self._session, self._ticks, self._since, self._next = session, -1, 0.0, 0.0

    def seconds(self, now: float) -> float:
        if now >= self._next:
            self._next = now + 1.0
            ticks = sum(_ticks(path, self._session) for path in Path("/proc").iterdir() if path.name.isdigit())
            if ticks != self._ticks:
                self._ticks, self._since = ticks, now
        return now - self._since


def _ticks(process: Path, session: int) -> int:
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12]) if int(fields[3]) == session else 0


def resident_mib(pid: int) -> float:
    """Memory of a process, 0 when it has ended."""
    try:
        return int(Path("/proc", str(pid), "statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    except (OSError, IndexError):
        return 0.0


_WRITES = {
    "os.mkdir": (0,),
    "os.rename": (0, 1),
    "os.link": (1,),
    "os.symlink": (1,),
    "os.remove": (0,),
    "os.rmdir": (0,),
    "os.truncate": (0,),
    "os.chmod": (0,),
    "os.utime": (0,),
}
_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def _other_temporary_folders() -> tuple[str, ...]:
    """Where Python itself turns to if TMPDIR names no folder, and what it tries first."""
    named = os.environ.get("TMPDIR", "")
    return () if Path(named).is_dir() else tuple(os.path.realpath(at) + os.sep for at in (named, "/tmp", "/var/tmp"))  # noqa: S108


def watch(events: Path, allowed: Path) -> None:
    """Note writes outside ``allowed`` and connections, as far as Python's own calls make them."""
    log = os.open(events, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    owner = os.getpid()
    roots = (os.path.realpath(allowed) + os.sep, *_other_temporary_folders())

    def note(text: str) -> None:
        os.write(log, (text.replace("\n", " ")[:400] + "\n").encode("utf-8", "backslashreplace"))

    def check(event: str, path: Any) -> None:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return
        name = os.path.realpath(os.fsdecode(path))
        # numba keeps what it compiles beside the source
        harmless = name.startswith(("/dev/", "/proc/")) or "/__pycache__" in name
        if not harmless and not (name + os.sep).startswith(roots):
            note(f"{event} {name}")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if os.getpid() != owner:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _FLAGS:
                check("open", path)
        elif event in _WRITES:
            for index in _WRITES[event]:
                check(event, arguments[index])
        elif event == "socket.connect" and isinstance(arguments[1], tuple):
            note(f"connect {arguments[1]}")

    sys.addaudithook(hook)
