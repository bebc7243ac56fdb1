"""Commands are imported when they are asked for: what a list shows, what a command loads, what a plug-in may do."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from coefvq.__main__ import app
from coefvq.cli import lazy
from coefvq.cli.lazy import Later, entry, lazy_group
from coefvq.stages import STAGES

HEAVY = (
    "torch", "transformers", "peft", "mlflow", "sklearn", "scipy", "pandas", "pyarrow", "great_expectations", "prefect",
    "dvc", "av", "matplotlib", "numba", "whisper", "ray", "sqlalchemy", "fastapi",
)  # fmt: skip
#: runs a command in a workspace and prints the modules that it imported, whatever became of it
_RUN = """
import json, sys
from coefvq.__main__ import main
sys.argv = ["coefvq", *json.loads(sys.argv[1])]
try:
    main()
except SystemExit:
    pass
print(json.dumps(sorted(sys.modules)))
"""


def imported(folder: Path, *words: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", _RUN, json.dumps(words)], cwd=folder, capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def later(group: Any, path: str = "") -> dict[str, Later]:
    """Each command that is imported later, by its whole name."""
    found = {}
    for name, command in group.commands.items():
        if isinstance(command, Later):
            found[f"{path}{name}"] = command
            command = command.loaded()
        if hasattr(command, "commands"):
            found |= later(command, f"{path}{name} ")
    return found


def test_a_list_of_commands_imports_none_of_them(tmp_path: Path) -> None:
    modules = imported(tmp_path, "--version")
    assert {name for name in modules if name.startswith("coefvq.cli")} == {"coefvq.cli", "coefvq.cli.lazy"}
    modules = imported(tmp_path, "--help")
    assert modules.isdisjoint(HEAVY)
    # a plug-in says by itself what it does
    own = {name for name in modules if name.startswith("coefvq.cli.")}
    assert own <= {"coefvq.cli.lazy", "coefvq.cli.options", "coefvq.cli.numbers"}


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        (("vmp", "get", "clip0"), ()),
        (("vmp", "--help"), ()),
        (("vmp", "status"), ()),
        (("candidate", "--issue", "icd"), ("pandas", "pyarrow")),
        (("report", "--no-registry"), ("pandas", "pyarrow")),
    ],
)
def test_a_command_imports_what_it_needs_itself(
    words: tuple[str, ...], allowed: tuple[str, ...], tmp_path: Path, repository: Path
) -> None:
    for name in ("params.yaml", "recipe.yaml"):
        (tmp_path / name).write_text((repository / name).read_text())
    modules = imported(tmp_path, *words)
    assert modules & set(HEAVY) <= set(allowed)
    if words[0] != "vmp":
        assert not any(name.startswith("coefvq.cli.vmp") for name in modules)


def test_what_a_list_says_of_a_command_is_what_its_own_help_says() -> None:
    commands = later(typer.main.get_command(app))
    assert {stage.name for stage in STAGES} | {"score", "status", "vmp", "vmp get", "vmp audit"} <= set(commands)
    for name, command in commands.items():
        own = command.loaded()
        assert own.name == command.name, name
        if command.help is not None:
            assert own.help.split("\n\n")[0] == command.help, name
            assert getattr(own, "rich_help_panel", None) == command.rich_help_panel or hasattr(own, "commands"), name


def test_the_shell_completes_names_of_commands() -> None:
    group: Any = typer.main.get_command(app)
    context = group.make_context("coefvq", ["--help"], resilient_parsing=True)
    assert [found.value for found in group.shell_complete(context, "sta")] == ["stability", "status"]


def _plugged(monkeypatch: pytest.MonkeyPatch, value: str) -> typer.Typer:
    point = EntryPoint("mine", value, "some.commands")
    monkeypatch.setattr(lazy, "entry_points", lambda group: EntryPoints([point] if group == point.group else []))
    known = entry("known", "coefvq.cli.bayes:bayes", "A line.")
    program = typer.Typer(cls=lazy_group(lambda: [known, *lazy.plugins("some.commands", "Mine")]))
    program.callback()(lambda: None)
    return program


def test_a_plug_in_says_itself_what_it_does_and_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    program = _plugged(monkeypatch, "tests.unit.cli.test_lazy:a_plug_in")
    assert "Say a word." in CliRunner().invoke(program, ["--help"]).output
    assert CliRunner().invoke(program, ["mine", "aye"]).output == "aye\n"


def test_a_plug_in_that_does_not_import_breaks_no_other_command(monkeypatch: pytest.MonkeyPatch) -> None:
    program = _plugged(monkeypatch, "no_such_package.commands:mine")
    assert CliRunner().invoke(program, ["known", "--help"]).exit_code == 0
    assert isinstance(CliRunner().invoke(program, ["mine"]).exception, ModuleNotFoundError)


def test_a_wrong_name_is_refused_with_the_near_one() -> None:
    shown = CliRunner().invoke(app, ["scor"])
    assert shown.exit_code == 2
    assert "'score'" in shown.output


def a_plug_in(word: str) -> None:
    """Say a word."""
    typer.echo(word)
