"""A real web server on the loopback interface that serves a folder, counts requests, and misbehaves on demand."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class ClipServer:
    """``hits`` counts GETs by path, ``requests`` all; a path in ``held`` is answered once its event is set.

    ``answers`` gives a path a status and headers of its own.
    """

    folder: Path
    hits: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    answers: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    held: dict[str, threading.Event] = field(default_factory=dict)
    waiting: threading.Event = field(default_factory=threading.Event)
    port: int = 0
    etags: bool = True

    def url(self, path: str, user: str = "") -> str:
        """Address of a file; ``/to/<url>`` redirects there, ``/cut/<file>`` breaks off, ``/<status>`` fails."""
        return f"http://{user}127.0.0.1:{self.port}/{path}"


class _Handler(BaseHTTPRequestHandler):
    state: ClipServer

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self.state.hits[self.path] += 1
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        self.state.requests[f"{self.command} {self.path}"] += 1
        path = self.path.split("?")[0].removeprefix("/")
        if path in self.state.held and body:
            self.state.waiting.set()
            self.state.held[path].wait(60)
        file = self.state.folder / path.removeprefix("cut/")
        if path in self.state.answers:
            status, headers = self.state.answers[path]
            self._head(status, b"", headers)
        elif path.startswith("to/"):
            self._head(302, b"", {"Location": path.removeprefix("to/")})
        elif path.isdigit():
            self._head(int(path), b"")
        elif not file.is_file():
            self._head(404, b"")
        else:
            data = file.read_bytes()
            self._head(200, data, {"ETag": hashlib.sha256(data).hexdigest()} if self.state.etags else {})
            if body:
                self.wfile.write(data[: len(data) // 2] if path.startswith("cut/") else data)

    def _head(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def handle(self) -> None:
        with suppress(ConnectionError):  # a client that has seen enough
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[ClipServer]:
    """Serve ``folder`` until the block ends."""
    state = ClipServer(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": state}))
    server.daemon_threads = True
    state.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        for event in state.held.values():
            event.set()
        server.shutdown()
        server.server_close()
        thread.join()
