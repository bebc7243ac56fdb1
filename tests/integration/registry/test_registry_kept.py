"""Scoring asks the registry once: what it said holds until its database changes, and never for changed files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from coefvq.config import Tracking
from coefvq.errors import RegistryError
from coefvq.registry import champions, pairs, release, tracking
from tests.integration.registry.registry_workspace import Workspace

_IN_A_PROCESS = """
import json, sys
from coefvq.config import Tracking
from coefvq.registry.champions import served_bundles
apart = sys.argv[2:] == ["apart"]
found = served_bundles(Tracking(uri=sys.argv[1], experiment="coefvq"), None, "champion", None, apart)
print(json.dumps([[bundle.issue, bundle.bundle_version] for bundle in found] + ["mlflow" in sys.modules]))
"""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each time that the registry is opened."""
    opened: list[str] = []
    configure = tracking.configure

    def counting(uri: str, *arguments: Any, **more: Any) -> Any:
        opened.append(uri)
        return configure(uri, *arguments, **more)

    monkeypatch.setattr(tracking, "configure", counting)
    return opened


def served(workspace: Workspace, issues: list[str] | None = None, version: str = "champion") -> list[tuple[str, str]]:
    settings = Tracking(uri=workspace.uri, experiment="coefvq")
    return [(found.issue, found.version) for found in champions.served_bundles(settings, issues, version, None)]


def kept(workspace: Workspace) -> Path:
    return workspace.root / "mlflow.db.pairs"


def test_a_decision_says_who_is_champion_so_the_registry_is_not_asked(workspace: Workspace, asked: list[str]) -> None:
    workspace.approve(1)
    assert served(workspace) == [("icd", "1")]
    assert kept(workspace).stat().st_mode & 0o777 == 0o600
    workspace.approve(2)
    assert served(workspace) == [("icd", "2")]
    release.rollback("icd", "ana", "missed staged fights")
    workspace.approve(1, "ucc")
    assert served(workspace) == [("icd", "1"), ("ucc", "1")]
    assert asked == []
    # another question is another answer
    assert served(workspace, ["ucc"]) == served(workspace, ["ucc"]) == [("ucc", "1")]
    assert served(workspace, ["icd"], "2") == [("icd", "2")]
    assert len(asked) == 2


def test_a_write_after_the_decision_makes_the_next_one_ask(workspace: Workspace, asked: list[str]) -> None:
    workspace.approve(1)
    workspace.register(2)
    assert served(workspace) == served(workspace) == [("icd", "1")]
    assert len(asked) == 1


def test_a_decision_stands_where_the_champions_cannot_be_kept(workspace: Workspace, asked: list[str]) -> None:
    kept(workspace).mkdir()
    workspace.approve(1)
    assert served(workspace) == served(workspace) == [("icd", "1")]
    assert len(asked) == 2


def test_an_alias_that_was_moved_by_hand_is_refused(workspace: Workspace) -> None:
    workspace.register(2)
    workspace.approve(1)
    assert served(workspace) == served(workspace) == [("icd", "1")]
    pairs.set_alias("icd", "champion", "2")
    for _ in range(2):
        with pytest.raises(RegistryError, match="moved by hand"):
            served(workspace)


def test_files_that_were_changed_are_refused(complete: Workspace) -> None:
    assert served(complete) == served(complete) == [("icd", "1")]
    settings = Tracking(uri=complete.uri, experiment="coefvq")
    [bundle] = champions.served_bundles(settings, None, "champion", None)
    weights = bundle.mllm_dir / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(RegistryError, match="the files were changed after approval"):
        served(complete)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"state": 1}', '{"pairs": {}}', "policy", "state"])
def test_what_was_kept_and_is_damaged_is_asked_again(workspace: Workspace, asked: list[str], damage: str) -> None:
    workspace.approve(1)
    served(workspace)
    value = json.loads(kept(workspace).read_text())
    if damage == "policy":
        value["pairs"]["champion of all"][0]["candidate"]["policy"]["base_threshold"] = 0.9
    elif damage == "state":
        value["state"] = "0" * 64
    kept(workspace).write_text(json.dumps(value) if damage in ("policy", "state") else damage)
    assert served(workspace) == [("icd", "1")]
    assert len(asked) == 1


def test_only_a_process_that_asks_the_registry_imports_mlflow(workspace: Workspace, repository: Path) -> None:
    workspace.approve(1)
    command = [sys.executable, "-c", _IN_A_PROCESS, workspace.uri]

    def told() -> list[Any]:
        done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)  # type: ignore[no-any-return]

    decided = told()
    kept(workspace).unlink()
    first, second = told(), told()
    assert decided[0] == first[0] == second[0]
    assert (decided[-1], first[-1], second[-1]) == (False, True, False)


def test_a_registry_that_is_asked_apart_leaves_no_mlflow_behind(workspace: Workspace, repository: Path) -> None:
    workspace.approve(1)
    kept(workspace).unlink()
    command = [sys.executable, "-c", _IN_A_PROCESS, workspace.uri, "apart"]
    answers = [
        json.loads(subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout)
        for _ in range(2)
    ]
    assert answers[0] == answers[1]
    assert answers[0][0][0] == "icd"
    assert answers[0][-1] is False


def test_what_the_registry_refuses_is_said_by_the_process_that_asked(workspace: Workspace) -> None:
    settings = Tracking(uri=workspace.uri, experiment="coefvq")
    with pytest.raises(RegistryError, match="no issue has a champion; approve a challenger first"):
        champions.served_bundles(settings, None, "champion", None, apart=True)
