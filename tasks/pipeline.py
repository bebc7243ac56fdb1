"""The pipeline as DVC knows it: order of stages, running one, what the data version is. No Prefect here."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from coefvq.errors import CoefVQError, DataError
from tasks.process import CHILDREN

_BUSY = "is busy"
_NETWORK = ("Connection reset", "Connection refused", "Temporary failure in name resolution", "timed out")


class StageError(CoefVQError):
    """A DVC stage failed; ``transient`` says whether trying again can help."""

    def __init__(self, message: str, transient: bool) -> None:
        super().__init__(message)
        self.transient = transient


@dataclass(frozen=True)
class StageOutcome:
    """What `dvc repro` did with a stage: ran it, restored it from the run cache, or left it alone."""

    stage: str
    action: str


def stage_levels(root: Path, issues: Sequence[str] | None = None) -> list[list[str]]:
    """Stage names of dvc.yaml in DVC's own order; names within a level do not depend on each other."""
    import networkx
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        graph = repo.index.graph.reverse(copy=True)
        graph.remove_nodes_from([node for node in list(graph) if not node.cmd])
        # not .addressing, which is relative to the folder this process happens to be in
        levels = [sorted(node.name for node in level) for level in networkx.topological_generations(graph)]
    kept = [[name for name in level if _concerns(name, issues)] for level in levels]
    return [level for level in kept if level]


def _concerns(name: str, issues: Sequence[str] | None) -> bool:
    issue = name.partition("@")[2]
    return not issue or issues is None or issue in issues


def repro(
    root: Path,
    stages: Sequence[str] = (),
    *,
    single: bool = False,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] = lambda _: None,
) -> StageOutcome:
    """`dvc repro` of some stages (all by default); ``single`` does not look at what lies upstream.

    Raises:
        StageError: DVC or the stage failed; the message holds the stage's own error line.
    """
    argv = [sys.executable, "-m", "dvc", "repro", *(["--single-item"] if single else []), *stages]
    finished = CHILDREN.run(argv, root, {**child_path(), **(env or {})}, on_line)
    name = ", ".join(stages) or "pipeline"
    if finished.returncode:
        raise _failure(name, finished.tail)
    text = "\n".join(finished.tail)
    action = "ran" if "Running stage" in text else "restored" if "is cached - skipping run" in text else "unchanged"
    return StageOutcome(name, action)


def child_path() -> dict[str, str]:
    """PATH under which `python -m coefvq` in dvc.yaml is this very interpreter."""
    return {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}


def _failure(name: str, tail: Sequence[str]) -> StageError:
    own = [line for line in tail if line.startswith("error: ")]
    dvc = [line for line in tail if line.startswith("ERROR: ")]
    reason = own[-1].removeprefix("error: ") if own else (dvc or list(tail) or ["no output"])[-1]
    transient = any(_BUSY in line or any(word in line for word in _NETWORK) for line in dvc)
    return StageError(f"{name}: {reason}", transient)


def data_version(root: Path, raw: str) -> str:
    """DVC's content hash of the tracked raw data.

    Raises:
        DataError: the folder is not tracked.
    """
    pointer = root / f"{raw}.dvc"
    if not pointer.is_file():
        raise DataError(f"{pointer}: missing; version the clips first: dvc add {raw}")
    tracked: dict[str, Any] = yaml.safe_load(pointer.read_text(encoding="utf-8"))["outs"][0]
    return str(tracked["md5"])
