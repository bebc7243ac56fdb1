"""Scored traffic of a tiny world, labels drawn from it, and the policy it was served with."""

from __future__ import annotations

import numpy as np
import pandas as pd

from coefvq.cascade.policy import CascadePolicy
from coefvq.retuning.traffic import COLUMNS, ScoredTraffic
from coefvq.vmp.audit import DrawnLabel

OLD = CascadePolicy(
    issue="icd", base_threshold=0.5, decision_threshold=0.5, p_base=None, views_trigger=None, mllm_down="hold"
)


def truth(n: int, seed: int = 0) -> np.ndarray:
    """The labels of all videos, [n]."""
    return (np.random.default_rng(seed).random(n) < 0.15).astype(int)


def world(n: int = 4000, seed: int = 0, shift: float = 0.0) -> ScoredTraffic:
    """Every video with both scores; ``shift`` moves the logit of the base score."""
    rng, label = np.random.default_rng(seed + 100), truth(n, seed)
    base = 1 / (1 + np.exp(-(2.0 * label + rng.normal(size=n) - 1.5 + shift)))
    mllm = 1 / (1 + np.exp(-(4.0 * label + rng.normal(size=n) - 2.0)))
    return ScoredTraffic("traffic", frame(base=base, mllm=mllm))


def frame(base: np.ndarray, mllm: np.ndarray) -> pd.DataFrame:
    n = len(base)
    columns = {
        "video_id": [f"v{row:05d}" for row in range(n)],
        "base": base,
        "mllm": mllm,
        "views": np.full(n, np.nan),
        "kind": np.full(n, None, dtype=object),
        "audit_probability": np.full(n, np.nan),
        "bundle": np.full(n, None, dtype=object),
    }
    return pd.DataFrame(columns)[list(COLUMNS)]


def labels(n: int, seed: int = 0, every: int = 1, probability: float | None = None) -> dict[str, DrawnLabel]:
    """Labels of each ``every``-th video of :func:`world`."""
    return {
        f"v{row:05d}": DrawnLabel(int(value), probability)
        for row, value in enumerate(truth(n, seed))
        if row % every == 0
    }
