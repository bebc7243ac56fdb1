"""The demo never releases a cascade below its own base model: the gate refuses it and the base alone is released."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from coefvq.errors import RegistryError
from coefvq.files import read_json, write_json
from coefvq.registry.champions import head, policies_of
from flows.demo_release import LOOSE_GATE, release_pair
from tasks.workspace import change_params
from tests.integration.conftest import Workspace

QPS = {"mode": "qps", "max_qps_ratio": 60.0, "min_kept_f1": 0.01, "views_trigger": None, "policy": "mllm"}


@pytest.mark.long
def test_a_cascade_below_its_base_is_refused_and_the_base_released_alone(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace.root)
    change_params(workspace.root / "params.yaml", {**LOOSE_GATE, "gate.min_f1_over_base": 0.0, "thresholds.icd": QPS})
    workspace.dvc("repro", "candidate@icd")
    candidate = workspace.root / "reports" / "icd" / "candidate.json"
    made = read_json(candidate)
    made["metrics"]["base"]["f1"] = 0.99  # this world's MLLM may well be above its base
    write_json(candidate, made)
    page = io.StringIO()
    release_pair("icd", workspace.root, Console(file=page, width=200))
    said = page.getvalue()
    assert "f1_over_base" in said
    assert "thresholds.icd.policy: base" in said
    assert not policies_of(head(["icd"]))["icd"].asks_mllm


@pytest.mark.long
def test_another_reason_to_refuse_stays_a_refusal(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace.root)
    change_params(workspace.root / "params.yaml", {**LOOSE_GATE, "gate.min_average_precision_gain": 1.0})
    with pytest.raises(RegistryError, match="gate refused the candidate of icd"):
        release_pair("icd", workspace.root, Console(file=io.StringIO()))
