"""Processes that die in the middle of a decision, and processes that decide at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import pytest

from coefvq.errors import RegistryError
from coefvq.registry import history, overview, pairs, release, store, tracking
from tests.integration.registry.registry_workspace import Workspace, challenger, champion


class KilledError(Exception):
    """Stands for the process dying at this point."""


def die(*_: object) -> NoReturn:
    raise KilledError


@pytest.fixture(params=["before any alias", "before the challenger is dropped", "before the record is closed"])
def crash(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes the next release action die at one point, once."""
    module, name = {
        "before any alias": (pairs, "set_alias"),
        "before the challenger is dropped": (pairs, "drop_challenger"),
        "before the record is closed": (history, "close"),
    }[request.param]
    intact = getattr(module, name)

    def die_once(*_: object) -> NoReturn:
        monkeypatch.setattr(module, name, intact)
        raise KilledError

    return lambda: monkeypatch.setattr(module, name, die_once)


def test_an_interrupted_approval_is_carried_out_by_the_next_action(
    workspace: Workspace, crash: Callable[[], None]
) -> None:
    workspace.approve(1)
    workspace.register(2)
    crash()
    with pytest.raises(KilledError):
        release.approve("icd", "ana", "better")
    assert overview.status()[0].pending
    assert release.rollback("icd", "bo", "not better").from_version == "2"
    assert champion() == "1"
    assert challenger() is None
    assert [(item.action, item.state) for item in release.history()] == [
        ("approve", "done"),
        ("approve", "done"),
        ("rollback", "done"),
    ]


def test_repeating_an_interrupted_approval_finishes_it_once(workspace: Workspace, crash: Callable[[], None]) -> None:
    workspace.register(1)
    crash()
    with pytest.raises(KilledError):
        release.approve("icd", "ana", "better")
    decision = release.approve("icd", "ana", "better")
    assert (decision.version, decision.state) == ("1", "done")
    assert (champion(), challenger()) == ("1", None)
    assert len(release.history()) == 1


def test_a_challenger_registered_after_a_crash_is_what_the_next_approval_means(
    workspace: Workspace, crash: Callable[[], None]
) -> None:
    workspace.register(1)
    crash()
    with pytest.raises(KilledError):
        release.approve("icd", "ana", "better")
    workspace.register(2)
    assert release.approve("icd", "ana", "better still").version == "2"
    assert [item.version for item in release.history()] == ["1", "2"]
    assert (champion(), challenger()) == ("2", None)


def test_an_interrupted_decision_on_a_deleted_version_fails_and_blocks_nothing(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.approve(1)
    workspace.register(2)
    with monkeypatch.context() as patch:
        patch.setattr(release, "_carry_out", die)
        with pytest.raises(KilledError):
            release.approve("icd", "ana", "better")
    tracking.client().delete_model_version("coefvq-icd-cascade", "2")
    assert workspace.approve(3).from_version == "1"
    assert [item.state for item in release.history()] == ["done", "failed", "done"]


def test_a_record_torn_before_its_fields_is_no_decision(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from coefvq.registry.tracking import records

    workspace.register(1)
    with monkeypatch.context() as patch:
        patch.setattr(records, "log_params", die)
        with pytest.raises(KilledError):
            release.approve("icd", "ana", "better")
    assert release.history() == []
    assert release.approve("icd", "ana", "better").sequence == 1


def test_a_resumed_flow_run_gets_its_own_decision_back(workspace: Workspace) -> None:
    workspace.register(1)
    first = release.approve("icd", "ana", "better", flow_run_id="run-1")
    workspace.register(2)
    assert release.approve("icd", "ana", "better", flow_run_id="run-1") == first
    assert (champion(), challenger()) == ("1", "2")


def test_of_two_approvals_at_once_one_is_told_the_truth(workspace: Workspace) -> None:
    workspace.register(1)
    together = threading.Barrier(2)

    def approve(name: str) -> str:
        together.wait()
        try:
            return release.approve("icd", name, "mine").by
        except RegistryError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(approve, ["ana", "bo"]))
    winner = release.history()[0].by
    assert len(release.history()) == 1
    assert winner in outcomes
    assert any(f"version 1 was approved by {winner}" in outcome for outcome in outcomes)


def test_an_action_waits_for_the_lock_and_gives_up_with_its_name(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.register(1)
    monkeypatch.setattr(store, "LOCK_TIMEOUT_S", 0.05)
    with store.exclusive(tracking.store()), pytest.raises(RegistryError, match=r"mlflow\.db\.lock: another release"):
        release.approve("icd", "ana", "why")
    assert release.approve("icd", "ana", "why").state == "done"
