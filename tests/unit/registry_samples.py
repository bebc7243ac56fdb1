"""A candidate made of plain values, for tests that need no store."""

from __future__ import annotations

from typing import Any

from coefvq.registry.bundle import Candidate, DataRef, ModelRef, build_candidate

BASE = ModelRef(model_id="m-1", run_id="r-1", sha256="1" * 64)
MLLM = ModelRef(model_id="m-2", run_id="r-2", sha256="2" * 64)
DATA = DataRef(manifest_sha256="a" * 64, splits_sha256="b" * 64, version="v1")
METRICS: dict[str, Any] = {
    "base": {"f1": 0.4, "roc_auc": 0.8, "n": 200},
    "mllm": {"average_precision": 0.7, "prevalence": 0.1, "n": 200, "f1": 0.61},
    "cascade": {"f1": 0.6, "qps_ratio": 20.0, "prevalence": 0.1},
    "stability": {"n": 100, "flip_rate": 0.0},
    "bayes": None,
}


def candidate(**changes: Any) -> Candidate:
    """The sample with some arguments of ``build_candidate`` replaced."""
    parts: dict[str, Any] = {
        "base": BASE,
        "mllm": MLLM,
        "policy": {"base_threshold": 0.3},
        "preprocessing": {"frames": 8},
        "data": DATA,
        "params": {"seed": 7},
        "metrics": METRICS,
    }
    return build_candidate(changes.pop("issue", "icd"), **{**parts, **changes})


def with_metrics(group: str, **figures: Any) -> Candidate:
    """The sample with figures of one group of metrics replaced."""
    return candidate(metrics={**METRICS, group: {**METRICS[group], **figures}})
