"""The pipeline as DVC knows it: order of stages, running one, what the data version is. No Prefect here."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from coefvq.config import Params
from coefvq.errors import CoefVQError, DataError
from coefvq.files import read_yaml
from coefvq.terminal import clean
from tasks.process import CHILDREN

_ERRORS = ("error: ", "ERROR: ")
_BUSY = "is busy"
_ISSUES_AT_ONCE = 2  # each holds an MLLM: more would not fit on a laptop
_NETWORK = ("Connection reset", "Connection refused", "Temporary failure in name resolution", "timed out")


class StageError(CoefVQError):
    """A DVC stage failed; ``transient`` says whether trying again can help.

    The exit code is the stage's own where that is one of ours.
    """

    def __init__(self, message: str, transient: bool, exit_code: int = CoefVQError.exit_code) -> None:
        super().__init__(message)
        self.transient = transient
        self.exit_code = exit_code


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


def side_by_side(level: Sequence[str], most: int, apart: Collection[frozenset[str]]) -> list[list[str]]:
    """``level`` in groups of at most ``most`` stages that run together; a group has one name of a set in ``apart``."""
    groups: list[list[str]] = []
    for name in level:
        rivals = {rival for names in apart if name in names for rival in names}
        free = (group for group in groups if len(group) < most and not rivals & set(group))
        group = next(free, None)
        if group is None:
            groups.append([name])
        else:
            group.append(name)
    return groups


def sharing(params: Params) -> set[frozenset[str]]:
    """Issues that train one MLLM: the first stage trains it and the others copy it, so they never run side by side."""
    return {frozenset(model.shared) for model in params.mllm.values() if model.shared}


def _own_stages(levels: Sequence[Sequence[str]], issue: str) -> list[str]:
    """Stages of that issue alone, in the order that they need; a look at shared ones would lock them for the other."""
    return [name for level in levels for name in level if name.endswith(f"@{issue}")]


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

    ``on_line`` gets clean lines (``terminal.clean``), without the error's own: the exception holds that one.

    Raises:
        StageError: DVC or the stage failed; the message holds the stage's own error line.
    """

    def relay(line: str) -> None:
        if not line.startswith(_ERRORS):
            on_line(clean(line.expandtabs(4)))

    # DVC gives up after three seconds by itself, and another stage's files may take longer to be hashed
    argv = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", *(["--single-item"] if single else []), *stages]
    finished = CHILDREN.run(argv, root, {**child_path(), **(env or {})}, relay)
    name = ", ".join(stages) or "pipeline"
    if finished.returncode:
        raise _failure(name, finished.tail)
    text = "\n".join(finished.tail)
    action = "ran" if "Running stage" in text else "restored" if "is cached - skipping run" in text else "unchanged"
    return StageOutcome(name, action)


def repro_issues(
    root: Path,
    issues: Sequence[str],
    apart: Collection[frozenset[str]],
    env: Mapping[str, str],
    on_line: Callable[[str], None] = lambda _: None,
) -> None:
    """The whole pipeline: what all issues share, then their own stages, of two issues side by side.

    Each of two has half of the threads, which is faster than one after the other with all: small models leave most of
    a core's time to what is no matrix product. Issues in a set of ``apart`` train one model and run one by one.

    Raises:
        StageError: as ``repro``; the other issue's stage is ended.
    """
    repro(root, ["split"], env=env, on_line=on_line)
    levels = stage_levels(root, issues)
    for group in side_by_side(issues, min(_ISSUES_AT_ONCE, os.cpu_count() or 1), apart):
        own = partial(repro, root, single=True, env={**env, **share_of_threads(len(group))}, on_line=on_line)
        with ThreadPoolExecutor(len(group)) as pool:
            runs = [pool.submit(own, _own_stages(levels, issue)) for issue in group]
            try:
                for run in as_completed(runs):
                    run.result()
            finally:
                CHILDREN.terminate()
    repro(root, env=env, on_line=on_line)


def share_of_threads(count: int) -> dict[str, str]:
    """Environment of each of ``count`` stages that run side by side; a number that the user set wins."""
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))}


def child_path() -> dict[str, str]:
    """PATH under which `python -m coefvq` in dvc.yaml is this very interpreter."""
    return {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}


def _failure(name: str, tail: Sequence[str]) -> StageError:
    own, dvc = ([line for line in tail if line.startswith(start)] for start in _ERRORS)
    reason = own[-1].removeprefix("error: ") if own else (dvc or list(tail) or ["no output"])[-1]
    code = re.search(r"exited with ([2-8])$", dvc[-1]) if dvc else None
    failed = re.search(r"failed to reproduce '([^']+)'", dvc[-1]) if dvc else None
    name = failed[1] if failed else name
    transient = any(_BUSY in line or any(word in line for word in _NETWORK) for line in dvc)
    return StageError(f"{name}: {reason}", transient, int(code[1]) if own and code else CoefVQError.exit_code)


def data_version(root: Path, raw: str) -> str:
    """DVC's content hash of the tracked raw data.

    Raises:
        DataError: the folder is not tracked.
    """
    pointer = root / f"{raw}.dvc"
    if not pointer.is_file():
        raise DataError(f"{pointer}: missing; version the clips first: dvc add {raw}")
    remedy = f"version the clips again: dvc add {raw}"
    tracked = read_yaml(pointer, missing=remedy, remedy=remedy, error=DataError)
    try:
        return str(tracked["outs"][0]["md5"])
    except (KeyError, IndexError, TypeError) as error:
        raise DataError(f"{pointer}: outs.0.md5: expected a hash; {remedy}") from error
