"""The whole of params.yaml, with the recipe's settings filled in for each issue."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from coefvq.config.cascade import Evaluate, Gate, Predict, Stability, Thresholds, Tracking
from coefvq.config.data import Ingest, LabelNames, Loading, Paths, Runtime, Split, Validate
from coefvq.config.models import BaseModelParams, MediaSpec, MLLMParams, Models
from coefvq.config.values import IssueName, Section, check_issue_name
from coefvq.errors import ConfigError


class Params(Section):
    """The whole of params.yaml, with the recipe's settings filled in for each issue."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    issues: Annotated[tuple[IssueName, ...], Field(min_length=1)]
    label_names: dict[IssueName, LabelNames] = Field(default={})
    paths: Paths
    runtime: Runtime
    ingest: Ingest
    validate_: Annotated[Validate, Field(alias="validate")]
    split: Split
    models: Models
    media: dict[IssueName, MediaSpec]
    base: dict[IssueName, BaseModelParams]
    mllm: dict[IssueName, MLLMParams]
    loading: Loading
    predict: Predict
    evaluate: Evaluate
    thresholds: dict[IssueName, Thresholds]
    stability: Stability
    gate: Gate
    tracking: Tracking

    @model_validator(mode="after")
    def _each_issue_is_configured(self) -> Self:
        sections: dict[str, dict[str, Any]] = {
            "ingest.labels": dict(self.ingest.labels),
            "validate.prevalence": dict(self.validate_.prevalence),
            "media": dict(self.media),
            "base": dict(self.base),
            "mllm": dict(self.mllm),
            "thresholds": dict(self.thresholds),
        }
        _check_distinct(self.issues)
        for issue in self.label_names:
            if issue not in self.issues:
                raise ValueError(f"label_names.{issue}: '{issue}' is not one of issues; correct it or take it out")
        for issue in self.issues:
            for name, section in sections.items():
                if issue not in section:
                    raise ValueError(f"issue '{issue}' is listed in issues but {name}.{issue} is missing")
        return self

    @model_validator(mode="after")
    def _the_gate_asks_for_figures_that_are_made(self) -> Self:
        for name in self.gate.min_metrics:
            if name not in self.evaluate.metrics:
                raise ValueError(f"gate.min_metrics.{name}: '{name}' is not in evaluate.metrics; add it there")
        return self

    @model_validator(mode="after")
    def _a_shared_mllm_has_one_setting(self) -> Self:
        """DVC compares for each issue its own settings, so those of a shared MLLM must be equal."""
        for issue in self.issues:
            members = self.mllm[issue].issues_with(issue)
            _check_distinct(members)
            for member in members:
                if member not in self.issues:
                    raise ValueError(
                        f"mllm.{issue}.shared: '{member}' is not one of issues; add it there, or take it out"
                    )
                for name, section in (("media", self.media), ("mllm", self.mllm)):
                    _check_equal(name, issue, member, section[issue].model_dump(), section[member].model_dump())
        return self

    def check_issue(self, issue: str) -> str:
        """Return ``issue`` if it is configured.

        Raises:
            ConfigError: it is not one of ``issues``.
        """
        if issue not in self.issues:
            raise ConfigError(f"--issue {issue}: expected one of {', '.join(self.issues)} (issues in params.yaml)")
        return issue


def check_issue_names(option: str, names: Sequence[str]) -> list[str]:
    """Names given on the command line, by the rule that ``issues`` in params.yaml is held to.

    Raises:
        ConfigError: one is no name of an issue, or comes twice.
    """
    for name in names:
        try:
            check_issue_name(name)
        except ValueError as error:
            raise ConfigError(f"{option} {name!r}: expected {error}") from error
    try:
        _check_distinct(names)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from error
    return list(names)


def _check_distinct(issues: Sequence[str]) -> None:
    twice = next((name for name in issues if issues.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"issue '{twice}' comes twice; name each issue once")


def _check_equal(section: str, issue: str, other: str, mine: Any, theirs: Any, key: str = "") -> None:
    """Settings of two issues that share an MLLM, key by key."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for name, value in mine.items():
            _check_equal(section, issue, other, value, theirs[name], f"{key}.{name}")
    elif mine != theirs:
        raise ValueError(
            f"{section}.{other}{key} = {_yaml(theirs)}, {section}.{issue}{key} = {_yaml(mine)}: {issue} and {other} "
            "share one MLLM (mllm.shared), so both need the same value; make them equal, or set mllm.shared: null"
        )


def _yaml(value: Any) -> str:
    """A setting as the file has it; JSON is YAML."""
    return json.dumps(value)
