"""Tenants of a stream: what each sets for itself, and where the settings are kept (docs/vmp.md, "Tenants").

Video ids, index, dead letters and change feed are a tenant's own; rules and budget may be. The pairs of models are
everybody's, and so are campaigns and the score cache, which go by content.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from coefvq.config.reading import validated
from coefvq.errors import ConfigError
from coefvq.files import read_yaml, write_text
from coefvq.vmp.budget import Limits, parse_rate
from coefvq.vmp.keys import DEFAULT, NAME
from coefvq.vmp.rules import Rules, load_rules, parse_rules

FILE = "tenants.yaml"
#: in place of a file: no tenants but the default one
NONE = Path("none")


TenantName = Annotated[str, Field(pattern=f"^{NAME}$")]


def _rules(value: Any) -> Any:
    """A rules file's content in place of its name."""
    try:
        return parse_rules(json.dumps(value), "rules") if isinstance(value, dict) else value
    except ConfigError as error:
        raise ValueError(str(error)) from error


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class TenantSettings(_Section):
    """One tenant: ``rules`` are a file, relative to the one that names it, or its content; None: those of the run.

    ``mllm_budget`` is a rate as of ``--mllm-budget``, within that of the run; the other two go with it.
    """

    rules: Annotated[Rules | str | None, BeforeValidator(_rules)] = None
    mllm_budget: str | None = None
    mllm_burst: Annotated[int, Field(ge=1, le=1_000_000)] = 8
    mllm_max_wait: Annotated[float, Field(ge=1.0, allow_inf_nan=False)] = 1800.0

    @field_validator("mllm_budget")
    @classmethod
    def _rate(cls, text: str | None) -> str | None:
        try:
            if text is not None:
                parse_rate(text)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return text

    @property
    def limits(self) -> Limits:
        """Its own budget; without one nothing but the whole budget bounds it."""
        if self.mllm_budget is None:
            return Limits()
        return Limits(parse_rate(self.mllm_budget), float(self.mllm_burst), self.mllm_max_wait)

    def resolved(self, folder: Path) -> Self:
        """With the rules read from their file below ``folder``.

        Raises:
            ConfigError: the file is missing or does not fit.
        """
        if not isinstance(self.rules, str):
            return self
        return self.model_copy(update={"rules": load_rules(folder / self.rules)})


class Tenants(_Section):
    """The tenants by name; ``default``, whose videos name no tenant, is always there and takes the run's rules."""

    tenants: dict[TenantName, TenantSettings]

    @model_validator(mode="after")
    def _default_has_no_rules(self) -> Self:
        if DEFAULT in self.tenants and self.tenants[DEFAULT].rules is not None:
            raise ValueError(f"{DEFAULT}.rules: its rules are those of --rules; remove the key")
        return self


Named = Mapping[str, TenantSettings]
NOBODY: Named = MappingProxyType({})


def load_tenants(path: Path) -> Named:
    """Read a file of tenants and the rules files that it names.

    Raises:
        ConfigError: a file is missing or does not fit; names file, key and remedy.
    """
    what = "--tenants takes a YAML file (docs/vmp.md), or the word none"
    raw = read_yaml(path, missing=what, remedy=what)
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected the key tenants; {what}")
    found = validated(Tenants, raw, str(path)).tenants
    return {name: one.resolved(path.parent) for name, one in found.items()}


def next_tenants(state: Path, given: Path | Named | None) -> Named:
    """The tenants that a run would take, with nothing kept: those given, else those kept with the state.

    Raises:
        ConfigError: a file is missing or does not fit.
    """
    kept = state / FILE
    if given is None:
        return load_tenants(kept) if kept.is_file() else {}
    if isinstance(given, Path):
        return {} if given == NONE else load_tenants(given)
    return given


def kept_tenants(state: Path, given: Path | Named | None) -> Named:
    """The tenants to run with; those given are kept from now on, with their rules.

    Raises:
        ConfigError: as ``next_tenants``; what was kept stays.
    """
    found = next_tenants(state, given)
    if given == NONE:
        (state / FILE).unlink(missing_ok=True)
    elif given is not None:
        text = Tenants(tenants=dict(found)).model_dump_json(indent=2, exclude_defaults=True)
        write_text(state / FILE, f"{text}\n")
    return found


def own_rules(tenants: Named, rules: Rules) -> dict[str, Rules]:
    """The rules of each tenant but the default one, whose rules are ``rules``.

    Raises:
        ConfigError: settings still name a file.
    """
    found = {}
    for name, one in tenants.items():
        if isinstance(one.rules, str):
            raise ConfigError(f"tenant '{name}': rules {one.rules} were not read")
        if name != DEFAULT:
            found[name] = rules if one.rules is None else one.rules
    return found
