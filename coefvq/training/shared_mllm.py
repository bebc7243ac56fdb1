"""An MLLM that several issues share: the first stage that needs it trains it, the stages of the others take it over.

The stages stay per issue, as DVC's graph has them. Each knows the whole training from its own settings, since
``Params`` holds those of the issues together. A record of the training says what it was made from, so the second
stage finds the first one's model, checks its bytes, and copies it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from coefvq.config import MediaLimits, Paths
from coefvq.errors import CoefVQError
from coefvq.files import read_json, sha256_json, sha256_tree, write_json

#: whether the tracking store still has a model, by its id
IsRecorded = Callable[[str], bool]
Figures = Mapping[str, Any]


@dataclass(frozen=True)
class TrainingOutputs:
    """What the training of one model leaves for one issue: the model's folder and three JSON files."""

    paths: Paths
    kind: Literal["base", "mllm"]
    issue: str

    @property
    def folder(self) -> Path:
        """The trained model."""
        return self.paths.model_dir(self.kind, self.issue)

    @property
    def metrics(self) -> Path:
        """Figures of the epoch that was kept."""
        return self.paths.report(self.issue, f"{self.kind}.json")

    @property
    def curve(self) -> Path:
        """Figures of each epoch."""
        return self.paths.report(self.issue, f"{self.kind}_curve.json")

    @property
    def run_record(self) -> Path:
        """The ids of the run, and of a shared model what it was made from."""
        return self.paths.run_record(self.kind, self.issue)

    def write(self, metrics: Figures, curve: Sequence[Figures], record: Figures) -> None:
        """Write the JSON files; the record comes last, so that where it is the others are whole."""
        write_json(self.metrics, metrics)
        write_json(self.curve, curve)
        write_json(self.run_record, record)


@dataclass(frozen=True)
class SharedTraining:
    """The training of an MLLM for several ``issues``; ``made_from`` is the hash of everything its folder depends on."""

    issues: tuple[str, ...]
    made_from: str

    @classmethod
    def of(cls, issues: tuple[str, ...], identity: Figures, limits: MediaLimits) -> SharedTraining:
        """``identity`` is that of its checkpoints; the limits are in its folder, though they change no weight."""
        return cls(issues, sha256_json([dict(identity), limits.model_dump()]))

    def record(self, folder: Path) -> dict[str, Any]:
        """What the record says beside the ids of the run, for the stages of the other issues."""
        return {"issues": list(self.issues), "made_from": self.made_from, "sha256": sha256_tree(folder)}

    def trained_by(self, target: TrainingOutputs, is_recorded: IsRecorded) -> TrainingOutputs | None:
        """What the stage of another issue left of this very training; None where none did."""
        others = [replace(target, issue=issue) for issue in self.issues if issue != target.issue]
        return next((other for other in others if self._is_whole(other, is_recorded)), None)

    def _is_whole(self, outputs: TrainingOutputs, is_recorded: IsRecorded) -> bool:
        try:
            record = read_json(outputs.run_record)
            if record.get("made_from") != self.made_from or record.get("sha256") != sha256_tree(outputs.folder):
                return False
            return outputs.metrics.is_file() and outputs.curve.is_file() and is_recorded(str(record.get("model_id")))
        except CoefVQError:
            return False  # none yet, or damaged: this stage trains


def take_over(source: TrainingOutputs, target: TrainingOutputs) -> None:
    """Copy a shared model, and write its figures as the issue of ``target`` reads them; the record stays the same."""
    metrics, curve = read_json(source.metrics), curve_of(read_json(source.curve, list), target.issue)
    shutil.rmtree(target.folder, ignore_errors=True)
    # copyfile: the rights of a file that DVC linked from its cache stay there
    shutil.copytree(source.folder, target.folder, copy_function=shutil.copyfile)
    target.write(metrics_of(metrics, curve), curve, read_json(source.run_record))


def curve_of(curve: Sequence[Figures], issue: str) -> list[dict[str, Any]]:
    """Rows of a shared training as ``issue`` reads them: its own ``val_<figure>``, the mean ``mean_val_<figure>``."""
    return [_row_of(row, f"val_{issue}_") for row in curve]


def _row_of(row: Figures, prefix: str) -> dict[str, Any]:
    own = {f"val_{name.removeprefix(prefix)}": value for name, value in row.items() if name.startswith(prefix)}
    own = {name: value for name, value in own.items() if name in row}
    means = {f"mean_{name}": row.get(f"mean_{name}", row[name]) for name in own}
    return {**row, **means, **own}


def metrics_of(metrics: Figures, curve: Sequence[Figures]) -> dict[str, Any]:
    """Figures of the best epoch as the issue of ``curve`` reads them; ``best_criterion`` stays the issues' mean."""
    best = next(row for row in curve if row["epoch"] == metrics["best_epoch"])
    return {**metrics, "best_average_precision": best["val_average_precision"]}
