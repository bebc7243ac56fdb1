"""Workspaces: a git + DVC repository with the pipeline's files."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from coefvq.config import RECIPE_FILE, check_form, read_mapping
from coefvq.errors import CoefVQError, ConfigError
from coefvq.files import write_json, write_text
from coefvq.records import label_column
from coefvq.registry.store import DATABASE, sqlite_uri
from coefvq.reporting.plots_template import offline_template, series_template
from coefvq.shipped_recipes import shipped_recipe
from tasks.templates import GENERIC, TEMPLATES, params_for, template

# what DVC keeps stands here from the start: the lines that it writes itself go when a stage fails, and the next
# `git add --all` would commit an output ("already tracked by SCM")
_IGNORED = (
    "/data/raw\n/data/manifest.parquet\n/data/splits.parquet\n/models/\n/reports/*/scores.parquet\n"
    "/.coefvq/\n/mlflow.db*\n/mlartifacts/\n/mlruns/\n/reports/data_docs/\n/reports/*/report.html\n"
    "/unseen/\n/vmp/\n/dvc_plots/\n"
)
#: sections of params.yaml that hold what differs from the recipe
_OVERRIDABLE = ("media", "base", "mllm")
#: sections of params.yaml that hold settings of each issue
_PER_ISSUE = ("ingest.labels", "validate.prevalence", "media", "base", "mllm", "thresholds")
_IDENTITY = ("-c", "user.name=coefvq", "-c", "user.email=coefvq@localhost")


def git(root: Path, *arguments: str) -> str:
    """Run git, with an identity of its own where the user has none.

    Raises:
        CoefVQError: git failed.
    """
    done = subprocess.run(["git", *_identity(root), *arguments], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise CoefVQError(f"{root}: git {arguments[0]} failed: {reason[-1]}")
    return done.stdout.strip()


def _identity(root: Path) -> tuple[str, ...]:
    known = subprocess.run(["git", "config", "user.email"], cwd=root, capture_output=True, check=False)
    return () if known.returncode == 0 else _IDENTITY


def dvc(root: Path, *arguments: str) -> str:
    """Run DVC quietly.

    Raises:
        CoefVQError: DVC failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        # DVC's last line is often only a pointer to its help
        reason = [line for line in lines if line.startswith("ERROR: ")] or lines
        raise CoefVQError(f"{root}: dvc {arguments[0]} failed: {reason[-1]}")
    return done.stdout.strip()


def create(root: Path, settings: Mapping[str, Any], recipe: str = "tiny") -> None:
    """Make (or complete) a workspace; ``settings`` are dotted params.yaml keys to change.

    ``recipe`` is a shipped one; a recipe.yaml that is there already stays.

    Raises:
        ConfigError: the folder holds something else, or there is no such recipe.
    """
    shipped_recipe(recipe)
    if root.is_file() or (root.is_dir() and any(root.iterdir()) and not (root / "dvc.yaml").is_file()):
        raise ConfigError(f"{root}: not empty and not a workspace; choose an empty or new folder")
    if (root / "params.yaml").is_file() and not (root / RECIPE_FILE).is_file():
        check_form(read_mapping(root / "params.yaml"), root / "params.yaml")
    root.mkdir(parents=True, exist_ok=True)
    if not (root / ".git").exists():
        git(root, "init", "--quiet", "--initial-branch=main")
    if not (root / ".dvc").exists():
        _init_dvc(root)
    write_text(root / ".dvc" / "plots" / "offline.html", offline_template())
    write_json(root / ".dvc" / "plots" / "series.json", series_template())
    if not (root / "data" / "reference.json").exists():
        write_json(root / "data" / "reference.json", {})
    _ignore(root / ".gitignore")
    write_pipeline(root, settings, recipe)


def _init_dvc(root: Path) -> None:
    """``dvc init --quiet`` and the workspace's settings of DVC, in this process: DVC starts once instead of four times.

    Raises:
        CoefVQError: DVC failed.
    """
    from dvc.exceptions import DvcException
    from dvc.logger import set_loggers_level
    from dvc.repo import Repo

    try:
        with (
            set_loggers_level(logging.ERROR),
            Repo.init(str(root)) as repository,
            repository.config.edit("repo") as config,
        ):
            config["core"] |= {"analytics": "false", "autostage": "true"}
            config["plots"]["html_template"] = "plots/offline.html"
    except DvcException as error:
        raise CoefVQError(f"{root}: dvc init failed: {error}") from error


def _ignore(path: Path) -> None:
    """Add the lines that a workspace's .gitignore lacks."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    missing = [line for line in _IGNORED.splitlines() if line not in text.splitlines()]
    if missing:
        write_text(path, "".join([text, "\n" * bool(text and text[-1] != "\n"), *(f"{line}\n" for line in missing)]))


def write_pipeline(root: Path, settings: Mapping[str, Any], recipe: str) -> None:
    """The pipeline's files, where they are not there yet, and ``settings`` into params.yaml."""
    shipped = shipped_recipe(recipe)
    fresh = not (root / "params.yaml").exists()
    issues = settings.get("issues") or ("icd", "ucc")
    for name in TEMPLATES:
        if not (root / name).exists():
            write_text(root / name, params_for(issues) if name == "params.yaml" else template(name))
    if not (root / RECIPE_FILE).exists():
        write_text(root / RECIPE_FILE, shipped.text)
    if fresh:
        _write_overrides(root / "params.yaml", shipped.overrides)
    change_params(root / "params.yaml", settings)


def recipe_differs(root: Path, recipe: str) -> bool:
    """Whether a workspace has a recipe.yaml that is not the shipped one of that name."""
    path = root / RECIPE_FILE
    return path.is_file() and path.read_text(encoding="utf-8") != shipped_recipe(recipe).text


def _write_overrides(path: Path, overrides: Mapping[str, Mapping[str, Any]]) -> None:
    """A recipe's overrides into a params file that is as the template has it; an own issue gets those of ``ucc``."""
    now = read_mapping(path)
    wanted = {
        f"{section}.{issue}": issues.get(issue, issues[GENERIC])
        for section, issues in overrides.items()
        for issue in now["issues"]
    }
    change_params(path, {key: keys for key, keys in wanted.items() if _at(now, key) != keys})


def _at(values: Mapping[str, Any], dotted: str) -> Any:
    for part in dotted.split("."):
        values = values.get(part, {})
    return values


def change_params(path: Path, settings: Mapping[str, Any]) -> None:
    """Set dotted keys in a params file, keeping its comments; new ``issues`` start with the settings of the first.

    Below ``base.<issue>`` and the like, where the file holds only what differs from the recipe, sections are made.

    Raises:
        ConfigError: a key's section does not exist.
    """
    # ruamel keeps comments; the shared reader says what is wrong with a damaged file
    read_mapping(path)
    yaml = round_trip()
    document = yaml.load(path.read_text(encoding="utf-8"))
    for issue in settings.get("issues", ()):
        _configure(document, issue)
    for dotted, value in settings.items():
        *parents, last = dotted.split(".")
        node = document
        for part in parents:
            is_mapping = isinstance(node, dict)
            if is_mapping and part not in node and node is not document and parents[0] in _OVERRIDABLE:
                node[part] = {}
            if not is_mapping or part not in node:
                raise ConfigError(f"{path}: no section {dotted.rpartition('.')[0]}; check the key")
            node = node[part]
        node[last] = _flow(value)
    if settings:
        text = io.StringIO()
        yaml.dump(document, text)
        write_text(path, text.getvalue())


def _flow(value: Any) -> Any:
    """A value as the template writes it: lists and mappings on one line."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    if isinstance(value, Mapping):
        mapping = CommentedMap((key, _flow(item)) for key, item in value.items())
        mapping.fa.set_flow_style()
        return mapping
    if isinstance(value, list | tuple):
        sequence = CommentedSeq(map(_flow, value))
        sequence.fa.set_flow_style()
        return sequence
    return value


def _configure(document: Any, issue: str) -> None:
    """Give an issue that params.yaml does not know the settings of its first one, and a label column of its own."""
    for dotted in _PER_ISSUE:
        node = document
        for part in dotted.split("."):
            node = node.get(part) or {}
        if node and issue not in node:  # a section that is missing is named when params.yaml is read
            own = {"column": label_column(issue), "positive": None}
            node[issue] = own if dotted == "ingest.labels" else deepcopy(next(iter(node.values())))


def round_trip() -> Any:
    """A reader and writer of YAML that keeps comments and long lines, and writes null as null."""
    from ruamel.yaml import YAML
    from ruamel.yaml.representer import RoundTripRepresenter

    class Representer(RoundTripRepresenter):
        pass

    Representer.add_representer(type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null"))
    yaml = YAML()
    yaml.Representer = Representer
    yaml.width = 4096
    yaml.preserve_quotes = True
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def commit(root: Path, message: str, tag: str | None = None) -> str:
    """Commit everything that changed and tag it; returns the commit."""
    git(root, "add", "--all")
    if git(root, "status", "--porcelain"):
        git(root, "commit", "--quiet", "--message", message)
    if tag and not git(root, "tag", "--list", tag):
        git(root, "tag", tag)
    return git(root, "rev-parse", "HEAD")


def run_environment(root: Path) -> dict[str, str]:
    """Where a run keeps what outlives it: tracking store and decoded clips of the workspace it belongs to."""
    root = root.resolve()
    return {
        # a relative tracking.uri starts here, also in a clone
        "COEFVQ_WORKSPACE": str(root),
        "MLFLOW_TRACKING_URI": os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(root / DATABASE),
        "COEFVQ_CACHE": os.environ.get("COEFVQ_CACHE") or str(root / ".coefvq" / "cache"),
    }
