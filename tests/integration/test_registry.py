"""The registry against a real MLflow store: SQLite in a temporary folder, and once a tracking server."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from coefvq.config import Gate
from coefvq.errors import RegistryError
from coefvq.files import sha256_tree, write_json
from coefvq.registry import history, pairs, release, store, tracking
from coefvq.registry.bundle import Candidate, DataRef, build_candidate, model_ref
from coefvq.registry.gates import GateCheck, GateReport
from coefvq.registry.history import Decision

GATE = Gate(min_average_precision_gain=0.0, max_qps_ratio=60.0, max_f1_drop=0.05)
DATA = DataRef(manifest_sha256="a" * 64, splits_sha256="b" * 64, version="data-2026-11-22")


@dataclass(frozen=True)
class Workspace:
    """A folder with its own tracking store, and candidates trained in it."""

    root: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.root / 'mlflow.db'}"

    def candidate(self, seed: int, issue: str = "icd", f1: float = 0.6, qps_ratio: float = 20.0) -> Candidate:
        """Fake models whose bytes depend on the seed, logged like real ones."""
        refs = {}
        for kind in ("base", "mllm"):
            folder = self.root / "models" / str(seed) / issue / kind
            folder.mkdir(parents=True, exist_ok=True)
            save_file({"weight": np.full((2, 3), seed, np.float32)}, folder / "model.safetensors")
            write_json(folder / "config.json", {"kind": kind, "issue": issue})
            with tracking.training_run(f"{issue}-{kind}", issue, kind, {"seed": seed}, DATA) as run:
                run.log_model_folder(folder, kind, issue)
            record = folder.parent / f"{kind}_run.json"
            write_json(record, run.record())
            refs[kind] = model_ref(folder, record)
        return build_candidate(
            issue,
            base=refs["base"],
            mllm=refs["mllm"],
            policy={"base_threshold": 0.3, "decision_threshold": 0.5},
            preprocessing={"frames": 8},
            data=DATA,
            params={"seed": seed},
            metrics={
                "n": 200,
                "base": {"f1": 0.4},
                "mllm": {"average_precision": 0.7, "prevalence": 0.1, "n": 200},
                "cascade": {"f1": f1, "qps_ratio": qps_ratio, "r_at_p90": None},
                "bayes": None,
            },
        )

    def register(self, seed: int, issue: str = "icd") -> pairs.RegisteredPair:
        return pairs.register_candidate(self.candidate(seed, issue))

    def approve(self, seed: int, issue: str = "icd") -> Decision:
        self.register(seed, issue)
        return release.approve(issue, "ana", f"seed {seed} looks good")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables and nothing of ours; making the tables takes 2 s, copying them nothing."""
    database = tmp_path_factory.mktemp("template") / "mlflow.db"
    tracking.configure(f"sqlite:///{database}", "unused")
    from mlflow import MlflowClient

    client = MlflowClient()
    client.delete_experiment(client.get_experiment_by_name("unused").experiment_id)
    return database


@pytest.fixture
def workspace(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    made = Workspace(tmp_path)
    tracking.configure(made.uri, "coefvq")
    return made


def champion(issue: str = "icd") -> str | None:
    return pairs.aliases(issue).get("champion")


def challenger(issue: str = "icd") -> str | None:
    return pairs.aliases(issue).get("challenger")


# --- tracking --------------------------------------------------------------------------------------------


def test_a_training_run_holds_parameters_curves_data_and_model(workspace: Workspace) -> None:
    folder = workspace.root / "models" / "base"
    folder.mkdir(parents=True)
    write_json(folder / "config.json", {})
    params = {"training": {"learning_rate": 0.002, "layers": [1, 2]}, "preset": "tiny"}
    with tracking.training_run("icd-base", "icd", "base", params, DATA) as handle:
        handle.log_curve(1, {"train": {"loss": 0.9}})
        handle.log_curve(2, {"train": {"loss": 0.5}})
        model_id = handle.log_model_folder(folder, "base", "icd")
        handle.log_metrics({"val": {"f1": 0.6, "R@P80": None}})
    client = tracking.client()
    run = client.get_run(handle.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"training.learning_rate": "0.002", "training.layers": "[1, 2]", "preset": "tiny"}
    curve = client.get_metric_history(handle.run_id, "train/loss")
    assert [(point.step, point.value) for point in curve] == [(1, 0.9), (2, 0.5)]
    data = run.inputs.dataset_inputs[0].dataset
    assert data.source_type == "dvc"
    assert json.loads(data.source)["manifest_sha256"] == DATA.manifest_sha256
    model = client.get_logged_model(model_id)
    linked = [(metric.key, metric.value, metric.dataset_digest) for metric in model.metrics]
    assert linked == [("val/f1", 0.6, data.digest)]
    assert model.tags["sha256"] == sha256_tree(folder)
    assert handle.record() == {"run_id": handle.run_id, "model_id": model_id, "model_uri": f"models:/{model_id}"}


def test_a_training_that_raises_is_a_failed_run(workspace: Workspace) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        tracking.training_run("icd-base", "icd", "base", {}, DATA) as handle,
    ):
        raise ZeroDivisionError
    assert tracking.client().get_run(handle.run_id).info.status == "FAILED"
    with pytest.raises(RegistryError, match="no model was logged"):
        handle.record()


@pytest.mark.parametrize("name", ["model.pkl", "weights.pt", None])
def test_only_safetensors_and_json_are_logged(workspace: Workspace, name: str | None) -> None:
    folder = workspace.root / "model"
    folder.mkdir()
    if name:
        (folder / name).write_bytes(b"x")
    with tracking.training_run("icd-base", "icd", "base", {}, DATA) as handle:
        with pytest.raises(RegistryError, match=r"holds (no files|model\.pkl|weights\.pt)"):
            handle.log_model_folder(folder, "base", "icd")


def test_artifacts_lie_beside_their_database_wherever_the_command_runs(
    workspace: Workspace, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    workspace.register(1)
    folders = pairs.verified_folders(pairs.candidate_of("icd", "1"))
    assert all(folder.is_relative_to(workspace.root / "mlartifacts") for folder in folders.values())
    assert list(elsewhere.iterdir()) == []


def test_the_default_store_is_the_workspace_even_after_another_was_configured(
    workspace: Workspace, empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(empty_database, other / "mlflow.db")
    monkeypatch.chdir(other)
    assert tracking.configure(None, "coefvq").uri == f"sqlite:///{other / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", workspace.uri)
    assert tracking.configure(None, "coefvq").uri == workspace.uri


def test_a_deleted_experiment_is_named_with_its_remedy(workspace: Workspace) -> None:
    client = tracking.client()
    client.delete_experiment(client.get_experiment_by_name("coefvq").experiment_id)
    with pytest.raises(RegistryError, match="experiment coefvq was deleted; restore it"):
        tracking.configure(workspace.uri, "coefvq")


def test_a_server_that_is_down_is_one_line(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RegistryError) as caught:
        tracking.configure("http://me:secret@127.0.0.1:9", "coefvq")
    assert str(caught.value).startswith("tracking store http://***@127.0.0.1:9: ")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mlflow_keeps_quiet(workspace: Workspace, capfd: pytest.CaptureFixture[str]) -> None:
    workspace.approve(1)
    pairs.resolve("icd")
    assert capfd.readouterr() == ("", "")


# --- registration ----------------------------------------------------------------------------------------


def test_a_pair_is_three_registered_models(workspace: Workspace) -> None:
    candidate = workspace.candidate(1)
    pair = pairs.register_candidate(candidate)
    client = tracking.client()
    assert (pair.version, pair.created) == ("1", True)
    assert pair.bundle_version == f"1-{candidate.content_hash[:12]}"
    assert pairs.aliases("icd") == {"challenger": "1"}
    for kind in ("base", "mllm"):
        version = client.get_model_version(f"coefvq-icd-{kind}", "1")
        assert version.source == f"models:/{candidate.part(kind).model_id}"
    tags = client.get_model_version("coefvq-icd-cascade", "1").tags
    assert tags["content_hash"] == candidate.content_hash
    assert pairs.candidate_of("icd", "1") == candidate


def test_the_same_content_is_the_same_version(workspace: Workspace) -> None:
    first = pairs.register_candidate(workspace.candidate(1))
    trained_again = workspace.candidate(1)
    again = pairs.register_candidate(trained_again)
    assert (again.version, again.created) == (first.version, False)
    other = pairs.register_candidate(workspace.candidate(2))
    assert (other.version, other.created) == ("2", True)
    assert challenger() == "2"


def test_a_model_shared_by_two_pairs_is_registered_once(workspace: Workspace) -> None:
    first, second = workspace.candidate(1), workspace.candidate(2)
    pairs.register_candidate(first)
    mixed = build_candidate(
        "icd",
        base=first.base,
        mllm=second.mllm,
        policy=first.policy,
        preprocessing=first.preprocessing,
        data=DATA,
        params={},
        metrics=first.metrics,
    )
    pairs.register_candidate(mixed)
    client = tracking.client()
    assert len(client.search_model_versions("name = 'coefvq-icd-base'")) == 1
    assert len(client.search_model_versions("name = 'coefvq-icd-mllm'")) == 2


def test_a_model_of_another_store_or_with_other_bytes_is_refused(workspace: Workspace) -> None:
    candidate = workspace.candidate(1)
    stranger = candidate.base.model_copy(update={"model_id": "m-" + "0" * 32})
    changed = candidate.base.model_copy(update={"sha256": "c" * 64})
    for base, message in ((stranger, "is not in sqlite:///"), (changed, "are not those of the candidate")):
        other = build_candidate(
            "icd",
            base=base,
            mllm=candidate.mllm,
            policy=candidate.policy,
            preprocessing={},
            data=DATA,
            params={},
            metrics=candidate.metrics,
        )
        with pytest.raises(RegistryError, match=message):
            pairs.register_candidate(other)
    assert pairs.issues() == []


def test_a_pair_that_was_decided_on_is_not_offered_again(workspace: Workspace) -> None:
    workspace.register(1)
    release.reject("icd", "ana", "misses slides")
    assert workspace.register(1).version == "1"
    assert challenger() is None


def test_the_gate_report_is_kept_with_the_version(workspace: Workspace) -> None:
    outcome = release.register(workspace.candidate(1), GATE)
    assert outcome.report.passed
    found = pairs.find("icd", "1")
    assert found is not None
    assert found.gate == outcome.report


def test_the_gate_compares_with_the_champion(workspace: Workspace) -> None:
    release.register(workspace.candidate(1, f1=0.8), GATE)
    release.approve("icd", "ana", "first")
    outcome = release.register(workspace.candidate(2, f1=0.7), GATE)
    assert not outcome.report.passed
    assert outcome.pair is None
    assert "f1_drop: F1 0.700, champion 0.800" in outcome.report.failures
    assert challenger() is None


# --- resolve ---------------------------------------------------------------------------------------------


def test_resolve_gives_verified_folders_and_the_policy(workspace: Workspace) -> None:
    with pytest.raises(RegistryError, match="no champion for icd; approve a challenger first: coefvq approve"):
        pairs.resolve("icd")
    with pytest.raises(RegistryError, match="no challenger for icd; register a candidate first"):
        pairs.resolve("icd", "challenger")
    workspace.approve(1)
    bundle = pairs.resolve("icd")
    assert bundle.bundle_version == release.status()[0].champion.bundle_version
    assert bundle.policy == {"base_threshold": 0.3, "decision_threshold": 0.5}
    assert sha256_tree(bundle.base_dir) == bundle.candidate.base.sha256
    assert pairs.resolve("icd", "1") == bundle


@pytest.mark.parametrize("damage", ["changed", "added", "deleted"])
def test_tampering_with_a_model_is_refused(workspace: Workspace, damage: str) -> None:
    workspace.approve(1)
    folder = pairs.resolve("icd").mllm_dir
    if damage == "changed":
        save_file({"weight": np.zeros((2, 3), np.float32)}, folder / "model.safetensors")
    elif damage == "added":
        (folder / "extra.json").write_text("{}")
    else:
        shutil.rmtree(folder)
    with pytest.raises(RegistryError, match="icd mllm: .* registered was .* restore the store or roll back"):
        pairs.resolve("icd")


def test_a_changed_policy_is_refused(workspace: Workspace) -> None:
    workspace.approve(1)
    path = next(workspace.root.glob("mlartifacts/**/pair.json"))
    raw = json.loads(path.read_text())
    raw["policy"]["decision_threshold"] = 0.01
    path.write_text(json.dumps(raw))
    with pytest.raises(RegistryError, match="is not that of its parts"):
        pairs.resolve("icd")


def test_a_pair_outlives_the_versions_of_its_models(workspace: Workspace) -> None:
    workspace.approve(1)
    tracking.client().delete_model_version("coefvq-icd-base", "1")
    assert pairs.resolve("icd").version == "1"


# --- approve, reject, roll back --------------------------------------------------------------------------


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


@pytest.mark.parametrize(("by", "reason", "key"), [("", "why", "--by"), (" ", "why", "--by"), ("ana", " \n", "--reason")])
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
    assert release.status()[0].moved_by_hand
    assert release.rollback("icd", "bo", "nobody approved this").to_version == "1"
    assert not release.status()[0].moved_by_hand


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
    pairs.register_candidate(candidate)
    tracking.client().delete_logged_model(candidate.mllm.model_id)
    with pytest.raises(RegistryError, match=f"its model {candidate.mllm.model_id} is gone"):
        release.approve("icd", "ana", "why")
    assert champion() is None


def test_issues_are_released_apart(workspace: Workspace) -> None:
    workspace.approve(1, "icd")
    workspace.approve(2, "ucc")
    assert [row.issue for row in release.status()] == ["icd", "ucc"]
    assert [(item.sequence, item.issue) for item in release.history()] == [(1, "icd"), (2, "ucc")]
    with pytest.raises(RegistryError, match="ucc: nothing to roll back to"):
        release.rollback("ucc", "bo", "why")
    assert champion("icd") == "1"


# --- crashes and concurrency -----------------------------------------------------------------------------


class Killed(Exception):
    """Stands for the process dying at this point."""


@pytest.fixture(params=["before any alias", "before the challenger is dropped", "before the record is closed"])
def crash(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes the next release action die at one point, once."""
    module, name = {
        "before any alias": (pairs, "set_alias"),
        "before the challenger is dropped": (pairs, "drop_challenger"),
        "before the record is closed": (history, "close"),
    }[request.param]
    intact = getattr(module, name)

    def die(*_: object) -> None:
        monkeypatch.setattr(module, name, intact)
        raise Killed

    return lambda: monkeypatch.setattr(module, name, die)


def test_an_interrupted_approval_is_carried_out_by_the_next_action(
    workspace: Workspace, crash: Callable[[], None]
) -> None:
    workspace.approve(1)
    workspace.register(2)
    crash()
    with pytest.raises(Killed):
        release.approve("icd", "ana", "better")
    assert release.status()[0].pending
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
    with pytest.raises(Killed):
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
    with pytest.raises(Killed):
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
        patch.setattr(release, "_carry_out", lambda _: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            release.approve("icd", "ana", "better")
    tracking.client().delete_model_version("coefvq-icd-cascade", "2")
    assert workspace.approve(3).from_version == "1"
    assert [item.state for item in release.history()] == ["done", "failed", "done"]


def test_a_record_torn_before_its_fields_is_no_decision(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    import coefvq.registry.tracking.records as records

    workspace.register(1)
    with monkeypatch.context() as patch:
        patch.setattr(records, "log_params", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
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


# --- the history cannot be lost or changed ---------------------------------------------------------------


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


@pytest.fixture
def other_process_lock(workspace: Workspace) -> Iterator[None]:
    with store.exclusive(tracking.store()):
        yield
