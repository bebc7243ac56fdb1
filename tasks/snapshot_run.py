"""One run that makes a version of the raw data: what was asked for, its clone, and the newest version there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coefvq.config import Params, load_params
from coefvq.data.importers import Naming
from coefvq.data.raw_table import Labels, Layout
from coefvq.data.remote import is_url
from coefvq.errors import CoefVQError, ConfigError, DataError
from coefvq.files import read_json
from tasks.isolation import Target, find_target, make_clone, refs, reset, run_folder, share_dvc
from tasks.templates import makes_clips

_TABLES = (".csv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class SnapshotRequest:
    """What to version and where to publish it; see `coefvq data snapshot --help`."""

    batch: Path
    workspace: Path = Path()
    layout: Layout | None = None
    name: str | None = None
    message: str | None = None
    tag: str | None = None
    remote: str | None = None
    branch: str | None = None
    push: bool = True


@dataclass(frozen=True)
class Run:
    """A clone at the tip that the version will be made on, and the settings found there."""

    request: SnapshotRequest
    root: Path
    folder: Path
    target: Target
    remote: str | None
    params: Params

    @property
    def clone(self) -> Path:
        """Git clone that the version is made in."""
        return self.folder / "clone"

    @property
    def raw(self) -> str:
        """Raw folder, relative to the clone."""
        return self.params.paths.raw

    @property
    def record(self) -> Path:
        """The committed file that says what the newest version is."""
        return (self.clone / self.raw).parent / "snapshot.json"

    @property
    def naming(self) -> Naming:
        """What tables call their columns, and where absolute paths start; an old version may lack a column."""
        media = self.params.paths.media
        folder = None if media is None or is_url(media) else (self.root / media).resolve()
        return Naming(self.params.ingest.columns, folder, lenient=True)

    @property
    def labels(self) -> Labels:
        """Where each issue's label stands."""
        return {issue: self.params.ingest.labels[issue] for issue in self.params.issues}


def locate(request: SnapshotRequest) -> Target:
    """Where the version will be published.

    Raises:
        DataError: not a committed workspace, or an empty origin.
        RemoteError: origin does not answer.
    """
    root = request.workspace.resolve()
    for name in (".git", ".dvc", "params.yaml"):
        if not (root / name).exists():
            raise DataError(f"{root}: not a workspace, {name} is missing; make one: coefvq init")
    return find_target(root, request.push, request.branch)


@contextmanager
def opened(request: SnapshotRequest, target: Target) -> Iterator[Run]:
    """A run in a folder of its own, which is removed at the end.

    Raises:
        DataError: the workspace's raw data is not versioned.
        ConfigError: settings that a snapshot cannot work with.
        RemoteError: origin does not answer.
    """
    root = request.workspace.resolve()
    with run_folder(root) as folder:
        clone = folder / "clone"
        make_clone(root, clone)
        reset(clone, target, refs(clone, target))
        remote = share_dvc(root, clone, request.remote)
        try:
            run = Run(request, root, folder, target, remote, load_params(clone / "params.yaml"))
            _check_paths(run)
            yield run
        except CoefVQError as error:
            # the clone is gone when somebody reads this; git's way to name a file of a branch is not
            error.args = (str(error).replace(f"{clone}/", f"{target.branch}:"),)
            raise


def earlier_record(run: Run) -> dict[str, Any]:
    """The record of the version that the clone holds; empty before the first."""
    if not run.record.is_file():
        return {}
    remedy = f"restore it: git checkout HEAD -- {run.record.name}"
    record: dict[str, Any] = read_json(run.record, remedy=remedy)
    total = record.get("total")
    fits = isinstance(record.get("version"), int) and isinstance(total, dict) and "clips" in total
    if not fits or record.get("layout") not in ("files", "reference"):
        raise DataError(f"{run.record}: expected version, total.clips and layout, files or reference; {remedy}")
    return record


def _check_paths(run: Run) -> None:
    if Path(run.raw).suffix in _TABLES:
        raise ConfigError(f"paths.raw: {run.raw} is a table; a snapshot needs a folder that holds the table")
    if run.params.ingest.format not in ("auto", "videofolder"):
        raise ConfigError(f"ingest.format: {run.params.ingest.format}: a snapshot needs auto or videofolder")
    if makes_clips(run.clone):
        raise ConfigError(f"{run.root}: its own pipeline makes {run.raw}; own clips need a workspace of `coefvq init`")
    own = run.root / run.raw
    if not (run.clone / f"{run.raw}.dvc").is_file() and own.is_dir() and any(own.iterdir()):
        raise DataError(f"{own}: holds data that is not versioned; first `dvc add {run.raw}`, commit (and push)")
