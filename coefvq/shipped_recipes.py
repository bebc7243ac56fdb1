"""The recipes that ship: ``coefvq/recipes/*.yaml``, written into a workspace by ``coefvq init``."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from coefvq.documents import parse_yaml
from coefvq.errors import ConfigError

RECIPES = ("tiny", "starter", "onevision-0.5b", "paper")
# the last section of a shipped recipe, with the comment above it
_OVERRIDES = "\n# What differs for one issue;"


@dataclass(frozen=True)
class ShippedRecipe:
    """``text`` is a workspace's recipe.yaml; ``overrides`` go into params.yaml: section -> issue -> changed keys."""

    text: str
    overrides: dict[str, dict[str, dict[str, Any]]]


def shipped_recipe(name: str) -> ShippedRecipe:
    """A recipe by name.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in RECIPES:
        raise ConfigError(f"--recipe {name}: unknown recipe; expected one of {', '.join(RECIPES)}")
    whole = (files("coefvq") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    text, mark, rest = whole.partition(_OVERRIDES)
    return ShippedRecipe(text, parse_yaml(mark + rest, f"recipe {name}", "reinstall coefvq")["overrides"])
