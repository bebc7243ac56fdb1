"""The workspace that `coefvq demo` and `coefvq tables` make for themselves, and the clips in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coefvq.config import Params
from coefvq.errors import ConfigError
from coefvq.terminal import progress
from tasks import pipeline, workspace
from tasks.data_copy import copy_data
from tasks.start import IssueSource
from tasks.templates import makes_clips


@dataclass(frozen=True)
class ToyClips:
    """Clips of the synthetic world; ``prevalence`` is the share of positives of each issue."""

    videos: int
    seed: int
    prevalence: Mapping[str, float]

    def render(self, folder: Path, workers: int, first: int = 0) -> None:
        """Render those that ``folder`` lacks, the ``first`` of the world's clips and those after it."""
        from coefvq.simulation.synthetic.generate import generate

        with progress("rendering clips", self.videos) as advance:
            generate(folder, self.videos, self.seed, self.prevalence, workers, first_index=first, progress=advance)


def is_new(folder: Path) -> bool:
    """Whether the workspace is still to be made.

    Raises:
        ConfigError: its own pipeline makes its clips, as the clone's does.
    """
    if makes_clips(folder):
        raise ConfigError(f"{folder}: its own pipeline makes its clips (dvc repro); choose another --workspace")
    return not (folder / "params.yaml").is_file()


def label_settings(issues: Sequence[IssueSource]) -> dict[str, Any]:
    """Dotted keys of params.yaml for own clips: their issues and labels, and any share of positives."""
    settings: dict[str, Any] = {"issues": [issue.name for issue in issues]} if issues else {}
    for issue in issues:
        settings[f"ingest.labels.{issue.name}"] = {"column": issue.column, "positive": list(issue.positive) or None}
        settings[f"validate.prevalence.{issue.name}"] = [0.0, 1.0]
    return settings


def provide_clips(root: Path, params: Params, clips: Path | ToyClips, say: Callable[[str], None]) -> None:
    """Fill the raw folder: copy a person's clips if nothing is there yet, or render the toy clips that it lacks.

    Raises:
        DataError: the person's table does not fit, or no row has a clip.
    """
    raw, ingest = root / params.paths.raw, params.ingest
    if isinstance(clips, ToyClips):
        clips.render(raw, params.runtime.workers)
    elif not raw.exists():
        say(f"copying {clips} to {raw}")
        for line in copy_data(clips, raw, ingest.protocols, ingest.columns, ingest.labels):
            say(line)


def version_clips(root: Path, params: Params) -> str:
    """Let DVC and git know the raw clips; returns DVC's hash of them."""
    workspace.dvc(root, "add", "--quiet", params.paths.raw)
    version = pipeline.data_version(root, params.paths.raw)
    workspace.commit(root, f"Data {version}", tag=f"data-{version.removesuffix('.dir')[:12]}")
    return version.removesuffix(".dir")
