"""Write docs/settings.md: every key of params.yaml and recipe.yaml, from the models that check them.

    python docs/settings.py          tests/unit/test_settings_page.py fails where the page is out of date

Type, limits and default come from coefvq/config, a section's text from its docstring, a key's from the comment
beside it in params.yaml and recipe.yaml.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from inspect import cleandoc
from pathlib import Path
from typing import Any

from coefvq.config import Params, Recipe

TOP = Path(__file__).resolve().parent.parent
PAGE = TOP / "docs" / "settings.md"
_INTRO = """# Settings

Every key of the two files of settings. This page is written by `make docs` from `coefvq/config`, where each key is
checked, and from the comments in the files. A key without a default must be there.
"""
_PARAMS = """## params.yaml

What is answered, per workspace. `media`, `base` and `mllm` hold for each issue the keys of recipe.yaml that differ.
"""
_RECIPE = """## recipe.yaml

How models are made. `coefvq init --recipe NAME` writes one that ships.
"""
_LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_NAMES = {"integer": "integer", "number": "number", "boolean": "true or false", "string": "text", "null": "null"}
_LINE = re.compile(r"^(?P<indent> *)(?P<key>[a-z_0-9]+):(?P<value>[^#]*)(?:# (?P<comment>.*))?$")


def page() -> str:
    """The whole page."""
    recipe = Recipe.model_json_schema()
    shared = set(recipe["properties"])
    params = Params.model_json_schema()
    params["properties"] = {key: value for key, value in params["properties"].items() if key not in shared}
    parts = [_INTRO, _PARAMS, *sections(params, comments("params.yaml"))]
    return "\n".join([*parts, _RECIPE, *sections(recipe, comments("recipe.yaml"))])


def comments(name: str) -> dict[str, str]:
    """Dotted key -> the comment on its line, in a file of settings at the repository's top."""
    parents: list[tuple[int, str]] = []
    texts = {}
    for line in (TOP / name).read_text(encoding="utf-8").splitlines():
        if match := _LINE.match(line):
            parents = [(indent, key) for indent, key in parents if indent < len(match["indent"])]
            parents.append((len(match["indent"]), match["key"]))
            if match["comment"]:
                texts[".".join(key for _, key in parents)] = match["comment"]
    return texts


def sections(schema: Mapping[str, Any], texts: Mapping[str, str]) -> Iterator[str]:
    """A table per section, in the order of the schema; a section that several keys share comes once."""
    places: dict[str, list[str]] = {}
    _find(schema, schema["$defs"], "", places)
    keys = {key: value for key, value in schema["properties"].items() if not _model(value)}
    if keys:
        yield _table(keys, set(schema["required"]), [""], texts)
    for name, dotted in places.items():
        model = schema["$defs"][name]
        heading = ", ".join(f"`{key}`" for key in dotted)
        text = cleandoc(model["description"]).replace("``", "`")
        yield f"### {heading}\n\n{text}\n"
        yield _table(model["properties"], set(model.get("required", ())), dotted, texts)


def _find(schema: Mapping[str, Any], models: Mapping[str, Any], prefix: str, places: dict[str, list[str]]) -> None:
    for key, value in schema["properties"].items():
        if name := _model(value):
            per_issue = ".ISSUE" if value.get("type") == "object" else ""
            dotted = f"{prefix}{key}{per_issue}"
            places.setdefault(name, []).append(dotted)
            _find(models[name], models, f"{dotted}.", places)


def _model(value: Mapping[str, Any]) -> str | None:
    """Name of the section that a key holds: itself, for each issue, or where it is not null."""
    options = [value, value.get("additionalProperties"), *value.get("anyOf", ())]
    names = [option["$ref"].rpartition("/")[2] for option in options if isinstance(option, dict) and "$ref" in option]
    return names[0] if names else None


def _table(keys: Mapping[str, Any], required: set[str], dotted: list[str], texts: Mapping[str, str]) -> str:
    optional = any(key not in required for key in keys)
    rows = [["key", "value", *(["default"] if optional else []), ""], ["---"] * (4 if optional else 3)]
    for key, value in keys.items():
        default = [] if key in required else [f"`{_yaml(value.get('default'))}`"]
        # a comment inside a section of one issue is about all
        places = [f"{place}.{key}".removeprefix(".").replace(".ISSUE", "") for place in dotted]
        comment = next((texts[place] for place in places if place in texts), "")
        rows.append([f"`{key}`", _kind(value), *(default or [""] * optional), comment.replace("|", "\\|")])
    return "\n".join(f"| {' | '.join(row)} |".replace("  ", " ") for row in rows) + "\n"


def _kind(value: Mapping[str, Any]) -> str:
    if "anyOf" in value:
        return " or ".join(_kind(option) for option in value["anyOf"])
    if "enum" in value or "const" in value:
        return " or ".join(f"`{_yaml(option)}`" for option in value.get("enum", [value.get("const")]))
    if "prefixItems" in value:
        return f"[{', '.join(_kind(item) for item in value['prefixItems'])}]"
    if value.get("type") == "array":
        return f"list of: {_kind(value['items'])}"
    if value.get("type") == "object":
        key = "word of the manifest" if "propertyNames" in value else "issue"
        return f"for each {key}: {_kind(value['additionalProperties'])}"
    if "$ref" in value:
        return "section"
    limits = [f"{sign} {value[name]}" for name, sign in _LIMITS.items() if name in value]
    limits += [f"a multiple of {value['multipleOf']}"] if "multipleOf" in value else []
    return " ".join([_NAMES[value["type"]], ", ".join(limits)]).strip()


def _yaml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    return value if isinstance(value, str) else json.dumps(value)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
