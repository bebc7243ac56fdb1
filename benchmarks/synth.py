"""Clips per second of the synthetic world's generator.

    python benchmarks/synth.py               120 clips, 2 workers
    python benchmarks/synth.py --videos 600 --workers 4

The last line is JSON: clips per second of wall time (start-up of the workers included), CPU milliseconds per
clip, and the clips per second that two free cores would make of that. The latter is the figure to compare:
it does not depend on what else the machine is doing. Exit code 1 if it is below 30.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from coefvq.simulation.synthetic import generate

TARGET = 30.0  # clips per second on two cores
_PREVALENCE = {"icd": 0.07, "ucc": 0.09}


def cpu_seconds() -> float:
    """Of this process and its children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure(videos: int, workers: int, seed: int) -> dict[str, float]:
    """Render ``videos`` clips into a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = time.perf_counter(), cpu_seconds()
        generate(Path(folder) / "synth", videos, seed, _PREVALENCE, workers=workers)
        wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.mp4"))
    return {
        "videos": videos,
        "workers": workers,
        "clips_per_second": round(videos / wall, 1),
        "cpu_ms_per_clip": round(1000 * cpu / videos, 1),
        "clips_per_second_on_two_free_cores": round(2 * videos / cpu, 1),
        "kilobytes_per_clip": round(size / videos / 1000, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=120)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    result = measure(arguments.videos, arguments.workers, arguments.seed)
    print(json.dumps(result))
    return 0 if result["clips_per_second_on_two_free_cores"] >= TARGET else 1


if __name__ == "__main__":
    raise SystemExit(main())
