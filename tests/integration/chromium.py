"""Headless Chromium over its DevTools protocol: what a page logs, requests and measures."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from websockets.sync.client import ClientConnection, connect

BINARY = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_START_SECONDS = 60.0
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--remote-debugging-port=0",
)


@dataclass
class Visit:
    """What one page did: messages of level error or warning, addresses it asked for by request id, and measures.

    ``blocked`` are those of the addresses that its own Content-Security-Policy stopped.
    """

    errors: list[str] = field(default_factory=list)
    requests: dict[str, str] = field(default_factory=dict)
    blocked: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def external(self) -> list[str]:
        """Requests for anything but the page's own file and data URLs."""
        return [url for url in self.requests.values() if not url.startswith(("data:", "file:"))]


@dataclass
class _Tab:
    socket: ClientConnection
    visit: Visit
    loaded: bool = False
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv(timeout=_START_SECONDS))
            if message.get("id") == number:
                assert "error" not in message, message
                return dict(message["result"])
            self._note(message)

    def wait_loaded(self) -> None:
        while not self.loaded:
            self._note(json.loads(self.socket.recv(timeout=_START_SECONDS)))

    def _note(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self.loaded = True
            case "Network.requestWillBeSent":
                self.visit.requests[params["requestId"]] = params["request"]["url"]
            case "Network.loadingFailed" if params.get("blockedReason") == "csp":
                self.visit.blocked.append(self.visit.requests[params["requestId"]])
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.visit.errors.append(params["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.visit.errors.append(params["exceptionDetails"]["text"])
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning"):
                self.visit.errors.append(str(params["args"]))


@contextmanager
def chromium(profile: Path) -> Iterator[str]:
    """A running browser; yields the address of its DevTools."""
    process = subprocess.Popen(
        [str(BINARY), *_FLAGS, f"--user-data-dir={profile}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        port_file = profile / "DevToolsActivePort"
        end = time.monotonic() + _START_SECONDS
        while not (port_file.is_file() and port_file.read_text().strip()):
            assert process.poll() is None, "chromium ended at its start"
            assert time.monotonic() < end, "chromium did not start"
            time.sleep(0.05)
        yield f"127.0.0.1:{port_file.read_text().split()[0]}"
    finally:
        process.kill()
        process.wait()


def visit(address: str, page: Path, width: int, measures: dict[str, str], picture: Path | None = None) -> Visit:
    """Open a file at a width in CSS pixels, evaluate expressions in it, optionally take a picture of all of it."""
    # a tab of its own: a used one tells again what the page before it logged
    with urlopen(Request(f"http://{address}/json/new", method="PUT")) as answer:
        found = json.load(answer)
    with connect(found["webSocketDebuggerUrl"], max_size=None) as socket:
        tab = _Tab(socket, Visit())
        for domain in ("Page", "Network", "Log", "Runtime"):
            tab.call(f"{domain}.enable")
        tab.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 700)
        tab.call("Page.navigate", url=page.as_uri())
        tab.wait_loaded()
        for name, expression in measures.items():
            result = tab.call("Runtime.evaluate", expression=expression, returnByValue=True)
            tab.visit.values[name] = result["result"].get("value")
        if picture is not None:
            shot = tab.call("Page.captureScreenshot", captureBeyondViewport=True)
            picture.write_bytes(base64.b64decode(shot["data"]))
        return tab.visit
