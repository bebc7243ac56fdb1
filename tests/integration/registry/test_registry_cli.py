"""register, status, history and rollback from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from coefvq.cli import registry
from coefvq.errors import CoefVQError, ConfigError, RegistryError
from coefvq.files import write_json
from coefvq.registry import release
from tests.integration.registry.registry_workspace import Workspace

Run = Callable[..., Result]


@pytest.fixture
def run(unregistered: Workspace, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in the workspace; a user error is returned as the result's exception."""
    monkeypatch.chdir(unregistered.root)
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("params.yaml", "recipe.yaml"):
        (unregistered.root / name).write_text((Path(__file__).parents[3] / name).read_text())
    app = typer.Typer()
    for name in ("register", "status", "history", "rollback"):
        app.command(name=name)(getattr(registry, name))
    return lambda *words: CliRunner().invoke(app, words)


def _candidate(workspace: Workspace, seed: int, f1: float = 0.6) -> None:
    write_json(workspace.root / "reports/icd/candidate.json", workspace.candidate(seed, f1=f1).to_json())


def _failure(result: Result) -> CoefVQError:
    assert isinstance(result.exception, CoefVQError), result.output
    return result.exception


def test_an_empty_workspace_says_what_comes_first(run: Run) -> None:
    assert "nothing is registered; coefvq register" in run("status").output
    assert "no decisions yet" in run("history").output
    assert run("status", "--waiting").output == ""
    assert json.loads(run("status", "--json").output) == []
    assert "coefvq register" in run("register", "--help").output


def test_register_shows_the_gate_and_status_the_challenger(run: Run, unregistered: Workspace) -> None:
    _candidate(unregistered, 1)
    result = run("register", "--issue", "icd")
    assert result.exit_code == 0, result.output
    assert "gate of icd: passed" in result.output
    assert "next: coefvq approve --issue icd" in result.output
    status = json.loads(run("status", "--json").output)[0]
    assert status["champion"] is None
    assert status["challenger"]["version"] == "1"
    assert status["challenger"]["gate"]["passed"] is True
    assert run("status", "--waiting").output.startswith("icd: bundle 1-")
    assert len(run("status", "--waiting").output.splitlines()) == 1
    release.reject("icd", "ana", "misses slides")
    assert "was registered before; next: nothing, it was decided on before" in run("register", "--issue", "icd").output


def test_a_refused_candidate_ends_with_code_6_and_the_table(run: Run, unregistered: Workspace) -> None:
    _candidate(unregistered, 1, f1=0.8)
    run("register", "--issue", "icd")
    release.approve("icd", "ana", "first")
    _candidate(unregistered, 2, f1=0.7)
    result = run("register", "--issue", "icd", "--json")
    error = _failure(result)
    assert error.exit_code == 6
    assert str(error).startswith("gate refused the candidate of icd, not registered: f1_drop: F1 0.700")
    assert json.loads(result.output)["pair"] is None
    assert "FAILED" in run("register", "--issue", "icd").output
    kept = run("register", "--issue", "icd", "--keep-refused")
    assert "registered all the same" in str(_failure(kept))
    assert json.loads(run("status", "--json").output)[0]["challenger"]["gate"]["passed"] is False


def test_history_and_rollback(run: Run, unregistered: Workspace) -> None:
    unregistered.approve(1)
    unregistered.register(2)
    release.approve("icd", "ana", "[/] closes nothing")
    result = run("rollback", "--issue", "icd", "--by", "bo", "--reason", "slides are missed")
    assert result.output == "icd: champion is version 1 again (was 2)\n"
    rows = json.loads(run("history", "--issue", "icd", "--json").output)
    assert [row["action"] for row in rows] == ["approve", "approve", "rollback"]
    shown = run("history").output
    assert "[/] closes nothing" in shown
    assert "slides are missed" in shown
    assert "rollback 1 by bo" in run("status").output
    error = _failure(run("rollback", "--issue", "icd", "--by", " ", "--reason", "again"))
    assert isinstance(error, RegistryError)


def test_wrong_input_names_the_remedy(run: Run, unregistered: Workspace) -> None:
    assert isinstance(_failure(run("register", "--issue", "dog")), ConfigError)
    assert "candidate.json: no such file" in str(_failure(run("register", "--issue", "icd")))
    write_json(unregistered.root / "reports/ucc/candidate.json", unregistered.candidate(1).to_json())
    assert "issue = icd: expected ucc" in str(_failure(run("register", "--issue", "ucc")))


def test_looking_makes_no_store(run: Run, unregistered: Workspace) -> None:
    (unregistered.root / "mlflow.db").unlink()
    assert "nothing is registered; coefvq register" in run("status").output
    assert json.loads(run("history", "--json").output) == []
    rolled_back = run("rollback", "--issue", "icd", "--by", "bo", "--reason", "why")
    assert "no tracking store is there yet" in str(_failure(rolled_back))
    assert not (unregistered.root / "mlflow.db").exists()


def test_params_of_another_folder_mean_that_workspace(
    run: Run, unregistered: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = unregistered.root / "elsewhere"
    elsewhere.mkdir()
    _candidate(unregistered, 1)
    for words in (("register", "--issue", "icd"), ("status", "--json")):
        monkeypatch.chdir(elsewhere)
        result = run(*words, "--params", "../params.yaml")
        assert result.exit_code == 0, result.output
    assert json.loads(result.output)[0]["challenger"]["version"] == "1"
    assert list(elsewhere.iterdir()) == []
