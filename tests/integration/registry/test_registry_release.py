"""Approve, reject, roll back, and the history of it."""

from __future__ import annotations

import pytest

from coefvq.errors import RegistryError
from coefvq.registry import overview, pairs, release, tracking
from coefvq.registry.gates import GateCheck, GateReport
from tests.integration.registry.registry_workspace import PASSED, Workspace, challenger, champion


def test_approval_moves_the_champion_and_is_recorded(workspace: Workspace) -> None:
    workspace.approve(1)
    second = workspace.register(2)
    decision = release.approve("icd", " ana ", "fewer false alarms", flow_run_id="run-7")
    assert (champion(), challenger()) == ("2", None)
    assert release.history("icd")[-1] == decision
    assert decision.model_dump(exclude={"at", "run_id"}) == {
        "sequence": 2,
        "by": "ana",
        "reason": "fewer false alarms",
        "action": "approve",
        "issue": "icd",
        "from_version": "1",
        "to_version": "2",
        "content_hash": second.content_hash,
        "override": False,
        "flow_run_id": "run-7",
        "state": "done",
    }


@pytest.mark.parametrize(
    ("by", "reason", "key"), [("", "why", "--by"), (" ", "why", "--by"), ("ana", " \n", "--reason")]
)
def test_a_decision_needs_a_name_and_a_reason(workspace: Workspace, by: str, reason: str, key: str) -> None:
    workspace.register(1)
    for action in (release.approve, release.reject, release.rollback):
        with pytest.raises(RegistryError, match=f"{key} is blank"):
            action("icd", by, reason)
    assert (champion(), challenger(), release.history()) == (None, "1", [])


def test_nothing_is_decided_twice(workspace: Workspace) -> None:
    with pytest.raises(RegistryError, match="no challenger waits for icd; register one first"):
        release.approve("icd", "ana", "why")
    workspace.approve(1)
    with pytest.raises(RegistryError, match="no challenger waits for icd; version 1 was approved by ana at 20"):
        release.approve("icd", "bo", "me too")
    for action in (release.approve, release.reject):
        with pytest.raises(RegistryError, match="icd: version 1 was approved by ana"):
            action("icd", "bo", "me too", version="1")
    with pytest.raises(RegistryError, match="icd version 9 does not exist"):
        release.approve("icd", "bo", "why", version="9")
    with pytest.raises(RegistryError, match="version 'latest': expected a number"):
        release.approve("icd", "bo", "why", version="latest")
    assert len(release.history()) == 1


def test_rejection_leaves_the_champion(workspace: Workspace) -> None:
    workspace.approve(1)
    workspace.register(2)
    decision = release.reject("icd", "bo", "misses slides")
    assert (champion(), challenger()) == ("1", None)
    assert (decision.from_version, decision.to_version) == ("2", None)


def test_an_older_waiting_version_can_be_approved_and_the_newer_keeps_waiting(workspace: Workspace) -> None:
    workspace.register(1)
    workspace.register(2)
    release.approve("icd", "ana", "the older one", version="1")
    assert (champion(), challenger()) == ("1", "2")


def test_rollbacks_go_back_step_by_step(workspace: Workspace) -> None:
    for seed in (1, 2, 3):
        workspace.approve(seed)
    assert release.rollback("icd", "bo", "worse").to_version == "2"
    assert release.rollback("icd", "bo", "still worse").to_version == "1"
    with pytest.raises(RegistryError, match="nothing to roll back to: version 1 has no approved pair before it"):
        release.rollback("icd", "bo", "even worse")
    workspace.approve(4)
    assert release.rollback("icd", "bo", "no").to_version == "1"
    assert champion() == "1"


def test_a_rollback_by_mistake_can_be_undone_with_an_override(workspace: Workspace) -> None:
    workspace.approve(1)
    workspace.approve(2)
    release.rollback("icd", "bo", "wrong issue")
    with pytest.raises(RegistryError, match="version 2 was approved by ana"):
        release.approve("icd", "bo", "undo", version="2")
    decision = release.approve("icd", "bo", "undo my rollback", version="2", override=True)
    assert (champion(), decision.override) == ("2", True)
    assert release.rollback("icd", "bo", "after all").to_version == "1"


def test_a_rollback_passes_over_deleted_versions(workspace: Workspace) -> None:
    for seed in (1, 2, 3):
        workspace.approve(seed)
    tracking.client().delete_model_version("coefvq-icd-cascade", "2")
    assert release.rollback("icd", "bo", "worse").to_version == "1"


def test_a_rollback_undoes_an_alias_moved_by_hand(workspace: Workspace) -> None:
    workspace.approve(1)
    workspace.register(2)
    pairs.set_alias("icd", "champion", "2")
    assert overview.status()[0].moved_by_hand
    assert release.rollback("icd", "bo", "nobody approved this").to_version == "1"
    assert not overview.status()[0].moved_by_hand


def test_a_failed_gate_takes_an_override(workspace: Workspace) -> None:
    failed = GateCheck(name="qps_ratio", passed=False, value=90.0, limit=60.0, explanation="90 % reach the MLLM")
    pairs.register_candidate(workspace.candidate(1), GateReport(passed=False, checks=(failed,)))
    with pytest.raises(RegistryError, match=r"the gate refused it \(qps_ratio: 90 % reach the MLLM\)"):
        release.approve("icd", "ana", "fine by me")
    assert champion() is None
    assert release.approve("icd", "ana", "capacity was added", override=True).override
    assert champion() == "1"


def test_a_pair_whose_model_is_gone_is_not_promoted(workspace: Workspace) -> None:
    candidate = workspace.candidate(1)
    pairs.register_candidate(candidate, PASSED)
    tracking.client().delete_logged_model(candidate.mllm.model_id)
    with pytest.raises(RegistryError, match=f"its model {candidate.mllm.model_id} is gone"):
        release.approve("icd", "ana", "why")
    assert champion() is None


def test_issues_are_released_apart(workspace: Workspace) -> None:
    workspace.approve(1, "icd")
    workspace.approve(2, "ucc")
    assert [row.issue for row in overview.status()] == ["icd", "ucc"]
    assert [(item.sequence, item.issue) for item in release.history()] == [(1, "icd"), (2, "ucc")]
    with pytest.raises(RegistryError, match="ucc: nothing to roll back to"):
        release.rollback("ucc", "bo", "why")
    assert champion("icd") == "1"


def test_history_outlives_versions_models_and_deleted_runs(workspace: Workspace) -> None:
    workspace.approve(1)
    workspace.approve(2)
    before = release.history()
    client = tracking.client()
    client.delete_model_version("coefvq-icd-cascade", "1")
    client.delete_registered_model("coefvq-icd-cascade")
    client.delete_run(before[0].run_id)
    assert release.history() == before


def test_a_decision_cannot_be_rewritten(workspace: Workspace) -> None:
    from coefvq.registry.tracking.runs import log_params

    decision = workspace.approve(1)
    with pytest.raises(RegistryError, match="Changing param values is not allowed"):
        log_params(decision.run_id, {"by": "mallory"})


def test_version_numbers_that_start_again_do_not_confuse_the_history(workspace: Workspace) -> None:
    workspace.approve(1)
    tracking.client().delete_registered_model("coefvq-icd-cascade")
    assert workspace.approve(2).version == "1"
    with pytest.raises(RegistryError, match="nothing to roll back to"):
        release.rollback("icd", "bo", "why")
