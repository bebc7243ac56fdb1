"""The retrain flow as a deployment: real server, real worker, a decision from the terminal, a kill -9."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest

from tasks.workspace import change_params, git
from tests.integration.conftest import Finished, Workspace
from tests.integration.test_retune import stream_with_labels

Wait = Callable[[Callable[[], bool], float], None]
BIN = Path(sys.executable).parent


@dataclass
class Server:
    """A Prefect server with one worker, both on loopback, and the workspace deployed to it."""

    workspace: Workspace
    env: dict[str, str]
    wait: Wait
    log: Path

    def prefect(self, *argv: str) -> str:
        return self.workspace.run(str(BIN / "prefect"), *argv, env=self.env).stdout

    def coefvq(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.workspace.run(sys.executable, "-m", "coefvq", *argv, check=check, env=self.env)

    def start(self, deployment: str, **parameters: object) -> UUID:
        given = [word for name, value in parameters.items() for word in ("--param", f"{name}={value}")]
        output = self.prefect("deployment", "run", deployment, *given)
        return next(
            UUID(word) for line in output.splitlines() if "UUID" in line for word in line.split() if len(word) == 36
        )

    def run(self, run: UUID) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.env['PREFECT_API_URL']}/flow_runs/{run}") as answer:  # noqa: S310 - loopback
            found: dict[str, Any] = json.load(answer)
        return found

    def state(self, run: UUID) -> str:
        return str(self.run(run)["state"]["name"])

    def tags(self, run: UUID) -> list[str]:
        return list(self.run(run)["tags"])

    def scheduled(self) -> str:
        """Start times of the runs that the server's scheduler has planned."""
        body = json.dumps({"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}).encode()
        url = f"{self.env['PREFECT_API_URL']}/flow_runs/filter"
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - loopback
        with urllib.request.urlopen(request) as answer:  # noqa: S310 - loopback
            return " ".join(run["expected_start_time"] for run in json.load(answer))

    def wait_for(self, run: UUID, *names: str) -> None:
        final = {"Completed", "Failed", "Crashed", "Cancelled"} - set(names)

        def arrived() -> bool:
            state = self.state(run)
            assert state not in final, f"{state}\n{self.log.read_text()[-6000:]}"
            return state in names

        self.wait(arrived, 240)

    def champion(self) -> str:
        rows = json.loads(self.coefvq("status", "--json").stdout)
        version: str = rows[0]["champion"]["version"]
        return version

    def commit(self, **changes: object) -> None:
        change_params(self.workspace.root / "params.yaml", {k.replace("__", "."): v for k, v in changes.items()})
        git(self.workspace.root, "commit", "--quiet", "--all", "--message", "Change settings")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def server(finished: Finished, tmp_path_factory: pytest.TempPathFactory, wait_until: Wait) -> Iterator[Server]:
    import shutil

    top = tmp_path_factory.mktemp("flow")
    shutil.copytree(finished.workspace.root, top / "w", symlinks=True)
    port = free_port()
    env = {
        "PREFECT_HOME": str(top / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
    }
    log = top / "log.txt"
    made = Server(Workspace(top / "w"), env, wait_until, log)
    children = []

    def spawn(*argv: str) -> None:
        path = os.pathsep.join([str(BIN), os.environ["PATH"]])
        with log.open("a") as sink:
            children.append(
                subprocess.Popen(
                    [str(BIN / "prefect"), *argv],
                    cwd=made.workspace.root,
                    env={**os.environ, **env, "PATH": path},
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    try:
        spawn("server", "start", "--host", "127.0.0.1", "--port", str(port))
        wait_until(lambda: healthy(env["PREFECT_API_URL"]), 60)
        made.prefect("work-pool", "create", "coefvq", "--type", "process")
        made.prefect("--no-prompt", "deploy", "--all")
        spawn("worker", "start", "--pool", "coefvq", "--type", "process")
        yield made
    finally:
        for child in reversed(children):
            for process in [*psutil.Process(child.pid).children(recursive=True), psutil.Process(child.pid)]:
                process.kill()
            child.wait()


def healthy(api: str) -> bool:
    try:
        with urllib.request.urlopen(f"{api}/health") as answer:  # noqa: S310 - loopback
            return bool(answer.status == 200)
    except OSError:
        return False


def test_the_schedule_makes_runs(server: Server) -> None:
    listed = server.prefect("deployment", "inspect", "retrain/nightly")
    assert "0 3 * * *" in listed
    server.wait(lambda: "T03:00:00" in server.scheduled(), 90)


@pytest.mark.long  # the commands themselves: registry/test_registry_cli.py
def test_approve_reject_rollback_from_the_terminal(server: Server) -> None:
    before = git(server.workspace.root, "status", "--porcelain")
    server.commit(thresholds__icd__views_trigger=1_000_000)
    run = server.start("retrain/nightly")
    server.wait_for(run, "Suspended")
    assert server.champion() == "1"
    # what is decided on was written down for the person, and kept with the pair; so was the champion's, by the demo
    page = Path(re.findall(r"icd: report file://(\S+)", server.log.read_text())[-1])
    assert "No clear difference from the served pair" in page.read_text(encoding="utf-8")
    # the workspace moves on while the run waits: it is the pair that was registered that is decided on
    server.commit(thresholds__icd__views_trigger=7)
    done = server.coefvq("approve", "--issue", "icd", "--by", "ana", "--reason", "escalates what is watched")
    assert f"flow run {run} was waiting" in done.stdout
    assert server.champion() == "2"
    server.wait_for(run, "Completed")
    assert not [tag for tag in server.tags(run) if tag.startswith("awaiting-")]
    assert json.loads(server.coefvq("status", "--json").stdout)[0]["challenger"] is None

    server.commit(thresholds__icd__views_trigger=5)
    second = server.start("retrain/nightly")
    server.wait_for(second, "Suspended")
    server.coefvq("reject", "--issue", "icd", "--by", "bo", "--reason", "would escalate nearly all")
    server.wait_for(second, "Completed")
    assert server.champion() == "2"

    server.coefvq("rollback", "--issue", "icd", "--by", "cy", "--reason", "too many calls")
    assert server.champion() == "1"
    decisions = json.loads(server.coefvq("history", "--json").stdout)
    assert [(d["action"], d["by"], d["reason"]) for d in decisions[1:]] == [
        ("approve", "ana", "escalates what is watched"),
        ("reject", "bo", "would escalate nearly all"),
        ("rollback", "cy", "too many calls"),
    ]
    assert all(d["at"] for d in decisions)
    # the runs worked in clones: the person's checkout shows nothing but what it showed before
    assert git(server.workspace.root, "status", "--porcelain") == before
    assert "retrain/" in git(server.workspace.root, "branch", "--list", "retrain/*")


@pytest.mark.long
def test_new_thresholds_wait_for_a_decision_as_a_new_pair_does(server: Server) -> None:
    stream_with_labels(server.workspace)
    before = server.champion()
    run = server.start("retune/fresh-labels", issue="icd", labels="labels.csv", qps=30)
    server.wait_for(run, "Suspended")
    assert server.champion() == before
    server.coefvq("approve", "--issue", "icd", "--by", "ana", "--reason", "present traffic")
    server.wait_for(run, "Completed")
    assert server.champion() != before


@pytest.mark.long
def test_killed_at_several_stages_and_started_again(server: Server) -> None:
    """kill -9 in the middle of a stage, start again, three times: what was finished is not done again."""
    server.commit(seed=6)
    code = "from flows.retrain import retrain; retrain('.', wait_for_approval=False)"
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    started: list[str] = []

    def run_until(stage: str | None) -> int:
        """Run the flow, to the line that says ``stage`` is running or to the end; returns the exit code."""
        with subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=server.workspace.root,
            env={**os.environ, **server.env, "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as flow:
            for line in flow.stdout or ():
                if "Running stage '" in line:
                    started.append(line.split("Running stage '")[1].split("'")[0])
                    if started[-1] == stage:
                        flow.send_signal(signal.SIGKILL)
                        break
        return flow.returncode

    killed = ("split", "train-mllm@icd", "thresholds@icd")
    for stage in killed:
        assert run_until(stage) == -signal.SIGKILL
    assert run_until(None) == 0
    again = [stage for stage in set(started) if started.count(stage) > 1]
    assert set(again) <= set(killed)
    assert {"split", "train-base@icd", "predict@icd", "candidate@icd"} <= set(started)
    assert json.loads(server.coefvq("status", "--json").stdout)[0]["challenger"] is not None
