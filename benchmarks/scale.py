"""Steps of a data set of 10 K, 100 K and 1 M videos: seconds, memory, and how they grow.

    python benchmarks/scale.py [--rows 10000 100000 1000000] [--steps split validate ...] [--folder DIR] [--keep]

A made-up manifest in the product's form (hashes, titles, heavy-tailed creators, 9 % copies of anybody's videos) with
empty files, and scores drawn from the labels. Each step is a command in a process of its own; two are not commands
and run what is named in ``scale_inside.py``. One JSON line per step: wall and CPU seconds, peak MiB, and the exponent
of the CPU seconds above the smallest size (start-up taken off); of a publish also how long another publisher waited for
the log at most.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.scale_world import ROOT, make, make_fit_table, make_index, make_models, make_pipeline, make_scores

_FIT = ("cascade", "fit", "fit.parquet", "--precision", "0.6", "--qps", "15", "--json")
_AUDIT = ("vmp", "audit", "--issue", "ucc", "--labels", "labels.csv", "--json")


@dataclass(frozen=True)
class Step:
    """Arguments of ``python``, what is made before it, and the largest size that it is run at.

    ``writes`` is an SQLite file that others must be able to write meanwhile.
    """

    command: tuple[str, ...]
    before: Callable[[Path], None] | None = None
    most_rows: int = 10**9
    writes: str | None = None

    @classmethod
    def of(cls, *words: str, before: Callable[[Path], None] | None = None, writes: str | None = None) -> Step:
        """A command of coefvq."""
        return cls(("-m", "coefvq", *words), before, writes=writes)


def _inside(name: str) -> tuple[str, ...]:
    return (str(Path(__file__).with_name("scale_inside.py")), name)


_PUBLISH = Step.of("vmp", "publish", "data/manifest.parquet", "--root", "data/raw", writes="vmp/log.sqlite")
STEPS = {
    "validate": Step.of("validate"),
    "split": Step.of("split"),
    "evaluate": Step.of("evaluate", "--issue", "ucc", before=make_scores),
    "thresholds": Step.of("thresholds", "--issue", "ucc"),
    "candidate": Step.of("candidate", "--issue", "ucc", before=make_models),
    "report": Step.of("report", "--issue", "ucc", "--no-registry"),
    "cascade fit": Step.of(*_FIT, before=make_fit_table),
    "publish": _PUBLISH,
    "publish again": _PUBLISH,
    "vmp audit": Step.of(*_AUDIT, before=make_index),
    "training start": Step(_inside("training")),
    "feature build": Step(_inside("features")),
    # a million files are a million objects of DVC's cache
    "dvc": Step(("-m", "dvc", "repro"), make_pipeline, 100_000),
}


def measured(step: Step, workspace: Path) -> dict[str, float]:
    """Run a step; its wall and CPU seconds and its peak in MiB.

    Raises:
        SystemExit: it failed; its last line is shown.
    """
    start = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COEFVQ_CACHE": str(workspace / "cache")}
    # a step is a later run of an installed command: Python has compiled its libraries
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            [sys.executable, *step.command], cwd=workspace, env=environment, stdout=errors, stderr=errors
        )
        waited = _longest_wait(child.pid, workspace / step.writes) if step.writes else {}
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            errors.seek(0)
            raise SystemExit(f"{' '.join(step.command)}: {errors.read().decode()[-600:]}")
    cpu = used.ru_utime + used.ru_stime
    return {"wall_s": time.perf_counter() - start, "cpu_s": cpu, "peak_mib": used.ru_maxrss / 1024, **waited}


def _longest_wait(process: int, database: Path) -> dict[str, float]:
    """Ask for the right to write, ten times a second, until the process ends."""
    longest = 0.0
    while os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if database.is_file():
            start = time.perf_counter()
            with closing(sqlite3.connect(database, timeout=60.0, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                longest = max(longest, time.perf_counter() - start)
                other.execute("ROLLBACK")
        time.sleep(0.1)
    return {"longest_wait_s": longest}


def _apart(work: Callable[..., None], *arguments: object) -> None:
    """Run it in a process of its own: a child that is forked later would begin with this process's peak as its own.

    Raises:
        SystemExit: it failed.
    """
    process = get_context("spawn").Process(target=work, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{work.__name__}: exit code {process.exitcode}")


@contextmanager
def _workspace(folder: Path | None, rows: int, keep: bool) -> Iterator[Path]:
    """A world of ``rows`` videos; with ``keep`` it stays, and a later run works on it."""
    if keep and folder is not None:
        kept = folder / f"scale-{rows}"
        if not (kept / "data" / "manifest.parquet").is_file():
            kept.mkdir(parents=True, exist_ok=True)
            _apart(make, kept, rows)
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix=f"coefvq-scale-{rows}-", dir=folder) as name:
        _apart(make, Path(name), rows)
        yield Path(name)


def main() -> int:
    """Every step at every size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--steps", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--folder", type=Path, help="Where the workspaces are made; they are deleted afterwards.")
    parser.add_argument("--keep", action="store_true", help="With --folder: keep the workspaces, and use those there.")
    options = parser.parse_args()
    earlier: dict[str, tuple[int, float]] = {}
    for rows in sorted(options.rows):
        with _workspace(options.folder, rows, options.keep) as workspace:
            start_up = measured(Step.of("clips", "stats"), workspace)["cpu_s"]
            for name in options.steps:
                step = STEPS[name]
                if rows > step.most_rows:
                    continue
                if step.before is not None:
                    _apart(step.before, workspace)
                found = measured(step, workspace)
                line = {"step": name, "rows": rows, **{key: round(value, 2) for key, value in found.items()}}
                work = max(found["cpu_s"] - start_up, 0.01)
                if name in earlier:
                    before, least = earlier[name]
                    line["exponent"] = round(math.log(work / least) / math.log(rows / before), 3)
                earlier[name] = rows, work
                print(json.dumps({**line, "load": round(os.getloadavg()[0], 1)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
