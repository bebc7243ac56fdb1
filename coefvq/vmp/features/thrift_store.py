"""A feature service that speaks features.thrift, over connections that are kept.

A connection is used again only after an answer that was read to its end. After any error it is dropped: it may still
hold the answer to the question before (thriftpy2 issue 130), and the next caller would take it for its own.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import resources
from queue import Empty, Full, LifoQueue
from typing import Any

from coefvq.errors import ConfigError
from coefvq.vmp.features.values import StoreError

#: bytes of one answer; more is garbage
LARGEST_ANSWER = 16 * 2**20
_PIECE = 2**16


@cache
def protocol() -> Any:
    """The module that thriftpy2 makes of features.thrift.

    Raises:
        ConfigError: thriftpy2 is not installed.
    """
    try:
        import thriftpy2
    except ImportError as error:
        raise ConfigError("kind: thrift needs thriftpy2: pip install 'coefvq[thrift]'") from error
    with resources.as_file(resources.files("coefvq.vmp.features").joinpath("features.thrift")) as path:
        return thriftpy2.load(str(path), module_name="coefvq_features_thrift")


class _Wire:
    """A socket as thriftpy2 wants it, with an end in time and in bytes for each answer."""

    def __init__(self, host: str, port: int) -> None:
        self._place = (host, port)
        self._socket: socket.socket | None = None
        self._end, self._left = 0.0, 0

    def allow(self, end: float) -> None:
        """Begin a question that has to be answered before ``end``, by the monotonic clock."""
        self._end, self._left = end, LARGEST_ANSWER

    def is_open(self) -> bool:
        return self._socket is not None

    def is_quiet(self) -> bool:
        """Whether the connection stands and holds no byte that nobody asked for."""
        if self._socket is None:
            return False
        look = select.poll()
        look.register(self._socket, select.POLLIN)
        return not look.poll(0)

    def open(self) -> None:
        self._socket = socket.create_connection(self._place, timeout=self._seconds())
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read(self, size: int) -> bytes:
        room = bytearray(min(size, _PIECE))
        piece = bytes(room[: self._ready().recv_into(room)])
        self._left -= len(piece)
        if not piece:
            raise ConnectionError("the service closed the connection")
        if self._left < 0:
            raise StoreError(f"an answer of more than {LARGEST_ANSWER} bytes", temporary=False)
        return piece

    def write(self, data: bytes) -> None:
        self._ready().sendall(data)

    def flush(self) -> None:
        """All is sent at once."""

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ready(self) -> socket.socket:
        if self._socket is None:
            raise ConnectionError("the connection is closed")
        self._socket.settimeout(self._seconds())
        return self._socket

    def _seconds(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


class _Line:
    """One connection and its client."""

    def __init__(self, host: str, port: int) -> None:
        from thriftpy2.protocol.binary import TBinaryProtocol
        from thriftpy2.thrift import TClient
        from thriftpy2.transport.buffered import TBufferedTransport

        self.wire = _Wire(host, port)
        self.client = TClient(protocol().Features, TBinaryProtocol(TBufferedTransport(self.wire)))


class ThriftStore:
    """A service at ``host:port``; up to ``pool`` idle connections are kept."""

    def __init__(self, name: str, host: str, port: int, pool: int) -> None:
        self._name, self._place = name, (host, port)
        self._thrift = protocol()
        self._idle: LifoQueue[_Line] = LifoQueue(pool)

    def fetch(self, keys: Sequence[str], seconds: float) -> Mapping[str, Any]:
        """Ask the service about ``keys``.

        Raises:
            StoreError: no whole answer in time, a refusal, or no answer of this protocol.
        """
        end = time.monotonic() + seconds
        line = self._idle_line() or _Line(*self._place)
        try:
            answer = self._ask(line, keys, end)
            self._idle.put_nowait(line)
        except Full:
            line.wire.close()
        except BaseException:
            line.wire.close()
            raise
        return answer

    def close(self) -> None:
        """Close the idle connections."""
        with suppress(Empty):
            while True:
                self._idle.get_nowait().wire.close()

    def _idle_line(self) -> _Line | None:
        """A connection that the service did not close meanwhile, None where there is none."""
        with suppress(Empty):
            while True:
                line = self._idle.get_nowait()
                if line.wire.is_quiet():
                    return line
                line.wire.close()
        return None

    def _ask(self, line: _Line, keys: Sequence[str], end: float) -> dict[str, dict[str, Any]]:
        place = ":".join(map(str, self._place))
        try:
            line.wire.allow(end)
            if not line.wire.is_open():
                line.wire.open()
            answer = line.client.fetch(self._name, list(keys))
            return {key: {field: _plain(value) for field, value in row.items()} for key, row in answer.items()}
        except self._thrift.Refused as error:
            raise StoreError(f"{place}: refused ({error.reason!s:.200})", temporary=False) from error
        except StoreError:
            raise
        except OSError as error:
            raise StoreError(f"{place}: {error}") from error
        except Exception as error:
            # whatever bytes came: the decoder meets them with errors of many types
            problem = f"{type(error).__name__}: {error}"
            raise StoreError(f"{place}: no answer of features.thrift ({problem:.200})", temporary=False) from error


def _plain(value: Any) -> Any:
    """The one field that is set; several are no value of any type, and none is no value."""
    given = [one for one in (value.flag, value.number, value.text) if one is not None]
    return given if len(given) > 1 else next(iter(given), None)
