"""``--params ELSEWHERE/params.yaml`` means that workspace, whichever command it is given to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from coefvq.__main__ import app
from coefvq.cli.lazy import Later
from coefvq.cli.workspace import given, open_workspace
from coefvq.errors import CoefVQError, ConfigError

# what commands need beside --params; they stop where the workspace has no data
REQUIRED = {
    "--issue": "icd",
    "--by": "ana",
    "--reason": "why",
    "--labels": "labels.csv",
    "--verdict": "live",
    "--rows": "1000",
}
ARGUMENTS = {
    "cascade fit": ["scores.csv", "--precision", "0.3"],
    "score": ["clip.mp4"],
    "plan": ["--tflops", "1"],
    "retune": ["icd"],
    "vmp audit draw": ["--labels", "5", "--out", "label.csv"],
    "vmp audit import": ["--draw", "1"],
    "vmp check": ["--config", "vmp.yaml"],
    "vmp dlq drop": ["a"],
    "vmp dlq show": ["a"],
    "vmp export": ["../index.csv"],
    "vmp forget": ["a"],
    "vmp get": ["a"],
    "vmp override": ["a"],
    "vmp publish": ["--delete", "a"],
    "vmp rules test": ["rules.yaml"],
    "vmp run": ["--once"],
    "vmp mllm": ["--once"],
}


@pytest.fixture
def workspace(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with its settings alone; the test stands in another folder."""
    root, elsewhere = tmp_path / "work space", tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir()
    for name in ("params.yaml", "recipe.yaml"):
        (root / name).write_text((repository / name).read_text())
    (elsewhere / "clip.mp4").write_bytes(b"")
    for name in ("MLFLOW_TRACKING_URI", "COEFVQ_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(elsewhere)
    return root


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, later in group.commands.items():
        command = later.loaded() if isinstance(later, Later) else later
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        elif any("--params" in option.opts for option in command.params):
            yield " ".join((*path, name)), command


def test_no_command_with_params_looks_into_the_folder_it_is_called_from(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = Path.cwd()
    found = dict(commands(typer.main.get_command(app)))
    assert len(found) >= 30
    # a new tracking store takes seconds; that register makes it in the right place is seen with a real one
    del found["register"]
    for name, command in found.items():
        monkeypatch.chdir(elsewhere)
        words = [*name.split(), *ARGUMENTS.get(name, []), "--params", "../work space/params.yaml"]
        for option in command.params:
            words += [word for flag in option.opts if option.required and flag in REQUIRED and flag not in words
                      for word in (flag, REQUIRED[flag])]  # fmt: skip
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0 or isinstance(result.exception, CoefVQError), (name, result.output)
        assert [path.name for path in elsewhere.iterdir()] == ["clip.mp4"], name
    # the state of a stream and the feature cache are the workspace's
    assert (workspace / "vmp" / "log.sqlite").is_file()


def test_relative_paths_of_the_settings_start_in_the_workspace(workspace: Path) -> None:
    result = CliRunner().invoke(app, ["features", "stats", "--json", "--params", str(workspace / "params.yaml")])
    assert (workspace / json.loads(result.output)["root"]).is_relative_to(workspace / ".coefvq")
    assert Path.cwd() == workspace


def test_paths_from_the_command_line_start_where_it_is_called(workspace: Path) -> None:
    elsewhere = Path.cwd()
    params = workspace / "params.yaml"
    assert given(Path("clip.mp4"), params) == elsewhere / "clip.mp4"
    assert given(Path("/clips/a.mp4"), params) == Path("/clips/a.mp4")
    assert open_workspace(params).issues == ("icd", "ucc")
    # from within the workspace a path stays as it was typed
    assert given(Path("clip.mp4"), Path("params.yaml")) == Path("clip.mp4")
    assert given(Path("clip.mp4"), params) == Path("clip.mp4")


def test_settings_that_are_wrong_change_no_folder(workspace: Path) -> None:
    elsewhere = Path.cwd()
    with pytest.raises(ConfigError, match="no such file"):
        open_workspace(workspace / "none.yaml")
    assert Path.cwd() == elsewhere
