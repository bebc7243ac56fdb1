"""Convert a workspace that was made before there were recipes: params.yaml held every model in full, per issue."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from coefvq.config import RECIPE_FILE, Recipe, parse_params, parse_recipe, read_mapping
from coefvq.documents import parse_yaml
from coefvq.errors import ConfigError
from coefvq.files import atomic_path, write_text
from coefvq.overrides import difference
from coefvq.shipped_recipes import RECIPES, shipped_recipe
from tasks.templates import template
from tasks.workspace import round_trip

_PER_ISSUE = ("media", "base", "mllm")
#: what pipelines of that form lack
_LATER_STAGE, _LATER_FILES = "teach", ("${models.presets}", "${paths.models}/${item}/teacher.parquet")
_COMMENT = "What differs for one issue from recipe.yaml, which says how models are made"


def upgrade(root: Path) -> list[str]:
    """Write recipe.yaml, and rewrite params.yaml and dvc.yaml in place; returns lines to tell.

    The settings of each issue stay what they were. Those that are as a shipped recipe has them become that recipe,
    else those of the first issue do; params.yaml keeps what differs.

    Raises:
        ConfigError: the folder is no workspace of that form, or a setting does not fit.
    """
    params = root / "params.yaml"
    if (root / RECIPE_FILE).exists():
        return [f"{root}: has a {RECIPE_FILE}; nothing to convert"]
    old = read_mapping(params)
    recipe, changes = converted(old, str(params))
    text = recipe_text(recipe)
    parse_params({**old, **changes}, recipe, str(params))
    # everything is worked out before the first file is written
    params_document, pipeline = _params_document(params, changes), _pipeline(root / "dvc.yaml")
    if not (root / "presets.yaml").exists():
        write_text(root / "presets.yaml", template("presets.yaml"))
    write_text(root / RECIPE_FILE, text)
    _write(params, params_document)
    _write(root / "dvc.yaml", pipeline)
    return [
        f"{root}: {RECIPE_FILE} and presets.yaml written; params.yaml and dvc.yaml converted; settings are the same",
        "  next: git add -A && git commit; then `dvc repro` trains again, to the same weights",
        "  or, if `dvc status` was clean before: `dvc commit --force` keeps the models that are there",
    ]


def converted(old: Mapping[str, Any], source: str) -> tuple[Recipe, dict[str, dict[str, dict[str, Any]]]]:
    """Settings of the old form -> the recipe, and what differs from it: section -> issue -> keys.

    Raises:
        ConfigError: a section is missing or a setting does not fit.
    """
    whole = {name: _models(old, name, source) for name in _PER_ISSUE}
    issues = [issue for issue in old.get("issues") or [] if issue in whole["mllm"]]
    if not issues:
        raise ConfigError(f"{source}: issues: expected at least one that has settings in mllm; add it")
    first = {"models": {"presets": "presets.yaml"}, **{name: part.get(issues[0], {}) for name, part in whole.items()}}

    def filled(name: str, issue: str, settings: dict[str, Any]) -> dict[str, Any]:
        # keys that the old file could leave out get the values that they had then
        recipe = parse_recipe({**first, name: settings}, f"{source}, issue {issue}")
        values: dict[str, Any] = recipe.model_dump(mode="json")[name]
        return values

    full = {name: {i: filled(name, i, settings) for i, settings in part.items()} for name, part in whole.items()}
    # a shipped section keeps its place and comments; else any issue's settings will do
    shipped = parse_yaml(_nearest(full["mllm"][issues[0]]["preset"]), "the shipped recipe", "reinstall coefvq")
    shared = {name: shipped[name] if shipped[name] in part.values() else part[issues[0]] for name, part in full.items()}
    recipe = parse_recipe({**first, **shared}, source)
    return recipe, {
        name: {issue: difference(shared[name], settings) for issue, settings in part.items()}
        for name, part in full.items()
    }


def _models(old: Mapping[str, Any], name: str, source: str) -> dict[str, dict[str, Any]]:
    section = old.get(name)
    if not isinstance(section, dict) or not all(isinstance(settings, dict) for settings in section.values()):
        raise ConfigError(f"{source}: {name}: expected a mapping for each issue; nothing was converted")
    return {
        issue: {"alignment" if key == "warmup" and name == "mllm" else key: value for key, value in settings.items()}
        for issue, settings in section.items()
    }


def recipe_text(recipe: Recipe) -> str:
    """recipe.yaml with the comments of the shipped recipe that is nearest, by its preset."""
    writer, shipped = round_trip(), _nearest(recipe.mllm.preset)
    document = writer.load(shipped)
    if parse_recipe(document, "shipped") == recipe:
        return shipped
    _set(document, recipe.model_dump(mode="json"))
    document.yaml_set_start_comment("How models of this workspace are made; converted from params.yaml.")
    stream = StringIO()
    writer.dump(document, stream)
    return stream.getvalue()


def _nearest(preset: str) -> str:
    return shipped_recipe(preset if preset in RECIPES else "tiny").text


def _set(document: Any, values: Mapping[str, Any]) -> None:
    """Values into a document key by key, so that comments stay; equal ones are not touched."""
    for key, value in values.items():
        below = document.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            _set(below, value)
        elif key not in document or below != value:
            document[key] = value


def _params_document(path: Path, changes: Mapping[str, Any]) -> Any:
    document = round_trip().load(path.read_text(encoding="utf-8"))
    for name, issues in changes.items():
        document[name] = dict(issues)
    document.yaml_set_comment_before_after_key(_PER_ISSUE[0], before=_COMMENT)
    return document


def _pipeline(path: Path) -> Any:
    """dvc.yaml with the stage it lacks and what its stages read of recipe.yaml; what a user added stays as it is."""
    document = round_trip().load(path.read_text(encoding="utf-8"))
    ours = read_pipeline()
    if "vars" not in document:
        document.insert(0, "vars", ours["vars"])
    for name, stage in ours["stages"].items():
        if name in document["stages"]:
            _add_missing(document["stages"][name].get("do", document["stages"][name]), stage.get("do", stage))
        elif name == _LATER_STAGE:
            document["stages"][name] = stage
    return document


def _add_missing(stage: Any, ours: Mapping[str, Any]) -> None:
    for kind in ("deps", "params"):
        for entry in ours.get(kind, []):
            if ("recipe.yaml" in entry or entry in _LATER_FILES) and entry not in stage.setdefault(kind, []):
                stage[kind].append(entry)


def read_pipeline() -> dict[str, Any]:
    """The pipeline of a new workspace."""
    document: dict[str, Any] = round_trip().load(template("dvc.yaml"))
    return document


def _write(path: Path, document: Any) -> None:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        round_trip().dump(document, stream)
