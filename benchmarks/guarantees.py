"""How often certified thresholds break their promise, and how often there are any: 200 simulated sets each.

    python benchmarks/guarantees.py

The world is that of tests/unit/cascade/test_guarantees.py, where truth has a closed form. The last line is JSON;
exit code 1 if a promise is broken more often than delta plus binomial noise (99.9 % point).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from scipy.stats import binom

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from coefvq.cascade.guarantees import certify
from coefvq.cascade.promises import Promise
from coefvq.errors import InfeasibleError
from tests.unit.cascade.test_guarantees import broken, truth, world

SETS, LABELS = 200, 3000
PROMISES = (Promise(precision=0.7, qps=12.0, delta=0.2), Promise(precision=0.5, recall=0.5, qps=25.0, delta=0.1))


def main() -> int:
    rows = []
    for promise in PROMISES:
        violated, recalls = 0, []
        for seed in range(SETS):
            try:
                found = certify(*world(LABELS, seed), promise, seed=seed)
            except InfeasibleError:
                continue
            violated += broken(promise, found.base_threshold, found.decision_threshold)
            recalls.append(truth(found.base_threshold, found.decision_threshold)[1])
        bound = int(binom.ppf(0.999, SETS, promise.delta))
        recall = float(np.mean(recalls)) if recalls else 0.0
        row = {
            "delta": promise.delta,
            "broken": int(violated),
            "bound": bound,
            "certified": len(recalls),
            "recall": recall,
        }
        print(promise, row)
        rows.append(row)
    passed = all(row["broken"] <= row["bound"] for row in rows)
    print(json.dumps({"name": "guarantees", "sets": SETS, "labels": LABELS, "promises": rows, "pass": passed}))
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
