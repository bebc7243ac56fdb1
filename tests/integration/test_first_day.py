"""The first days with a table of one's own: what goes wrong once must not break the nightly run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from coefvq.config import read_mapping
from coefvq.data.manifest import read_table
from coefvq.simulation.synthetic.generate import generate
from tasks import workspace
from tasks.run_clone import checkout_for_run
from tasks.workspace import change_params, dvc, git
from tests.integration.conftest import Workspace

ISSUES = {"icd": 0.4, "ucc": 0.4}


def repro(root: Path, stage: str) -> subprocess.CompletedProcess[str]:
    """As a person types it."""
    return Workspace(root).dvc("repro", stage, check=False)


def test_git_ignores_what_dvc_keeps_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "w"
    workspace.create(root, {"issues": ["violence"]})
    params = read_mapping(root / "params.yaml")["paths"]
    for stage in read_mapping(root / "dvc.yaml")["stages"].values():
        for kind in ("outs", "metrics", "plots"):
            for entry in stage.get("do", stage).get(kind, []):
                text, settings = next(iter(entry.items())) if isinstance(entry, dict) else (entry, {})
                path = text.replace("${item}", "violence")
                for name, place in params.items():
                    path = path.replace(f"${{paths.{name}}}", str(place))
                asked = subprocess.run(["git", "check-ignore", "-q", path], cwd=root, check=False)
                assert (asked.returncode == 0) is settings.get("cache", True), path
    for name in ("dvc.lock", "data/raw.dvc", "data/reference.json"):
        assert subprocess.run(["git", "check-ignore", "-q", name], cwd=root, check=False).returncode == 1


def test_a_workspace_of_an_earlier_version_gets_the_lines(tmp_path: Path) -> None:
    root = tmp_path / "w"
    workspace.create(root, {})
    whole = (root / ".gitignore").read_text()
    (root / ".gitignore").write_text("/mine\n/.coefvq/")
    workspace.create(root, {})
    assert (root / ".gitignore").read_text().startswith("/mine\n/.coefvq/\n/data/raw\n")
    assert set(whole.splitlines()) < set((root / ".gitignore").read_text().splitlines())


@pytest.mark.long  # four starts of dvc and three of a stage: 20 s alone
def test_a_failed_and_mended_stage_leaves_the_nightly_run_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, raw = tmp_path / "w", tmp_path / "w" / "data" / "raw"
    workspace.create(root, {})
    change_params(root / "params.yaml", {"runtime.workers": 1})
    generate(raw, 4, 1, ISSUES, workers=1)
    table = raw / "metadata.csv"
    good = table.read_text()
    dvc(root, "add", "--quiet", "data/raw")
    workspace.commit(root, "First clips")
    assert repro(root, "ingest").returncode == 0
    table.write_text(good.replace("file_name", "nothing"))
    assert repro(root, "ingest").returncode != 0
    table.write_text(good)
    assert repro(root, "ingest").returncode == 0
    git(root, "add", "-A")
    git(root, "commit", "--quiet", "--message", "Mended")
    tracked = git(root, "ls-files").splitlines()
    assert not {"data/manifest.parquet", "data/raw/metadata.csv"} & set(tracked)
    lines = good.splitlines()
    table.write_text("\n".join(lines[:-1]) + "\n")
    dvc(root, "add", "--quiet", "data/raw")
    workspace.commit(root, "Other clips")
    for name, value in workspace.run_environment(root).items():
        monkeypatch.setenv(name, value)
    clone = checkout_for_run(root)
    nightly = repro(clone, "ingest")
    assert nightly.returncode == 0, nightly.stderr


@pytest.mark.long  # trains two tiny pairs
@pytest.mark.timeout(3600)  # beside other work
def test_from_an_export_to_registered_pairs(tmp_path: Path, repository: Path) -> None:
    shell = Workspace(tmp_path)
    shell.run(sys.executable, str(repository / "examples" / "own_data" / "export.py"), "export", "--videos", "160")
    issues = ("--issue", "violence=is_violent:t", "--issue", "reposts=is_repost")
    shell.coefvq("init", "ws", "--data", "export/clips.csv", *issues, "--recipe", "tiny")
    root = tmp_path / "ws"
    made = Workspace(root)
    made.dvc("repro")
    rows = read_table(root / "data" / "manifest.parquet")
    assert rows["title"].ne("").any()
    assert rows["views"].notna().any()
    assert rows["creator_id"].notna().all()
    assert rows["decode_ok"].all()
    for issue in ("violence", "reposts"):
        # the gate's verdict on random miniatures is not what is asked here
        done = made.coefvq("register", "--issue", issue, "--keep-refused", "--json", check=False)
        assert json.loads(done.stdout)["pair"] is not None, done.stderr
