"""The exact frontier of both thresholds against what people do without it.

    python benchmarks/thresholds.py                 1 million scored videos
    python benchmarks/thresholds.py --videos 100000

Peers in the same run, on the same scores (correlated binormal, 7 % positive, precision 80 %):

- scikit-learn's ``precision_recall_curve`` once per base threshold, which is exact too. It is quadratic, so it is
  timed at the largest size of a doubling series that ends within ``--patience`` seconds, against ours at that size,
  and both must find the same recall at every base threshold.
- a grid of 100 x 100 thresholds, even in score, counted with one two-dimensional histogram: fast, not exact. The
  recall it leaves behind within several budgets of MLLM calls is printed.

The last line is JSON. Exit code 1 if the frontier takes over 1 second, is under 50 times faster than the peer, or
differs from it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from coefvq.cascade.frontier import ExactFrontier, exact_frontier

SECONDS, RATIO = 1.0, 50.0
PRECISION = 0.8
BUDGETS = (1.0, 2.0, 5.0, 10.0)
Column = NDArray[np.float64]


def scored(videos: int, seed: int) -> tuple[Column, Column, Column]:
    """Labels and both scores in (0, 1) of ``videos`` videos."""
    rng = np.random.default_rng(seed)
    label = (rng.random(videos) < 0.07).astype(np.float64)
    shared = 0.6 * rng.normal(size=videos)
    base = 0.8 * rng.normal(size=videos) + shared + 1.6 * label - 2.0
    mllm = 0.7 * rng.normal(size=videos) + shared + 2.4 * label - 2.0
    return label, 1.0 / (1.0 + np.exp(-base)), 1.0 / (1.0 + np.exp(-mllm))


def timed(call: Callable[[], Any], repeats: int = 1) -> tuple[float, Any]:
    """Least wall time of ``repeats`` calls, and the last answer."""
    least = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        answer = call()
        least = min(least, time.perf_counter() - start)
    return least, answer


def curve_per_threshold(label: Column, base: Column, mllm: Column) -> Column:
    """True positives of the best decision threshold, per distinct base threshold, descending."""
    best = []
    for cut in np.unique(base)[::-1]:
        reached = base >= cut
        positives = label[reached].sum()
        if not positives:
            best.append(0.0)
            continue
        precision, recall, _ = precision_recall_curve(label[reached], mllm[reached])
        best.append(float(np.max(recall[:-1] * (precision[:-1] >= PRECISION - 1e-12), initial=0.0) * positives))
    return np.array(best)


def grid(label: Column, base: Column, mllm: Column, size: int = 100) -> tuple[Column, Column]:
    """Calls in percent and the best recall per base threshold of an even grid."""
    low, cuts = np.linspace(base.min(), base.max(), size), np.linspace(mllm.min(), mllm.max(), size)
    edges = [np.append(low, np.inf), np.append(cuts, np.inf)]
    rows, _, _ = np.histogram2d(base, mllm, bins=edges)
    hits, _, _ = np.histogram2d(base, mllm, bins=edges, weights=label)
    reached, true = (np.cumsum(np.cumsum(c[::-1, ::-1], axis=0), axis=1)[::-1, ::-1] for c in (rows, hits))
    good = (reached > 0) & (true >= PRECISION * reached)
    return 100.0 * reached[:, 0] / len(label), np.max(np.where(good, true, 0.0), axis=1) / label.sum()


def against_scikit_learn(patience: float, seed: int) -> dict[str, Any]:
    """Double the size until the peer takes more than half of ``patience``."""
    videos = 1000
    while True:
        label, base, mllm = scored(videos, seed)
        theirs, expected = timed(partial(curve_per_threshold, label, base, mllm))
        ours, found = timed(partial(exact_frontier, label, base, mllm, PRECISION), repeats=5)
        if theirs > patience / 5.0:  # twice the size takes over four times as long
            same = bool(np.allclose(found.true_positive, expected, rtol=0.0, atol=1e-6))
            return {"peer_videos": videos, "peer_s": theirs, "ours_s": ours, "ratio": theirs / ours, "equal": same}
        videos *= 2


def gained(found: ExactFrontier, calls: Column, recall: Column) -> dict[str, float]:
    """Recall in points that the exact search adds to the grid's, per budget in percent of calls."""
    return {
        f"{budget:g}": 100.0
        * float(found.recall[found.qps_ratio <= budget].max() - np.max(recall[calls <= budget], initial=0.0))
        for budget in BUDGETS
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=1_000_000)
    parser.add_argument("--patience", type=float, default=60.0, help="seconds the quadratic peer may take")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp()  # nothing compiled before counts
    compiling, _ = timed(lambda: exact_frontier(*scored(1000, arguments.seed), PRECISION))
    print(f"first call, with import and compiling: {compiling:.2f} s")
    peer = against_scikit_learn(arguments.patience, arguments.seed)
    print(
        f"{peer['peer_videos']} videos: a curve per base threshold {peer['peer_s']:.2f} s, exact frontier "
        f"{1000 * peer['ours_s']:.2f} ms, {peer['ratio']:.0f} times faster, equal: {peer['equal']}"
    )
    data = scored(arguments.videos, arguments.seed)
    seconds, found = timed(lambda: exact_frontier(*data, PRECISION), repeats=3)
    weight = np.random.default_rng(arguments.seed).uniform(0.5, 2.0, arguments.videos)
    weighted, _ = timed(lambda: exact_frontier(*data, PRECISION, weight), repeats=2)
    grid_seconds, (calls, recall) = timed(lambda: grid(*data))
    gain = gained(found, calls, recall)
    print(
        f"{arguments.videos} videos: exact frontier {seconds:.2f} s ({len(found.base_threshold)} base thresholds, "
        f"{len(found.undominated())} steps), with weights {weighted:.2f} s, grid of 100 x 100 {grid_seconds:.2f} s"
    )
    print("recall gained over the grid, points:", ", ".join(f"{value:.2f} at {q} %" for q, value in gain.items()))
    passed = seconds <= SECONDS and peer["ratio"] >= RATIO and peer["equal"]
    result = {
        "name": "thresholds",
        "videos": arguments.videos,
        "seconds": round(seconds, 3),
        "target_seconds": SECONDS,
        "weighted_seconds": round(weighted, 3),
        "compile_seconds": round(compiling, 2),
        "ratio": round(peer["ratio"], 1),
        "target": RATIO,
        "peer_videos": peer["peer_videos"],
        "equal": peer["equal"],
        "recall_gained_over_grid_points": {q: round(value, 3) for q, value in gain.items()},
        "pass": passed,
    }
    print(json.dumps(result))
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
