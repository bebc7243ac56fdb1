"""Names of workers, from which another one sees whether the process is still there."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path


def owner() -> str:
    """A name for a worker of this process: host, process, its start, and a random part."""
    pid = os.getpid()
    return f"{socket.gethostname()}:{pid}:{_started(pid)}:{secrets.token_hex(4)}"


def alive(name: str) -> bool:
    """Whether the process of ``name`` may still run; one on another host may."""
    parts = name.rsplit(":", 3)
    if len(parts) != 4 or parts[0] != socket.gethostname() or not parts[1].isdecimal():
        return True
    return _started(int(parts[1])) == parts[2]


def _started(pid: int) -> str:
    """Start of a process in ticks since boot, which tells it from a later one of the same number; '' if gone."""
    try:
        # the second field is the program's name in brackets, and may hold anything
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
