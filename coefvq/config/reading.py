"""Reading params.yaml and recipe.yaml: one setting per issue, and errors that name the key and the remedy."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from coefvq.config.models import Recipe
from coefvq.config.params import Params
from coefvq.errors import ConfigError
from coefvq.files import read_yaml
from coefvq.overrides import merged
from coefvq.redaction import redact

PARAMS_FILE = Path("params.yaml")
RECIPE_FILE = Path("recipe.yaml")

_Model = TypeVar("_Model", bound=BaseModel)


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check a params file and the recipe beside it.

    Raises:
        ConfigError: a file is missing, is not YAML, or a key does not fit.
    """
    raw = read_mapping(path)
    recipe = path.with_name(RECIPE_FILE.name)
    if not recipe.is_file():
        check_form(raw, path)
    return parse_params(raw, load_recipe(recipe), str(path))


def check_form(raw: dict[str, Any], path: Path) -> None:
    """Refuse a params file of the form that was used before there were recipes.

    Raises:
        ConfigError: it holds whole models; the message says how to convert.
    """
    base = raw.get("base")
    if isinstance(base, dict) and any(isinstance(part, dict) and "preset" in part for part in base.values()):
        raise ConfigError(
            f"{path}: written before there was a {RECIPE_FILE}; run `coefvq init --upgrade` in the workspace"
        )


def load_recipe(path: Path = RECIPE_FILE) -> Recipe:
    """Read and check a recipe.

    Raises:
        ConfigError: the file is missing, is not YAML, or a key does not fit.
    """
    return parse_recipe(read_mapping(path), str(path))


def parse_recipe(raw: dict[str, Any], source: str) -> Recipe:
    """Check an already parsed recipe; ``source`` is named in errors.

    Raises:
        ConfigError: a key does not fit.
    """
    return validated(Recipe, raw, source)


def read_mapping(path: Path) -> dict[str, Any]:
    """A YAML file of named sections.

    Raises:
        ConfigError: the file is missing, is not YAML, or holds no mapping.
    """
    raw = read_yaml(
        path,
        missing="run inside a workspace (coefvq init makes or completes one)",
        remedy="check indentation and quotes",
    )
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, got {type(raw).__name__}")
    return raw


def parse_params(raw: dict[str, Any], recipe: Recipe, source: str = "params.yaml") -> Params:
    """Check an already parsed params file, with the recipe filled in; ``source`` is named in errors.

    Raises:
        ConfigError: a key does not fit.
    """
    if "models" in raw:
        raise ConfigError(f"{source}: models: belongs in {RECIPE_FILE.name}; move it there")
    filled = {**raw, "models": recipe.models.model_dump(mode="json")}
    for name in ("media", "base", "mllm"):
        settings, section = getattr(recipe, name).model_dump(mode="json"), raw.get(name)
        if isinstance(section, dict):
            filled[name] = {
                issue: merged(settings, changes) if isinstance(changes, dict) else changes
                for issue, changes in section.items()
            }
    return validated(Params, filled, source)


def validated(model: type[_Model], raw: object, source: str, remedy: str | None = None) -> _Model:
    """Check a document of a user; ``source`` is named in errors, which end with ``remedy``.

    Raises:
        ConfigError: a key does not fit; one line.
    """
    try:
        # JSON mode: strict types, yet YAML lists may fill tuples
        return model.model_validate_json(json.dumps(raw, default=str))
    except ValidationError as error:
        reasons = [_explain(item, model) for item in error.errors()[:3]]
        if remedy is None and any(item["type"] == "missing" for item in error.errors()[:3]):
            remedy = "`coefvq init` in an empty folder shows a value"
        raise ConfigError(f"{source}: " + "; ".join([*reasons, *([remedy] if remedy else [])])) from error


def _explain(item: Any, model: type[BaseModel]) -> str:
    path = [part for part in item["loc"] if part != "[key]"]
    key = ".".join(str(part) for part in path) or "(top level)"
    if item["type"] == "extra_forbidden":
        return f"{key}: unknown key{_suggestion(path, model)}"
    if item["type"] == "missing":
        return f"{key}: missing key; add it"
    if item["type"] == "value_error":
        return f"{key}: {item['ctx']['error']}"
    value = redact(json.dumps(item["input"], default=str))
    value = value if len(value) <= 60 else value[:57] + "..."
    return f"{key} = {value}: expected {_expected(item)}"


def _expected(item: Any) -> str:
    text = str(item["msg"]).replace("Input should be ", "").strip()
    return text[0].lower() + text[1:]


def _suggestion(path: list[Any], model: type[BaseModel]) -> str:
    names = _known_keys(path[:-1], model)
    near = difflib.get_close_matches(str(path[-1]), names, n=1, cutoff=0.5)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known here: {', '.join(sorted(names))}" if names else "; remove it"


def _known_keys(parents: list[Any], model: type[BaseModel]) -> list[str]:
    """Field names of the section at ``parents``, walked through the schema rather than retyped."""
    schema = model.model_json_schema(by_alias=True)
    node: dict[str, Any] = schema
    for part in parents:
        child = node.get("properties", {}).get(part) or node.get("additionalProperties") or _first(node, part)
        if not isinstance(child, dict):
            return []
        child = next((choice for choice in child.get("anyOf", ()) if "$ref" in choice), child)  # may be null
        node = schema["$defs"][child["$ref"].split("/")[-1]] if "$ref" in child else child
    return list(node.get("properties", {}))


def _first(node: dict[str, Any], key: Any) -> dict[str, Any] | None:
    patterns: dict[str, Any] = node.get("patternProperties", {})
    return next(iter(patterns.values()), None)
