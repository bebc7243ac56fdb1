"""Runs, logged models and the choice of the store, against a real SQLite store."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from coefvq.errors import RegistryError
from coefvq.files import sha256_tree, write_json
from coefvq.registry import pair_files, pairs, tracking
from tests.integration.registry.registry_workspace import DATA, Workspace


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
    with (
        tracking.training_run("icd-base", "icd", "base", {}, DATA) as handle,
        pytest.raises(RegistryError, match=r"holds (no files|model\.pkl|weights\.pt)"),
    ):
        handle.log_model_folder(folder, "base", "icd")


def test_artifacts_lie_beside_their_database_wherever_the_command_runs(
    fresh: Workspace, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    fresh.register(1)
    folders = pair_files.verified_folders(pairs.candidate_of("icd", "1"))
    assert all(folder.is_relative_to(fresh.root / "mlartifacts") for folder in folders.values())
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


RELEASE = """
from pathlib import Path
from tests.integration.registry.registry_workspace import Workspace
from coefvq.registry import pair_files, tracking
workspace = Workspace(Path.cwd(), {})
tracking.configure(None, "coefvq")
workspace.approve(1)
print(pair_files.resolve("icd").version)
"""


def test_mlflow_keeps_quiet_from_the_first_table_to_the_last_file(isolated: Path) -> None:
    # a process of its own: MLflow sets up its logging once, on import
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[3]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", RELEASE], cwd=isolated, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_a_damaged_logged_model_is_named(fresh: Workspace) -> None:
    fresh.register(1)
    model_id = pairs.candidate_of("icd", "1").base.model_id
    described = next(fresh.root.glob(f"mlartifacts/**/{model_id}/artifacts/MLmodel"))
    for text in ("flavors: {}\n", "flavors: [\n"):
        described.write_text(text)
        with pytest.raises(RegistryError, match=f"models:/{model_id}: its files are missing or damaged"):
            tracking.model_artifact(model_id, "model")
    described.unlink()
    with pytest.raises(RegistryError, match=f"models:/{model_id}"):
        tracking.model_artifact(model_id, "model")
