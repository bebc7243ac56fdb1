"""What exists twice must agree: dvc.yaml, the stage table, the commands, the config; and the house rules."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel

from coefvq.config import Params, Recipe
from coefvq.stages import STAGES, Stage
from tasks.templates import template

BY_NAME = {stage.name: stage for stage in STAGES}
#: sections no stage depends on: places and speed
FREE = {"paths", "runtime"}
TASK_BODY_LINES = 10


@pytest.fixture(scope="module")
def pipeline() -> dict[str, Any]:
    stages: dict[str, Any] = yaml.safe_load(template("dvc.yaml"))["stages"]
    return stages


def body(stage: dict[str, Any]) -> dict[str, Any]:
    inner: dict[str, Any] = stage.get("do", stage)
    return inner


def test_same_stages_in_both_places(pipeline: dict[str, Any]) -> None:
    assert list(pipeline) == list(BY_NAME)


@pytest.mark.parametrize("stage", STAGES, ids=lambda s: s.name)
def test_command_and_params_agree(stage: Stage, pipeline: dict[str, Any]) -> None:
    entry = pipeline[stage.name]
    assert ("foreach" in entry) == stage.per_issue
    suffix = " --issue ${item}" if stage.per_issue else ""
    assert body(entry)["cmd"] == f"python -m coefvq {stage.name}{suffix}"
    listed = [name.replace("${item}", "{issue}") for name in body(entry)["params"] if isinstance(name, str)]
    assert sorted(listed) == sorted(stage.sections)
    assert [name for name in body(entry)["params"] if not isinstance(name, str)] == (
        [{"recipe.yaml": list(stage.recipe)}] if stage.recipe else []
    )
    # the user's own presets are read where models are built anew
    assert ("${models.presets}" in body(entry)["deps"]) == ("models" in stage.recipe)


def test_the_tree_of_settings_stops_at_the_command_line(repository: Path) -> None:
    """Below it, and in the stages, functions take the values they need."""
    importers = set()
    for path in (repository / "coefvq").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and any(
                alias.name in ("Params", "load_params") for alias in node.names
            ):
                importers.add(path.relative_to(repository / "coefvq").parts[0])
    assert importers == {"cli", "config"}


def test_declared_sections_exist_in_the_config() -> None:
    known = {field.alias or name for name, field in Params.model_fields.items()}
    declared = {section.partition(".")[0] for stage in STAGES for section in (*stage.sections, *stage.recipe)}
    assert {section for stage in STAGES for section in stage.recipe} == set(Recipe.model_fields)
    for stage in STAGES:
        # what the recipe says for all issues, params.yaml may change for one
        both = {section.partition(".")[0] for section in stage.sections} & set(Recipe.model_fields)
        assert both == set(stage.recipe) - {"models"}
    assert declared | FREE | {"gate", "label_names"} == known


def test_no_output_is_written_by_two_stages(pipeline: dict[str, Any]) -> None:
    paths = [
        path
        for entry in pipeline.values()
        for kind in ("outs", "metrics", "plots")
        for item in body(entry).get(kind, [])
        for path in ([item] if isinstance(item, str) else item)
    ]
    assert len(paths) == len(set(paths))


def is_task(decorator: ast.expr) -> bool:
    name = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(name, ast.Name) and name.id == "task"


def test_task_bodies_are_short(repository: Path) -> None:
    long = {}
    for path in [*(repository / "tasks").glob("*.py"), *(repository / "flows").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and any(is_task(d) for d in node.decorator_list):
                lines = (node.end_lineno or 0) - node.body[0].lineno
                if lines > TASK_BODY_LINES:
                    long[f"{path.name}:{node.name}"] = lines
    assert not long


def test_functions_stay_under_sixty_lines(repository: Path) -> None:
    long = {}
    for folder in ("coefvq", "tasks", "flows"):
        for path in (repository / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= 60:
                    long[f"{path.name}:{node.name}"] = (node.end_lineno or 0) - node.lineno
    assert not long


def test_nothing_unpickles(repository: Path) -> None:
    wanted = ("pickle", "joblib", "dill", "cloudpickle")
    found = []
    for folder in ("coefvq", "tasks", "flows"):
        for path in (repository / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                found += [f"{path.name}: {name}" for name in names if name.partition(".")[0] in wanted]
                called = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr
                receiver = ast.dump(node.func) if isinstance(node, ast.Call) else ""
                found += [f"{path.name}: torch.load"] if called == "load" and "torch" in receiver else []
                # a Connection's recv and a ForkingPickler's loads unpickle as well
                found += [f"{path.name}: .recv"] if called == "recv" else []
                found += [f"{path.name}: ForkingPickler.loads"] if called == "loads" and "json" not in receiver else []
    # what a worker is asked, in the worker alone; what it answers is JSON
    assert set(found) == {"limited_worker.py: pickle", "limited_worker.py: ForkingPickler.loads"}


def test_a_stranger_s_clip_is_opened_in_limited_workers_only(repository: Path) -> None:
    """Who calls a decoder: functions that limited workers run (each named where it is mapped), with limits given."""
    decoders = {"decode_clip": 5, "decode_frames": 4, "decode_audio": 3, "stream_info": 2}
    calls, defaults = set(), []
    for path in (repository / "coefvq").rglob("*.py"):
        if path.name == "decode.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                arguments = [*node.args.defaults, *(value for value in node.args.kw_defaults if value)]
                defaults += [f"{path.name}: {node.name}" for value in arguments if "DEFAULT_LIMITS" in ast.dump(value)]
                for call in ast.walk(node):
                    name = call.func.id if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) else ""
                    if isinstance(call, ast.Call) and name in decoders:
                        assert len(call.args) == decoders[name], f"{path.name}: {node.name} gives no limits to {name}"
                        calls.add(f"{path.name}: {node.name}")
    assert calls == {
        "clips.py: _decoded",
        "footage.py: _prepared",
        "probe_worker.py: _decoded",
        "thumbnails.py: _thumbnail",
    }
    assert defaults == []


def optional(kind: Any, key: str) -> dict[str, Any]:
    """Dotted keys with a default below a type of the schema, and their values."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        found: dict[str, Any] = {}
        for name, field in kind.model_fields.items():
            below = f"{key}.{field.alias or name}".removeprefix(".")
            found |= optional(field.annotation, below)
            if not field.is_required():
                found[below] = field.get_default(call_default_factory=True)
        return found
    arguments = get_args(kind)
    if get_origin(kind) is dict:
        return optional(arguments[1], f"{key}.<issue>")
    return {name: value for argument in arguments for name, value in optional(argument, key).items()}


def test_the_documents_say_how_many_keys_may_be_left_out(repository: Path) -> None:
    # which ones and what they are then is in docs/settings.md, which is generated
    assert f"except {len(optional(Params, ''))} whose value" in (repository / "docs" / "architecture.md").read_text()


#: who may print, and who may read JSON or YAML: strict parsers, rows of strangers' tables, what we wrote ourselves
PRINTERS = {"coefvq/terminal.py", "coefvq/faults.py", "coefvq/__main__.py"}
READERS = {
    "coefvq/compute/answers.py",
    "coefvq/documents.py",
    "coefvq/data/batches.py",
    "coefvq/data/descriptions.py",
    "coefvq/data/importers/text_readers.py",
    "coefvq/data/importers/values.py",
    "coefvq/data/media/probe_cache.py",
    "coefvq/simulation/reupload/folder.py",
    "coefvq/registry/serving.py",
    "coefvq/inference/bulk.py",
    "coefvq/training/arguments.py",
    "coefvq/training/checkpoints.py",
}


def test_one_door_out_and_one_strict_reader(repository: Path) -> None:
    printing, reading = set(), set()
    for top in ("coefvq", "tasks", "flows"):
        for path in sorted((repository / top).rglob("*.py")):
            name = path.relative_to(repository).as_posix()
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    called = ast.unparse(node.func)
                    printing |= {name} if called in ("print", "typer.echo") else set()
                    reading |= {name} if called in ("json.loads", "json.load", "loads", "yaml.safe_load") else set()
    assert printing <= PRINTERS
    assert reading <= READERS
