"""What is served is what a person approved: a champion alias that was moved by hand is refused."""

from __future__ import annotations

import pytest

from coefvq.errors import RegistryError
from coefvq.registry import history, overview, pair_files, pairs, release, tracking
from coefvq.registry.champions import champion_profile
from coefvq.registry.gates import GateCheck, GateReport
from coefvq.registry.history import Decision
from tests.integration.registry.registry_workspace import Workspace

REFUSED = GateReport(
    passed=False,
    checks=(GateCheck(name="qps_ratio", passed=False, value=90.0, limit=60.0, explanation="too many"),),
)


def served() -> str:
    return pair_files.resolve("icd").version


def test_an_undecided_version_is_not_served(workspace: Workspace) -> None:
    workspace.register(1)
    pairs.set_alias("icd", "champion", "1")
    with pytest.raises(RegistryError, match=r"no decision put it there.*: coefvq approve --version 1 --issue icd"):
        served()
    with pytest.raises(RegistryError, match="no decision put it there"):
        champion_profile(["icd"])
    assert pair_files.resolve("icd", "1").version == "1"  # asked for by its number
    assert overview.status()[0].moved_by_hand
    release.approve("icd", "ana", "looked at it", version="1")
    assert served() == "1"
    assert not overview.status()[0].moved_by_hand


@pytest.mark.parametrize("verdict", ["reject", "approve and replace", "refused by the gate"])
def test_an_alias_moved_to_any_other_version_is_refused_and_a_rollback_mends_it(
    workspace: Workspace, verdict: str
) -> None:
    if verdict == "reject":
        workspace.register(2)
        release.reject("icd", "bo", "misses slides")
    elif verdict == "approve and replace":
        workspace.approve(2)
    else:
        pairs.register_candidate(workspace.candidate(2), REFUSED)
    workspace.approve(1)
    assert served() == "1"
    pairs.set_alias("icd", "champion", "2")
    override = "" if verdict == "refused by the gate" else "--override "
    expected = rf"coefvq approve --version 2 {override}--issue .*, or return to version 1: coefvq rollback --issue icd"
    with pytest.raises(RegistryError, match=expected):
        served()
    release.rollback("icd", "ana", "nobody asked")
    assert served() == "1"


def test_a_version_number_that_was_given_again_is_another_pair(workspace: Workspace) -> None:
    workspace.approve(1)
    tracking.client().delete_registered_model("coefvq-icd-cascade")
    assert workspace.register(2).version == "1"
    pairs.set_alias("icd", "champion", "1")
    with pytest.raises(RegistryError, match="no decision put it there"):
        served()
    assert overview.status()[0].moved_by_hand


@pytest.mark.parametrize("done", ["nothing", "alias moved"])
def test_an_interrupted_approval_is_served_before_and_after_the_alias_moved(
    workspace: Workspace, done: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.approve(1)
    workspace.register(2)

    def die(*_: object) -> Decision:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pairs if done == "nothing" else history, "set_alias" if done == "nothing" else "close", die)
        with pytest.raises(KeyboardInterrupt):
            release.approve("icd", "ana", "better")
    assert served() == ("1" if done == "nothing" else "2")
    workspace.approve(3)
    assert served() == "3"


@pytest.mark.parametrize("tag", [None, "", "{}", "passed"])
def test_a_version_whose_gate_report_was_taken_away_needs_the_gate_again(workspace: Workspace, tag: str | None) -> None:
    pairs.register_candidate(workspace.candidate(1), REFUSED)
    client = tracking.client()
    if tag is None:
        client.delete_model_version_tag("coefvq-icd-cascade", "1", "gate")
    else:
        client.set_model_version_tag("coefvq-icd-cascade", "1", "gate", tag)
    with pytest.raises(RegistryError, match=r"gate report is not there or not readable; .* coefvq register"):
        release.approve("icd", "ana", "looks fine")
    assert workspace.register(1).offered
    assert release.approve("icd", "ana", "looks fine").state == "done"
