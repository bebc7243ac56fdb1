"""examples/notify: a webhook is told when a flow run is suspended; real server, real automation, real HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from tests.integration.test_flow import BIN, free_port, healthy

Wait = Callable[[Callable[[], bool], float], None]
SUSPEND = """
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.states import Suspended

@flow(name="retrain")
def retrain(): ...

with get_client(sync_client=True) as client:
    run = client.create_flow_run(retrain, tags=["awaiting-icd-3"])
    client.set_flow_run_state(run.id, Suspended(timeout_seconds=600), force=True)
"""


@pytest.fixture
def posted() -> Iterator[tuple[str, list[str]]]:
    """Address of a webhook, and the texts it got."""
    texts: list[str] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            texts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/secret", texts
    server.shutdown()
    server.server_close()


@pytest.fixture
def environment(tmp_path: Path, wait_until: Wait) -> Iterator[dict[str, str]]:
    """A Prefect server of its own, as variables."""
    port = free_port()
    env = {**os.environ, "PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
    command = [str(BIN / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "log.txt").open("w") as log:
        child = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        wait_until(lambda: healthy(env["PREFECT_API_URL"]), 600)
        yield env
    finally:
        for process in [*psutil.Process(child.pid).children(recursive=True), psutil.Process(child.pid)]:
            process.kill()
        child.wait()


@pytest.mark.long  # a Prefect server and three clients of it: 30 s alone
def test_a_webhook_is_told_once_when_a_run_waits(
    environment: dict[str, str], posted: tuple[str, list[str]], repository: Path, wait_until: Wait
) -> None:
    address, texts = posted
    script = [sys.executable, str(repository / "examples" / "notify" / "webhook.py")]
    refused = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert (refused.returncode, "COEFVQ_WEBHOOK: not set" in refused.stderr) == (1, True)
    for _ in range(2):  # again: one automation, not two
        done = subprocess.run(
            script, env={**environment, "COEFVQ_WEBHOOK": address}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert address not in done.stdout + done.stderr
    run = subprocess.run([sys.executable, "-c", SUSPEND], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    wait_until(lambda: bool(texts), 240)
    assert len(texts) == 1
    assert "A pair waits for approval" in texts[0]
    assert "awaiting-icd-3" in texts[0]
