"""Recipes through DVC: which stages a changed key reruns, `dvc exp run -S`, and a user's own preset up to a score."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from coefvq.config import load_params
from tasks.workspace import change_params, commit, create, dvc, round_trip
from tests.integration.conftest import SETTINGS, Finished, Workspace


def change_recipe(root: Path, settings: Mapping[str, Any]) -> None:
    change_params(root / "recipe.yaml", settings)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace of both issues whose stages DVC takes for done: every file is there, and recorded as it is."""
    from dvc.repo import Repo

    root = tmp_path_factory.mktemp("recorded")
    create(root, {})
    (root / "data" / "raw").mkdir()
    (root / "data" / "raw" / "metadata.csv").write_text("file_name\n")
    with Repo(str(root)) as repository:
        for stage in repository.index.stages:
            for out in stage.outs:
                path = Path(out.fs_path)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(stage.addressing)
    dvc(root, "commit", "--force", "--quiet")
    assert changed(Workspace(root)) == set()
    return Workspace(root)


def changed(workspace: Workspace) -> set[str]:
    """Stages that `dvc repro` would run for their own parameters and files of settings."""
    return set(json.loads(workspace.dvc("status", "--json").stdout))


TRAININGS = {f"train-{kind}@{issue}" for kind in ("base", "mllm") for issue in ("icd", "ucc")}


@pytest.mark.parametrize(
    ("file", "key", "value", "expected"),
    [
        ("params.yaml", "base.ucc.training.learning_rate", 0.5, {"teach@ucc", "train-base@ucc"}),
        ("params.yaml", "mllm.icd.lora.rank", 3, {"train-mllm@icd"}),
        (
            *("recipe.yaml", "base.training.learning_rate", 0.5),
            {f"{stage}@{issue}" for stage in ("teach", "train-base") for issue in ("icd", "ucc")},
        ),
        ("recipe.yaml", "mllm.lora.rank", 3, {"train-mllm@icd", "train-mllm@ucc"}),
        ("recipe.yaml", "models.presets", "other.yaml", TRAININGS),
        ("presets.yaml", "mine.extends", "tiny", TRAININGS),
        (
            *("params.yaml", "media.icd.frames", 2),
            # predict runs again too, but by its models: what they see stands in their folders
            {f"{stage}@icd" for stage in ("train-base", "train-mllm", "stability", "candidate")},
        ),
    ],
)
def test_a_changed_key_reruns_what_reads_it(
    recorded: Workspace, file: str, key: str, value: object, expected: set[str]
) -> None:
    path = recorded.root / file
    before = path.read_text()
    shutil.copy(recorded.root / "presets.yaml", recorded.root / "other.yaml")
    try:
        if file == "presets.yaml":
            path.write_text(json.dumps({"mine": {"extends": value}}))
        else:
            change_params(path, {key: value})
        assert changed(recorded) == expected
    finally:
        path.write_text(before)


def test_an_experiment_sets_a_key_of_either_file(workspace: Workspace) -> None:
    commit(workspace.root, "before the experiment")
    keys = ("-S", "recipe.yaml:base.training.weight_decay=0.5", "-S", "base.icd.training.num_train_epochs=2")
    workspace.dvc("exp", "run", *keys, "train-base@icd")
    assert json.loads((workspace.root / "reports/icd/base.json").read_text())["epochs"] == 2
    lock = yaml.safe_load((workspace.root / "dvc.lock").read_text())["stages"]["train-base@icd"]["params"]
    assert lock["recipe.yaml"]["base"]["training"]["weight_decay"] == 0.5
    for name in ("recipe.yaml", "params.yaml"):
        assert "# " in (workspace.root / name).read_text()


MINE = {
    "extends": "tiny",
    "summary": "deeper decoder, wider ear",
    "language": {
        **{"kind": "llama", "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4},
        **{"num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 1024},
    },
    "audio": {"kind": "whisper", "n_state": 32, "n_head": 4, "n_layer": 2},
    "frames": {"kind": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2]},
}


@pytest.mark.long
def test_a_users_preset_goes_from_init_to_a_score(finished: Finished, tmp_path: Path) -> None:
    Workspace(tmp_path).coefvq("init", "w", "--issue", "icd", "--recipe", "tiny")
    made = Workspace(tmp_path / "w")
    shutil.copytree(finished.data, made.root / "data" / "raw")
    (made.root / "mine.yaml").write_text(yaml.safe_dump({"mine": MINE}))
    quick = {"evaluate.bootstrap": 100, "stability.videos_per_threshold": 2, "validate.prevalence.icd": [0.0, 1.0]}
    labels = {"ingest.labels.icd": {"column": "label", "positive": ["bad"]}}
    change_params(made.root / "params.yaml", {**SETTINGS, **quick, **labels})
    change_recipe(made.root, {"models.presets": "mine.yaml", "base.preset": "mine", "mllm.preset": "mine"})
    made.dvc("add", "--quiet", "data/raw")
    commit(made.root, "clips and a preset of our own")
    made.dvc("repro")
    assert json.loads((made.root / "models/icd/mllm/config.json").read_text())["definition"]["audio"]["n_layer"] == 2
    made.coefvq("register", "--issue", "icd")
    made.coefvq("approve", "--issue", "icd", "--by", "ana", "--reason", "our own parts")
    # the champion is what was approved; the file it was made of may be gone
    (made.root / "mine.yaml").unlink()
    clip = next((made.root / "data" / "raw" / "videos").glob("*.mp4"))
    answer = json.loads(made.coefvq("score", str(clip), "--json").stdout.splitlines()[0])
    assert "icd" in json.dumps(answer)
    refused = made.coefvq("train-base", "--issue", "icd", check=False)
    assert (refused.returncode, refused.stderr) == (
        2,
        "error: mine.yaml: no such file; run inside a workspace (coefvq init makes or completes one)\n",
    )
    change_recipe(made.root, {"models.presets": "presets.yaml"})
    refused = made.coefvq("train-base", "--issue", "icd", check=False)
    assert refused.returncode == 5
    assert refused.stderr.startswith("error: preset 'mine': unknown; expected one of onevision-0.5b, paper")


def test_an_unknown_recipe_is_one_line(tmp_path: Path) -> None:
    refused = Workspace(tmp_path).coefvq("init", "w", "--recipe", "huge", check=False)
    expected = "error: --recipe huge: unknown recipe; expected one of tiny, starter, onevision-0.5b, paper\n"
    assert (refused.returncode, refused.stderr) == (2, expected)


def test_a_workspace_of_the_old_form_is_converted_in_place(workspace: Workspace) -> None:
    root = workspace.root
    document = round_trip().load((root / "params.yaml").read_text())
    before = load_params(root / "params.yaml")
    document |= before.model_dump(mode="json", include={"media", "base", "mllm"})
    for settings in document["mllm"].values():
        settings["warmup"] = settings.pop("alignment")
    with (root / "params.yaml").open("w") as stream:
        round_trip().dump(document, stream)
    (root / "recipe.yaml").unlink()
    refused = workspace.coefvq("status", check=False)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "run `coefvq init --upgrade` in the workspace" in refused.stderr
    assert "converted" in workspace.coefvq("init", "--upgrade").stdout
    assert load_params(root / "params.yaml") == before
    workspace.dvc("commit", "--force", "--quiet")
    assert workspace.ran() == []
