"""Run cases side by side, each in a copy of the base workspace, and judge them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz_cli.base import confined, fresh_copy
from tests.fuzz_cli.cases import Case
from tests.fuzz_cli.conditions import locked
from tests.fuzz_cli.process import Outcome, run_forked, run_spawned
from tests.fuzz_cli.verdicts import Fault, judge


@dataclass(frozen=True)
class Result:
    """A case and what was wrong with it."""

    case: str
    command: str
    verdict: str
    code: int | None
    seconds: float
    peak_mib: float
    faults: list[Fault]
    stderr: str = ""
    stdout: str = ""

    def to_json(self) -> dict[str, Any]:
        return {**self.__dict__, "faults": [[fault.kind, fault.detail] for fault in self.faults]}


@dataclass
class Summary:
    """All results of a run."""

    results: list[Result] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def failures(self) -> list[Result]:
        return [result for result in self.results if result.faults]

    def counts(self) -> dict[str, int]:
        """How many cases have a fault of each kind."""
        found: Counter[str] = Counter()
        for result in self.results:
            found.update({fault.kind for fault in result.faults})
        return dict(found.most_common())

    def to_json(self) -> dict[str, Any]:
        return {
            "cases": len(self.results),
            "failed": len(self.failures),
            "faults": self.counts(),
            "exit_codes": dict(sorted(Counter(str(result.code) for result in self.results).items())),
            "slowest_s": round(max((result.seconds for result in self.results), default=0.0), 1),
            "peak_mib": round(max((result.peak_mib for result in self.results), default=0.0)),
            "seconds": round(self.seconds, 1),
        }


def run(cases: Sequence[Case], base: Path, *, workers: int, show: Any = None) -> Summary:
    """Judge all cases; ``show`` is called with each result as it comes."""
    summary, start = Summary(), time.monotonic()
    before = fingerprint(base)
    with private_folder() as top:
        controls = top / "controls"
        controls.mkdir()
        for result in _side_by_side(cases, base, top, controls, workers):
            summary.results.append(result)
            if show is not None:
                show(result)
    if fingerprint(base) != before:
        summary.results.append(Result("base", "", "any", None, 0.0, 0.0, [Fault("outside", f"a case changed {base}")]))
    summary.seconds = time.monotonic() - start
    return summary


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for this block; a TemporaryDirectory would delete it in each child that ends."""
    folder = Path(tempfile.mkdtemp(prefix="coefvq-fuzz-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _side_by_side(cases: Sequence[Case], base: Path, top: Path, controls: Path, workers: int) -> Iterator[Result]:
    """One process per case, ``workers`` at a time; each leaves its result in a file."""
    waiting, running, free = list(reversed(cases)), {}, list(range(workers))
    while waiting or running:
        while waiting and free:
            case, slot = waiting.pop(), free.pop()
            folder = top / f"slot{slot}"
            child = os.fork()
            if child == 0:
                _child(case, base, folder, controls)
            running[child] = (case, slot, folder)
        child, status = os.wait()
        if child not in running:
            continue
        case, slot, folder = running.pop(child)
        free.append(slot)
        yield _collected(case, folder, status)
        shutil.rmtree(folder, ignore_errors=True)


def _collected(case: Case, folder: Path, status: int) -> Result:
    try:
        raw = json.loads((folder / "result.json").read_text())
        return Result(**{**raw, "faults": [Fault(*fault) for fault in raw["faults"]]})
    except (OSError, ValueError) as error:
        # the harness's own fault is a failure too: nothing was judged
        return Result(case.id, "", case.verdict, None, 0.0, 0.0, [Fault("harness", f"{error}; status {status}")])


def _child(case: Case, base: Path, folder: Path, controls: Path) -> None:
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        result = one(case, base, folder, controls)
        (folder / "result.json").write_text(json.dumps(result.to_json()))
    except BaseException as error:  # noqa: BLE001 - reported by the parent
        print(f"{case.id}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(0)


def one(case: Case, base: Path, folder: Path, controls: Path) -> Result:
    """Copy, damage, run, judge."""
    control = _control(case, base, folder, controls) if case.verdict == "same" else None
    for name in ("scratch", "home", "tmp", "outside"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "outside/secret.mp4").write_bytes(b"not yours")
    with fresh_copy(base, folder) as root:
        words = _damaged(case, root, folder)
        outside = fingerprint(folder / "outside")
        outcome = _run(case, root, folder)
        faults = judge(outcome, case.verdict, words, control)
        if fingerprint(folder / "outside") != outside:
            faults.append(Fault("outside", "the folder beside the workspace was changed"))
        if (root / "owned").exists():
            faults.append(Fault("code_execution", "a command of the input was run"))
    return Result(
        case.id,
        " ".join(repr(part)[1:-1][:60] for part in case.argv),
        case.verdict,
        outcome.code,
        outcome.seconds,
        outcome.peak_mib,
        faults,
        outcome.stderr[-4000:],
        outcome.stdout[-2000:],
    )


def _run(case: Case, root: Path, folder: Path) -> Outcome:
    around = case.surroundings
    env = {**confined(folder), **(around.env if around else {})}
    scratch = folder / "scratch"
    if around is not None and around.spawned:
        return run_spawned(case.argv, root, scratch, env=env, wall_seconds=case.wall_seconds)
    with locked(root / around.held) if around and around.held else nullcontext():
        return run_forked(
            case.argv,
            root,
            scratch,
            allowed=folder,
            env=env,
            wall_seconds=case.wall_seconds,
            entry=case.entry,
            inside=around.inside if around else None,
        )


def _damaged(case: Case, root: Path, folder: Path) -> list[str]:
    """Damage the workspace in a process of its own, which may start threads; returns words for the judge."""
    note = folder / "words.json"
    child = os.fork()
    if child == 0:
        code = 1
        try:
            path, words = case.prepare(case.rng(), root)
            names = [] if path is None else [str(path.relative_to(root)), path.name, path.parent.name]
            note.write_text(json.dumps([*names, *words]))
            code = 0
        except BaseException as error:  # noqa: BLE001 - shown, and the parent stops
            print(f"{case.id}: the mutation failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    if os.waitpid(child, 0)[1] != 0:
        raise RuntimeError("the mutation failed")
    marks: list[str] = json.loads(note.read_text())
    return marks


def _control(case: Case, base: Path, folder: Path, controls: Path) -> Outcome:
    """The same command on the undamaged workspace; kept for the other cases of this run."""
    kept = controls / (hashlib.sha256(" ".join(case.argv).encode()).hexdigest()[:24] + ".json")
    if kept.is_file():
        return Outcome(**{**json.loads(kept.read_text()), "events": ()})
    for name in ("scratch", "home", "tmp"):
        (folder / name).mkdir(exist_ok=True)
    with fresh_copy(base, folder) as root:
        outcome = _run(case, root, folder)
    text = json.dumps({**outcome.__dict__, "events": []})
    temporary = folder / "control.json"
    temporary.write_text(text)
    temporary.replace(kept)
    return outcome


def fingerprint(root: Path) -> str:
    """Names, sizes, rights and times of all files below a folder; of decoded clips their bytes, not their times.

    A clip that is used gets the time of its use, and copies of the base share its clips.
    """
    entries = []
    for path in sorted(root.rglob("*")):
        about = path.lstat()
        if path.is_dir():
            state = ""
        elif "/cache/clips/" in str(path) and path.is_file():
            state = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            state = str(about.st_mtime_ns)
        entries.append(f"{path} {about.st_mode} {about.st_size} {state}")
    return hashlib.sha256("\n".join(entries).encode("utf-8", "surrogateescape")).hexdigest()
