"""Frames between a limited worker and its parent: eight bytes of length, then the body.

The parent's end takes what a worker says as it comes and waits for none of it: a worker that opened a stranger's
file may have been taken over by it, and may send half a frame, or no end of one.
"""

from __future__ import annotations

import os
import select
import struct
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

#: bytes of one frame that a parent is willing to hold
MAX_ANSWER = 32 * 2**20
_HEAD = struct.Struct(">Q")
_CHUNK = 2**18


def read_frame(pipe: Connection) -> bytes:
    """Worker's end: wait for the next request.

    Raises:
        EOFError: the parent hung up.
    """
    [size] = _HEAD.unpack(_exactly(pipe, _HEAD.size))
    return _exactly(pipe, size)


def write_frame(pipe: Connection, body: bytes) -> None:
    """Worker's end: send an answer."""
    rest = memoryview(_HEAD.pack(len(body)) + body)
    while rest:
        rest = rest[os.write(pipe.fileno(), rest) :]


def _exactly(pipe: Connection, size: int) -> bytes:
    held = bytearray()
    while len(held) < size:
        piece = os.read(pipe.fileno(), min(size - len(held), _CHUNK))
        if not piece:
            raise EOFError
        held += piece
    return bytes(held)


class ParentEnd:
    """The parent's end: no call waits for the worker, but for ``send`` up to its limit."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self._held = bytearray()
        os.set_blocking(pipe.fileno(), False)

    def send(self, body: bytes, seconds: float) -> bool:
        """Whether there was still somebody at the other end who took it within ``seconds``."""
        rest, deadline = memoryview(_HEAD.pack(len(body)) + body), time.monotonic() + seconds
        room = select.poll()
        room.register(self.pipe.fileno(), select.POLLOUT)
        while rest:
            try:
                rest = rest[os.write(self.pipe.fileno(), rest) :]
            except BlockingIOError:
                if not room.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    return False
            except OSError:
                return False
        return True

    def receive(self) -> bool:
        """Take what is there, at most a chunk; whether anything was.

        Raises:
            EOFError: the worker's end is closed.
        """
        try:
            piece = os.read(self.pipe.fileno(), _CHUNK)
        except BlockingIOError:
            return False
        except OSError as error:
            raise EOFError from error
        if not piece:
            raise EOFError
        self._held += piece
        return True

    def frames(self) -> Iterator[bytes]:
        """Those that are complete by now.

        Raises:
            ValueError: one is longer than ``MAX_ANSWER``.
        """
        return iter(self._next, None)

    def _next(self) -> bytes | None:
        if len(self._held) < _HEAD.size:
            return None
        [size] = _HEAD.unpack_from(self._held)
        if size > MAX_ANSWER:
            raise ValueError(f"a frame of {size} bytes")
        end = _HEAD.size + size
        if len(self._held) < end:
            return None
        body = bytes(self._held[_HEAD.size : end])
        del self._held[:end]
        return body
