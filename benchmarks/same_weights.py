"""Compare the weights that two source trees train from the same clips, settings and seed.

    python benchmarks/same_weights.py OLD_TREE NEW_TREE --recipe tiny --videos 120

Runs `coefvq demo` with each tree and prints the SHA-256 of every model.safetensors. Exits with 1 if two differ, or if
a model is missing. Hashes hold for one machine only (other CPUs round otherwise), so both trees are run here instead
of kept figures. What the demo makes of so few clips after the trainings does not matter; how it ended is printed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

_MODELS = 4  # base and MLLM of icd and ucc
_KEPT_APART = ("COEFVQ_CACHE", "MLFLOW_TRACKING_URI")


def main() -> None:
    """Train with both trees and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", nargs=2, type=Path)
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--videos", type=int, default=160)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        old, new = (
            trained(tree.resolve(), Path(scratch, str(number)), chosen.recipe, chosen.videos)
            for number, tree in enumerate(chosen.trees)
        )
    for name in sorted(old | new):
        verdict = "same" if old.get(name) == new.get(name) else f"DIFFERENT: {new.get(name)}"
        print(f"{chosen.recipe} {name} {old.get(name)} {verdict}")
    sys.exit(old != new)


def trained(tree: Path, workspace: Path, recipe: str, videos: int) -> dict[str, str]:
    """Run the demo with the code of ``tree``; returns model folder -> SHA-256 of its weights."""
    # the option's old name, which trees before the recipes know too
    command = [sys.executable, "-m", "coefvq", "demo", "--workspace", str(workspace), "--preset", recipe]
    command += ["--videos", str(videos)]
    # a shared cache would give the second tree the first one's clips and features
    environment = {name: value for name, value in os.environ.items() if name not in _KEPT_APART}
    environment |= {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    print(f"{tree}: the demo ended with code {done.returncode}", flush=True)
    weights = sorted((workspace / "models").glob("*/*/model.safetensors"))
    if len(weights) < _MODELS:
        sys.exit(f"{tree}: {len(weights)} of {_MODELS} models: {(done.stdout + done.stderr)[-2000:]}")
    return {
        str(path.parent.relative_to(workspace / "models")): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in weights
    }


if __name__ == "__main__":
    main()
