"""What a worker might send that a clip has taken over: raw bytes into the pipe to its parent."""

from __future__ import annotations

import json
import os
import pickle
import struct
import sys
import threading
from pathlib import Path

_DEEP = b"[" * 100_000


class Payload:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path(self.mark),)


def framed(body: bytes, claimed: int | None = None) -> bytes:
    return struct.pack(">Q", len(body) if claimed is None else claimed) + body


def sent(kind: str, mark: str) -> bytes:
    """The bytes of one trick."""
    pickled = pickle.dumps(("value", Payload(mark)))
    return {
        "garbage": b"\xff" * 1000,
        # as multiprocessing frames what its other end is about to unpickle
        "pickle": struct.pack("!i", len(pickled)) + pickled,
        "pickle_framed": framed(b"v" + pickled),
        "giant": framed(b"v1", 2**62),
        "beyond": framed(b"v1", 2**25 + 1),
        "cut": framed(b"v1", 100),
        "cut_and_gone": framed(b"v1", 100),
        "dribble": struct.pack(">Q", 2**24),
        "ready": framed(b"r") * 10,
        "empty": framed(b""),
        "shape": framed(b'v{"a": [1]}'),
        "text": framed(b'v"1"'),
        "nested": framed(b"v" + _DEEP),
        "no_json": framed(b"v1}"),
        "error_name": framed(b"e" + json.dumps(["SystemExit", "x", ""]).encode()),
        "error_shape": framed(b"e" + json.dumps(["ValueError", 1]).encode()),
        "error_nested": framed(b"e" + _DEEP),
    }[kind]


def pipe() -> int:
    """The file descriptor that this worker answers through."""
    frame = sys._getframe()
    while "pipe" not in frame.f_locals:
        assert frame.f_back is not None
        frame = frame.f_back
    number: int = frame.f_locals["pipe"].fileno()
    return number


def misbehave(order: str) -> int:
    """Work for a limited pool: send what is asked for and never return; "good" is answered with 1."""
    if order == "good":
        return 1
    kind, _, mark = order.partition(" ")
    rest = memoryview(sent(kind, mark))
    while rest:
        rest = rest[os.write(pipe(), rest) :]
    if kind == "cut_and_gone":
        os._exit(0)
    while True:
        if kind == "dribble":
            os.write(pipe(), b"x")
        else:
            threading.Event().wait()
