"""Cells of the paper's tables: each is an overlay workspace of its own, trained in a child process.

An overlay is a folder ``tables/cells/<name>`` with params.yaml, recipe.yaml and presets.yaml, so that a person can
run a stage in it by hand. It reads the clips, manifest and splits of the workspace it lies in and shares its caches.
A cell is known by the hash of all that its scores depend on. One that has its result is not run again.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from coefvq.config import RECIPE_FILE, Params, parse_params, parse_recipe, read_mapping
from coefvq.errors import ConfigError
from coefvq.experiments.grid import Cell, Grid, ModelSpec
from coefvq.files import sha256_file, sha256_json, write_json, write_text
from coefvq.overrides import merged
from coefvq.records import label_column
from coefvq.version import __version__

if TYPE_CHECKING:
    import pandas as pd

#: raise it when a cell would come out differently for the same settings
FORMAT_VERSION = 1
FOLDER = Path("tables")
_UP = "../../.."


@dataclass(frozen=True)
class Files:
    """Parsed files of a workspace, and the name of the shipped recipe that its grid is for."""

    params: dict[str, Any]
    recipe: dict[str, Any]
    presets: dict[str, Any]
    name: str


@dataclass(frozen=True)
class PlannedCell:
    """A cell with its settings; ``files`` are those of its overlay, ``splits`` the workspace's table of splits.

    ``source`` is the cell whose model it needs: a distilled base its teacher, and an issue that shares an MLLM the
    cell of the first issue, which trains it.
    """

    cell: Cell
    kind: str
    share: float
    splits: str
    files: Files
    settings: Params
    source: PlannedCell | None

    @property
    def trains(self) -> bool:
        """Whether it makes a model; otherwise it scores the one of its source."""
        return self.kind == "base" or self.source is None

    def identity(self, data: Mapping[str, str]) -> dict[str, Any]:
        """All that its scores depend on; ``data`` are the hashes of manifest and splits."""
        issue, settings = self.cell.issue, self.settings
        model = getattr(settings, self.kind)[issue]
        return {
            "format": FORMAT_VERSION,
            "version": __version__,
            "kind": self.kind,
            "issue": issue,
            "seed": self.cell.seed,
            "model": model.model_dump(mode="json"),
            "media": settings.media[issue].model_dump(mode="json"),
            "preset": self.files.presets.get(model.preset, model.preset),
            "loading": settings.loading.model_dump(mode="json"),
            "predict": settings.predict.model_dump(mode="json"),
            "train_share": self.share,
            "data": dict(data),
            "teacher": None if self.source is None else self.source.key(data),
        }

    def key(self, data: Mapping[str, str]) -> str:
        """Hash of :meth:`identity`."""
        return sha256_json(self.identity(data))

    def folder(self, root: Path, data: Mapping[str, str]) -> Path:
        """Its overlay."""
        return root / FOLDER / "cells" / f"{self.cell.issue}-{self.kind}-s{self.cell.seed}-{self.key(data)[:12]}"


def workspace_files(root: Path, grid: Grid, recipe: str) -> Files:
    """Files of a workspace, the grid's presets beside its own.

    Raises:
        ConfigError: a file is missing or damaged, or the workspace defines a preset of the grid.
    """
    own = grid.presets.get(recipe, {})
    params, made, presets = (read_mapping(root / name) for name in ("params.yaml", RECIPE_FILE, "presets.yaml"))
    if twice := sorted(own.keys() & presets.keys()):
        raise ConfigError(f"{root / 'presets.yaml'}: {twice[0]}: a preset of the tables has that name; rename yours")
    return Files(params, made, {**presets, **own}, recipe)


def planned(files: Files, grid: Grid, cell: Cell) -> PlannedCell:
    """A cell with the settings that it would run with.

    Raises:
        ConfigError: a change of the grid does not fit the schema.
    """
    spec = grid.models[cell.model]
    issues = list(files.params["issues"]) if spec.shared else [cell.issue]
    params = {
        **files.params,
        **(_shared(files, spec, issues) if spec.shared else _own(files, spec, cell.issue)),
        "seed": cell.seed,
        "issues": issues,
        "paths": _paths(files.params["paths"], spec.train_share),
        # auto would measure and might decide otherwise the next time: then not the same bytes
        "runtime": {**files.params["runtime"], "features": "on", "workers": 1, "resume_from": None},
    }
    recipe = {**files.recipe, "models": {**files.recipe["models"], "presets": "presets.yaml"}}
    settings = parse_params(params, parse_recipe(recipe, f"cell {cell}"), f"cell {cell}")
    needed = Cell(spec.teacher or cell.model, issues[0], cell.seed)
    source = None if needed == cell else planned(files, grid, needed)
    own = Files(params, recipe, files.presets, files.name)
    return PlannedCell(cell, spec.kind, spec.train_share, files.params["paths"]["splits"], own, settings, source)


def with_sources(cells: Iterable[PlannedCell]) -> Iterator[PlannedCell]:
    """The cells, each after the one whose model it needs."""
    for cell in cells:
        if cell.source is not None:
            yield from with_sources([cell.source])
        yield cell


def _own(files: Files, spec: ModelSpec, issue: str) -> dict[str, Any]:
    """Sections of params.yaml for a model of one issue, which has an MLLM of its own."""
    changes = spec.changes(issue, files.name)
    if changes.get("distil") and not files.params["split"]["fractions"].get("unlabelled"):
        changes = merged(changes, {"distil": {"unlabelled": None}})  # train alone
    section = dict(files.params.get(spec.kind) or {})
    section[issue] = merged(section.get(issue) or {}, changes)
    sections: dict[str, Any] = {"mllm": dict(files.params.get("mllm") or {}), spec.kind: section}
    sections["mllm"][issue] = merged(sections["mllm"].get(issue) or {}, {"shared": None})
    return sections


def _shared(files: Files, spec: ModelSpec, issues: Sequence[str]) -> dict[str, Any]:
    """Sections of params.yaml for one MLLM of all issues: what they share is as the first issue has it."""
    first, together = issues[0], list(issues) if len(issues) > 1 else None
    media, mllm = (dict(files.params.get(name) or {}) for name in ("media", "mllm"))
    own = merged(merged(mllm.get(first) or {}, spec.changes(first, files.name)), {"shared": together})
    return {
        "media": {**media, **{issue: media.get(first) or {} for issue in issues}},
        "mllm": {**mllm, **dict.fromkeys(issues, own)},
    }


def _paths(paths: Mapping[str, Any], share: float) -> dict[str, Any]:
    shared = {name: f"{_UP}/{paths[name]}" for name in ("raw", "manifest", "splits", "reference")}
    media = paths["media"]
    if media is not None and "://" not in media and not Path(media).is_absolute():
        media = f"{_UP}/{media}"
    own = {"media": media, "models": "models", "reports": "reports"}
    return {**shared, **own, **({} if share == 1.0 else {"splits": "splits.parquet"})}


def data_hashes(root: Path, params: Params) -> dict[str, str]:
    """SHA-256 of manifest and splits, for the keys of cells."""
    return {name: sha256_file(root / getattr(params.paths, name)) for name in ("manifest", "splits")}


def nested_share(splits: pd.DataFrame, manifest: pd.DataFrame, issue: str, share: float) -> pd.DataFrame:
    """Splits in which only ``share`` of train takes part, of each class alike; a larger share holds a smaller one."""
    column = label_column(issue)
    train = splits[(splits["split"] == "train") & (splits["weight"] > 0.0)].merge(
        manifest[["video_id", column]], on="video_id", how="left"
    )
    drawn = train.assign(draw=[hashlib.sha256(video.encode()).hexdigest() for video in train["video_id"]])
    kept: set[str] = set()
    for _, rows in drawn.groupby(column, dropna=False):
        kept |= set(rows.sort_values("draw")["video_id"].head(math.ceil(share * len(rows))))
    stays = (splits["split"] != "train") | splits["video_id"].isin(kept)
    return splits.assign(weight=splits["weight"].where(stays, 0.0))


def write_overlay(root: Path, cell: PlannedCell, data: Mapping[str, str]) -> Path:
    """Files of a cell's folder; returns the folder."""
    folder = cell.folder(root, data)
    for name, content in (
        ("params.yaml", cell.files.params),
        (RECIPE_FILE.name, cell.files.recipe),
        ("presets.yaml", cell.files.presets),
    ):
        write_text(folder / name, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    source = None if cell.source is None else cell.source.folder(root, data).name
    facts = {
        "key": cell.key(data),
        "identity": cell.identity(data),
        "name": str(cell.cell),
        "kind": cell.kind,
        "issue": cell.cell.issue,
        "train_share": cell.share,
        "all_splits": f"{_UP}/{cell.splits}",
        "trains": cell.trains,
        "source": source,
    }
    write_json(folder / "cell.json", facts)
    return folder
