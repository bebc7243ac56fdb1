"""examples/own_data: the tutorial, followed literally by a shell that reads its code blocks."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from coefvq.data.manifest import read_table
from tests.integration.conftest import Workspace


@pytest.mark.long  # trains a tiny pair, twice
@pytest.mark.timeout(3000)  # beside other work
def test_the_tutorial_runs_as_it_stands(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "examples").symlink_to(repository / "examples")
    page = (tmp_path / "examples" / "own_data" / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    done = Workspace(tmp_path).run("bash", "-euo", "pipefail", "-c", "\n".join(blocks))
    assert "violence: bundle" in done.stdout
    root = tmp_path / "ws"
    rows = read_table(root / "data" / "manifest.parquet")
    assert len(rows) == 120  # the workspace's own; the nightly run has its manifest in its clone
    assert rows["title"].ne("").any()
    assert rows["views"].notna().all()
    assert rows["creator_id"].notna().all()
    made = Workspace(root)
    decisions = json.loads(made.coefvq("history", "--json").stdout)
    assert [(row["action"], row["to_version"]) for row in decisions] == [("approve", "1"), ("approve", "2")]
    entries = [json.loads(made.coefvq("vmp", "get", str(1120 + at), "--json").stdout) for at in range(3)]
    assert {entry["state"] for entry in entries} <= {"live", "removed"}
