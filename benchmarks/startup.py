"""Start and end of a command that needs transformers: with the collector as Python sets it, and as `coefvq` does.

    python benchmarks/startup.py
    python benchmarks/startup.py --rounds 15

Each run is a process of its own that imports what `train-mllm` and `predict` import, and ends. Wall seconds of
interleaved pairs after one that fills the disk cache; the ratio is the median over pairs of plain / ours.
One JSON line. Exit code 1: below the target.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

TARGET = 1.1
_ROOT = Path(__file__).resolve().parents[1]
_IMPORTS = "import pandas, sklearn.ensemble, torch, transformers.modeling_utils, transformers.trainer, peft"
_SCRIPTS = {
    "plain": _IMPORTS,
    "coefvq": f"from coefvq.compute.collection import collect_rarely; collect_rarely(); {_IMPORTS}",
}


def seconds(script: str) -> float:
    """Wall time of one process.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", script], cwd=_ROOT, check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in _SCRIPTS}
    for number in range(options.rounds + 1):
        for name, script in _SCRIPTS.items():
            taken = seconds(script)
            found[name] += [taken] if number else []
    ratio = statistics.median(plain / ours for plain, ours in zip(found["plain"], found["coefvq"], strict=True))
    line = {
        "name": "startup",
        "ratio": round(ratio, 3),
        "target": TARGET,
        "pass": ratio >= TARGET,
        "seconds": {name: round(statistics.median(values), 2) for name, values in found.items()},
        "rounds": options.rounds,
    }
    print(json.dumps(line))
    return 0 if line["pass"] else 1


if __name__ == "__main__":
    sys.exit(main())
