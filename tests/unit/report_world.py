"""A small scored world with everything a report shows, made without training anything."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from coefvq.evaluation.report import cascade_report, evaluation_report
from coefvq.reporting.html import ReportInputs

TARGETS = (60.0, 70.0, 80.0, 90.0)


def scored(n: int = 1500, seed: int = 3) -> pd.DataFrame:
    """Scores of val, test and traffic, a third each."""
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 0.18).astype(float)
    split = np.repeat(["val", "test", "traffic"], n // 3)
    return pd.DataFrame(
        {
            "video_id": [f"v{i:05d}" for i in range(n)],
            "split": split,
            "label": np.where(split == "traffic", np.nan, label),
            "weight": 1.0,
            "views": rng.integers(1, 20_000, n).astype(float),
            "posterior": np.nan,
            "base": 1 / (1 + np.exp(-(1.6 * label + rng.normal(size=n) - 1.5))),
            "mllm": 1 / (1 + np.exp(-(3.5 * label + rng.normal(size=n) - 2.0))),
        }
    )


def manifest(scores: pd.DataFrame) -> pd.DataFrame:
    """The columns of a manifest that a report looks at."""
    n = len(scores)
    rng = np.random.default_rng(4)
    return pd.DataFrame(
        {
            "video_id": scores["video_id"],
            "title": [f"clip number {i}" for i in range(n)],
            "creator_id": [f"c{i % 40}" for i in range(n)],
            "source_id": [f"s{i % 300}" for i in range(n)],
            "views": scores["views"],
            "duration_s": rng.choice([3.0, 20.0], n),
            "has_audio": rng.random(n) < 0.5,
        }
    )


def inputs() -> ReportInputs:
    """A report's inputs; nothing is served yet."""
    scores = scored()
    thresholds = cascade_report(scores, "icd", [30, 40, 50], 0.03, None, TARGETS)
    evaluation = evaluation_report(scores, "icd", TARGETS)
    chosen = next(entry for entry in thresholds["policies"] if entry["selected"])
    part = {"model_id": "m-1", "run_id": "r-1", "sha256": "a" * 64}
    candidate: dict[str, Any] = {
        "content_hash": "c" * 64,
        "base": part,
        "mllm": part,
        "policy": thresholds["policy"],
        "preprocessing": {"frames": 4},
        "data": {"manifest_sha256": "d" * 64, "splits_sha256": "e" * 64, "version": None},
        "params": {"seed": 7},
        "metrics": {**evaluation["test"], "cascade": {**chosen["test"], "qps_ratio": chosen["qps_ratio"]}},
    }
    return ReportInputs(
        issue="icd",
        scores=scores,
        evaluation=evaluation,
        thresholds=thresholds,
        candidate=candidate,
        made_at="2026-01-31 08:00 UTC",
        bundle_version="8-cccccccccccc",
        manifest=manifest(scores),
        gate=[{"name": "qps_ratio", "passed": True, "explanation": "20 % of traffic reach the MLLM"}],
    )
