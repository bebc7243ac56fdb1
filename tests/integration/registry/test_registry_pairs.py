"""Registering candidates and resolving aliases to verified files."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from coefvq.errors import RegistryError
from coefvq.files import sha256_tree
from coefvq.registry import overview, pair_files, pairs, release, tracking
from tests.integration.registry.registry_workspace import GATE, PASSED, Workspace, challenger, train


def test_a_pair_is_three_registered_models(unregistered: Workspace) -> None:
    candidate = unregistered.candidate(1)
    pair = pairs.register_candidate(candidate, PASSED)
    client = tracking.client()
    assert (pair.version, pair.created, pair.offered) == ("1", True, True)
    assert pair.bundle_version == f"1-{candidate.content_hash[:12]}"
    assert pairs.aliases("icd") == {"challenger": "1"}
    for kind in ("base", "mllm"):
        version = client.get_model_version(f"coefvq-icd-{kind}", "1")
        assert version.source == f"models:/{candidate.part(kind).model_id}"
    tags = client.get_model_version("coefvq-icd-cascade", "1").tags
    assert tags["content_hash"] == candidate.content_hash
    assert pairs.candidate_of("icd", "1") == candidate


def test_the_same_content_is_the_same_version(unregistered: Workspace) -> None:
    first = pairs.register_candidate(unregistered.candidate(1), PASSED)
    trained_again = unregistered.candidate(1, **train(unregistered.root, 1, "icd"))
    assert trained_again.base.model_id != unregistered.candidate(1).base.model_id
    again = pairs.register_candidate(trained_again, PASSED)
    assert (again.version, again.created) == (first.version, False)
    other = pairs.register_candidate(unregistered.candidate(2), PASSED)
    assert (other.version, other.created) == ("2", True)
    assert challenger() == "2"


def test_a_model_shared_by_two_pairs_is_registered_once(unregistered: Workspace) -> None:
    pairs.register_candidate(unregistered.candidate(1), PASSED)
    mixed = unregistered.candidate(1, mllm=unregistered.candidate(2).mllm)
    pairs.register_candidate(mixed, PASSED)
    client = tracking.client()
    assert len(client.search_model_versions("name = 'coefvq-icd-base'")) == 1
    assert len(client.search_model_versions("name = 'coefvq-icd-mllm'")) == 2


def test_a_model_of_another_store_or_with_other_bytes_is_refused(unregistered: Workspace) -> None:
    candidate = unregistered.candidate(1)
    stranger = candidate.base.model_copy(update={"model_id": "m-" + "0" * 32})
    changed = candidate.base.model_copy(update={"sha256": "c" * 64})
    for base, message in ((stranger, "is not in sqlite:///"), (changed, "are not those of the candidate")):
        other = unregistered.candidate(1, base=base)
        with pytest.raises(RegistryError, match=message):
            pairs.register_candidate(other, PASSED)
    assert pairs.issues() == []


def test_a_pair_that_was_decided_on_is_not_offered_again(unregistered: Workspace) -> None:
    unregistered.register(1)
    release.reject("icd", "ana", "misses slides")
    again = unregistered.register(1)
    assert (again.version, again.created, again.offered) == ("1", False, False)
    assert challenger() is None


def test_the_gate_report_is_kept_with_the_version(unregistered: Workspace) -> None:
    outcome = release.register(unregistered.candidate(1), GATE)
    assert outcome.report.passed
    found = pairs.find("icd", "1")
    assert found is not None
    assert found.gate == outcome.report


def test_the_gate_compares_with_the_champion(unregistered: Workspace) -> None:
    release.register(unregistered.candidate(1, f1=0.8), GATE)
    release.approve("icd", "ana", "first")
    outcome = release.register(unregistered.candidate(2, f1=0.7), GATE)
    assert not outcome.report.passed
    assert outcome.pair is None
    assert "f1_drop: F1 0.700, champion 0.800" in outcome.report.failures
    assert challenger() is None


def test_resolve_gives_verified_folders_and_the_policy(workspace: Workspace) -> None:
    with pytest.raises(RegistryError, match="no champion for icd; approve a challenger first: coefvq approve"):
        pair_files.resolve("icd")
    with pytest.raises(RegistryError, match="no challenger for icd; register a candidate first"):
        pair_files.resolve("icd", "challenger")
    workspace.approve(1)
    bundle = pair_files.resolve("icd")
    assert bundle.bundle_version == overview.status()[0].champion.bundle_version
    assert bundle.policy == {"base_threshold": 0.3, "decision_threshold": 0.5}
    assert sha256_tree(bundle.base_dir) == bundle.candidate.base.sha256
    assert pair_files.resolve("icd", "1") == bundle


@pytest.mark.parametrize("damage", ["changed", "added", "deleted"])
def test_tampering_with_a_model_is_refused(fresh: Workspace, damage: str) -> None:
    fresh.approve(1)
    folder = pair_files.resolve("icd").mllm_dir
    if damage == "changed":
        save_file({"weight": np.zeros((2, 3), np.float32)}, folder / "model.safetensors")
    elif damage == "added":
        (folder / "extra.json").write_text("{}")
    else:
        shutil.rmtree(folder)
    with pytest.raises(RegistryError, match=r"icd mllm: .* registered was .* restore the store or roll back"):
        pair_files.resolve("icd")


def test_a_changed_policy_is_refused(fresh: Workspace) -> None:
    fresh.approve(1)
    path = next(fresh.root.glob("mlartifacts/**/pair.json"))
    raw = json.loads(path.read_text())
    raw["policy"]["decision_threshold"] = 0.01
    path.write_text(json.dumps(raw))
    with pytest.raises(RegistryError, match="is not that of its parts"):
        pair_files.resolve("icd")


def test_another_pair_in_its_place_is_refused(fresh: Workspace) -> None:
    fresh.approve(1)
    path = next(fresh.root.glob("mlartifacts/**/pair.json"))
    consistent = fresh.candidate(1, policy={"base_threshold": 0.3, "decision_threshold": 0.01})
    path.write_text(json.dumps(consistent.to_json()))
    with pytest.raises(RegistryError, match=r"coefvq-icd-cascade version 1: its pair\.json is not the one registered"):
        pair_files.resolve("icd")


def test_a_pair_outlives_the_versions_of_its_models(workspace: Workspace) -> None:
    workspace.approve(1)
    tracking.client().delete_model_version("coefvq-icd-base", "1")
    assert pair_files.resolve("icd").version == "1"
