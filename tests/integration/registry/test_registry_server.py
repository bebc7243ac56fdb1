"""The same over HTTP: a real MLflow tracking server that also keeps the artifacts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from coefvq.errors import RegistryError
from coefvq.files import sha256_tree
from coefvq.registry import pair_files, release, tracking
from tests.integration.registry.registry_workspace import Workspace, challenger, champion, train


@pytest.fixture
def server(empty_database: Path, isolated: Path) -> Iterator[str]:
    """Address of a tracking server with a database and a folder of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = isolated / "server"
    folder.mkdir()
    (folder / "mlflow.db").write_bytes(empty_database.read_bytes())
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "artifacts"]
    # without the workers for MLflow's background jobs, which these tests do not use
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment = {**os.environ, **quiet, "MLFLOW_LOGGING_LEVEL": "INFO"}
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        drain = threading.Thread(target=process.stdout.read)
        try:
            _wait(process.stdout)
            drain.start()
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            if drain.ident is not None:
                drain.join()


def _wait(output: IO[str]) -> None:
    said = []
    for line in output:
        said.append(line)
        if "Application startup complete" in line:
            return
    pytest.fail("the tracking server did not start:\n" + "".join(said))


def test_a_release_over_a_tracking_server(server: str, isolated: Path) -> None:
    tracking.configure(server, "coefvq")
    workspace = Workspace(isolated, {("icd", seed): train(isolated, seed, "icd") for seed in (1, 2)})
    workspace.approve(1)
    assert not workspace.register(1).created
    workspace.approve(2)
    bundle = pair_files.resolve("icd")
    assert bundle.version == "2"
    assert bundle.base_dir.is_relative_to(isolated / "cache" / "coefvq" / "models")
    assert sha256_tree(bundle.base_dir) == bundle.candidate.base.sha256
    assert pair_files.resolve("icd") == bundle
    assert release.rollback("icd", "bo", "worse").to_version == "1"
    assert (champion(), challenger()) == ("1", None)
    assert [(item.action, item.version, item.state) for item in release.history("icd")] == [
        ("approve", "1", "done"),
        ("approve", "2", "done"),
        ("rollback", "1", "done"),
    ]
    assert tracking.store().lock.is_relative_to(isolated / "cache")
    # the cache is verified like everything else
    (bundle.base_dir / "config.json").write_text("{}")
    with pytest.raises(RegistryError, match="the files were changed"):
        pair_files.resolve("icd", "2")
