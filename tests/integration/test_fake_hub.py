"""Eight processes that need the same weights: one download, from a hub of our own on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "c0ffee" + "0" * 34
FILES = {"config.json": b'{"hidden_size": 8}', "model.safetensors": bytes(range(256)) * 64}
FETCH = f"""
import sys
from pathlib import Path
from coefvq.models.weights.fetch import fetch
from coefvq.models.weights.sources import source_from
print("ready", flush=True)
sys.stdin.readline()
print(fetch(source_from({{"hub": "someone/model", "revision": "{COMMIT}"}}, "weights.onevision", Path())))
"""


class _Hub(BaseHTTPRequestHandler):
    """What ``huggingface_hub`` asks of the hub for a snapshot."""

    seen: Counter[str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        name = self.path.partition("?")[0]
        if name == f"/api/models/someone/model/tree/{COMMIT}":
            tree = [{"type": "file", "path": file, "size": len(FILES[file]), "oid": "0" * 40} for file in FILES]
            self._send(json.dumps(tree).encode(), "application/json", body)
        elif name.startswith("/api/models/someone/model"):
            listing = {"id": "someone/model", "sha": COMMIT, "siblings": [{"rfilename": file} for file in FILES]}
            self._send(json.dumps(listing).encode(), "application/json", body)
        elif (file := name.removeprefix(f"/someone/model/resolve/{COMMIT}/")) in FILES:
            if body:
                self.seen[file] += 1
            self._send(FILES[file], "application/octet-stream", body)
        else:
            self.send_error(404)

    def _send(self, content: bytes, kind: str, body: bool) -> None:
        self.send_response(200)
        etag = hashlib.sha256(content).hexdigest()
        for header, value in {
            "Content-Type": kind, "Content-Length": str(len(content)), "ETag": f'"{etag}"', "X-Repo-Commit": COMMIT,
        }.items():  # fmt: skip
            self.send_header(header, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[tuple[str, Counter[str]]]:
    counter: Counter[str] = Counter()
    kind = type("Counting", (_Hub,), {"seen": counter})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", counter
    server.shutdown()
    server.server_close()


@pytest.mark.long
def test_eight_processes_download_once(hub: tuple[str, Counter[str]], tmp_path: Path, repository: Path) -> None:
    endpoint, downloads = hub
    environment = {
        **os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "COEFVQ_WEIGHTS": str(tmp_path / "weights"),
        "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(repository), "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", FETCH], cwd=tmp_path, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for _ in range(8)
    ]  # fmt: skip
    for process in processes:  # all have started before the first may ask
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    folders = {process.communicate(timeout=300)[0].strip() for process in processes}
    assert len(folders) == 1
    assert downloads == Counter(dict.fromkeys(FILES, 1))
    folder = Path(folders.pop())
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert json.loads((folder / "source.json").read_text())["origin"] == f"hub:someone/model@{COMMIT}"
