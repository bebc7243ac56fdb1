"""examples/vmp: the script that starts Kafka, PostgreSQL, Redis and the Thrift service, and runs the VMP on them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from coefvq.vmp.configuration import load_configuration
from tests.integration.conftest import Finished, Workspace

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "vmp"


@pytest.mark.parametrize("source", ["kafka", "table"])
def test_the_script_brings_all_clips_into_the_index(
    workspace: Workspace, finished: Finished, repository: Path, source: str
) -> None:
    clips, script = finished.data, [sys.executable, "-m", "examples.vmp.local"]
    done = subprocess.run(
        [*script, "--workspace", workspace.root, "--clips", clips, "--source", source],
        cwd=repository, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    # "$ coefvq vmp WORD …", then its answer
    answers = {part.split(maxsplit=1)[0]: part.partition("\n")[2] for part in done.stdout.split("$ coefvq vmp ")[1:]}
    assert "WRONG" not in answers["check"]
    clip_count = len((clips / "metadata.csv").read_text(encoding="utf-8").splitlines()) - 1
    counts = json.loads(answers["run"])
    assert counts["events"] == clip_count
    assert counts["live"] + counts["removed"] + counts["dead"] >= clip_count - counts["pending"]
    entry = json.loads(answers["get"])
    assert entry["value"]["features"]["creators"] == {
        "status": "found", "reputation": 0.1, "country": "FR", "verified": False,
    }  # fmt: skip
    assert entry["state"] == "removed"  # bob's reputation is below the limit of rules.yaml
    assert json.loads(answers["dlq"])["messages"] == []


def test_the_files_fit_each_other() -> None:
    found = load_configuration(EXAMPLE / "vmp.yaml")
    services = yaml.safe_load((EXAMPLE / "compose.yaml").read_text(encoding="utf-8"))["services"]
    published = {name: service["ports"][0] for name, service in services.items()}
    assert published == {
        "kafka": "127.0.0.1:9092:9092", "postgres": "127.0.0.1:5432:5432", "redis": "127.0.0.1:6379:6379",
    }  # fmt: skip
    assert found.source.kind == "kafka"
    assert found.source.brokers == ("127.0.0.1:9092",)
