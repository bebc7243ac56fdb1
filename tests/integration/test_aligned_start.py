"""A preset's aligned file from the command that makes it to the training that starts from it, in miniature."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from coefvq.files import sha256_file
from coefvq.simulation.synthetic.generate import generate
from tasks.workspace import change_params, create
from tests.integration.conftest import Workspace

_ALIGNMENT = {
    "projector_epochs": 0,
    "objective": "words",
    "epochs": 0,
    "per_device_train_batch_size": 8,
    "learning_rate": 0.01,
    "max_tokens": 16,
}
#: two steps of this rate leave a weight within a thousandth of where it started
_RATE, _NEAR = 0.0001, 1e-3


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Labelled clips up to their splits, and described clips of another world."""
    root = tmp_path_factory.mktemp("aligned")
    create(root, {"seed": 5, "issues": ["icd"], "media.icd.frames": 2, "mllm.icd.audio": True})
    change_params(
        root / "recipe.yaml",
        {"mllm.alignment": _ALIGNMENT, "mllm.training.learning_rate": _RATE, "mllm.training.num_train_epochs": 1},
    )
    generate(root / "data" / "raw", 60, 5, {"icd": 0.4, "ucc": 0.4})
    generate(root / "corpus", 16, 11, {"icd": 0.4, "ucc": 0.4})
    made = Workspace(root)
    made.coefvq("ingest")
    made.coefvq("validate")
    made.coefvq("split")
    return made


def align(workspace: Workspace, out: str, seed: str = "5") -> Path:
    """Run the command in miniature; the file."""
    options = ("--recipe", "recipe.yaml", "--data", "corpus", "--seed", seed, "--out", out, "--json")
    done = workspace.coefvq("models", "align", *options, "--projector-epochs", "2", "--epochs", "4")
    facts = json.loads(done.stdout)
    path = workspace.root / out
    assert facts["sha256"] == sha256_file(path)
    assert facts["saw"]["clips"] == 16
    assert facts["saw"]["synthetic_world"]["seed"] == 11
    return path


@pytest.mark.long
def test_a_training_starts_from_the_file_and_refuses_one_that_does_not_fit(workspace: Workspace) -> None:
    change_params(workspace.root / "recipe.yaml", {"media.frames": 2})
    path, again = align(workspace, "one.safetensors"), align(workspace, "two.safetensors")
    assert path.read_bytes() == again.read_bytes()
    other = align(workspace, "three.safetensors", seed="6")
    assert other.read_bytes() != path.read_bytes()

    start_from(workspace, path)
    workspace.coefvq("train-mllm", "--issue", "icd")
    folder = workspace.root / "models" / "icd" / "mllm"
    model, held = load_file(folder / "model.safetensors"), load_file(path)
    assert all(torch.allclose(model[name], tensor.float(), atol=_NEAR) for name, tensor in held.items())
    assert json.loads((folder / "config.json").read_text())["aligned"] == sha256_file(path)

    change_params(workspace.root / "recipe.yaml", {"mllm.aligned": False})
    workspace.coefvq("train-mllm", "--issue", "icd")
    fresh = load_file(folder / "model.safetensors")
    assert not all(torch.allclose(fresh[name], tensor.float(), atol=_NEAR) for name, tensor in held.items())
    assert "aligned" not in json.loads((folder / "config.json").read_text())

    start_from(workspace, other)
    done = workspace.coefvq("train-mllm", "--issue", "icd", check=False)
    assert done.returncode == 5
    assert "preset mine: aligned: aligned with other weights of language" in done.stderr
    start_from(workspace, path)
    path.write_bytes(path.read_bytes()[:-1])
    done = workspace.coefvq("train-mllm", "--issue", "icd", check=False)
    assert done.returncode == 5
    assert "the preset says" in done.stderr


@pytest.mark.long
def test_a_base_starts_from_its_file(workspace: Workspace) -> None:
    recipe = workspace.root / "recipe.yaml"
    sizes = {"width": 16, "heads": 2, "layers": 1, "dropout": 0.1, "feature_noise": 0.1, "members": 2}
    change_params(
        recipe, {"media.frames": 2, "base.architecture": "attention", "base.attention": sizes, "base.audio": True}
    )
    change_params(recipe, {"base.training.learning_rate": _RATE, "base.training.num_train_epochs": 1})
    done = workspace.coefvq("models", "align", "--model", "base", "--recipe", "recipe.yaml", "--data", "corpus",
                            "--epochs", "3", "--out", "base.safetensors")  # fmt: skip
    path = workspace.root / "base.safetensors"
    assert f"aligned_base: {{file: base.safetensors, sha256: {sha256_file(path)}}}" in done.stdout
    body = {"mine": {"extends": "tiny", "aligned_base": {"file": path.name, "sha256": sha256_file(path)}}}
    (workspace.root / "presets.yaml").write_text(yaml.safe_dump(body))
    change_params(recipe, {"base.preset": "mine", "base.aligned": True, "base.freeze_towers": True})
    workspace.coefvq("train-base", "--issue", "icd")
    folder = workspace.root / "models" / "icd" / "base"
    model, held = load_file(folder / "model.safetensors"), load_file(path)
    for name, tensor in held.items():
        for head in range(2):
            assert torch.allclose(model[f"heads.{head}.{name}"], tensor.float(), atol=_NEAR)
    assert json.loads((folder / "config.json").read_text())["aligned"] == sha256_file(path)


def start_from(workspace: Workspace, path: Path) -> None:
    """A preset of one's own with this file, and a recipe that uses it."""
    body = {"mine": {"extends": "tiny", "aligned": {"file": path.name, "sha256": sha256_file(path)}}}
    (workspace.root / "presets.yaml").write_text(yaml.safe_dump(body))
    change_params(workspace.root / "recipe.yaml", {"mllm.preset": "mine", "mllm.aligned": True})


@pytest.mark.parametrize(
    ("options", "code", "expected"),
    [
        (("--recipe", "tiny"), 2, "mllm.alignment is null"),
        pytest.param(
            ("--recipe", "recipe.yaml", "--model", "base", "--projector-epochs", "1"),
            2,
            "a base has no projectors",
            marks=pytest.mark.long,
        ),
        pytest.param(
            ("--recipe", "recipe.yaml", "--model", "base"), 5, "only attention can be aligned", marks=pytest.mark.long
        ),
        pytest.param(("--recipe", "nowhere"), 2, "unknown recipe", marks=pytest.mark.long),
        pytest.param(
            ("--recipe", "recipe.yaml", "--projector-epochs", "0", "--epochs", "0"),
            2,
            "nothing would be trained",
            marks=pytest.mark.long,
        ),
        pytest.param(("--recipe", "recipe.yaml", "--data", "nowhere"), 3, "nowhere", marks=pytest.mark.long),
        pytest.param(
            ("--recipe", "recipe.yaml", "--data", "bare"), 3, "no clip has a description", marks=pytest.mark.long
        ),
        (("--recipe", "recipe.yaml", "--data", "broken"), 3, "cannot be read, first: "),
    ],
)
def test_what_cannot_be_aligned_is_refused_by_one_line(
    workspace: Workspace, options: tuple[str, ...], code: int, expected: str
) -> None:
    for name, caption in (("bare", ""), ("broken", ",a knife")):
        folder = workspace.root / name
        folder.mkdir(exist_ok=True)
        (folder / "a.mp4").write_bytes(b"no clip")
        head = "file_name,title,caption" if caption else "file_name,title"
        (folder / "metadata.csv").write_text(f"{head}\na.mp4,x{caption}\n")
    # the workspace is that of the tests above
    change_params(workspace.root / "recipe.yaml", {"base.architecture": "multitower"})
    given = options if "--data" in options else (*options, "--data", "corpus")
    done = workspace.coefvq("models", "align", *given, "--out", "refused.safetensors", check=False)
    assert (done.returncode, expected in done.stderr) == (code, True), done.stderr
    assert not (workspace.root / "refused.safetensors").exists()
