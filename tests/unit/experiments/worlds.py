"""Scores of a toy world for tables: two bases and an MLLM with several seeds, in the shape of cells' files."""

from __future__ import annotations

import numpy as np
import pandas as pd

from coefvq.experiments.grid import Cell
from coefvq.experiments.scores import FACTS, Side, side

ISSUE = "ucc"


def world(n: int = 300, seeds: tuple[int, ...] = (0, 1), posterior: bool = True, seed: int = 0) -> Side:
    """Val, test and traffic of ``n`` videos each; the MLLM sees both factors, the bases one."""
    rng = np.random.default_rng(seed)
    seen, hidden = rng.normal(size=(2, 3 * n))
    chance = _sigmoid(-2.0 + 1.5 * seen + 1.5 * hidden)
    facts = pd.DataFrame(
        {
            "video_id": [f"v{row:05d}" for row in range(3 * n)],
            "split": np.repeat(["val", "test", "traffic"], n),
            "label": (rng.random(3 * n) < chance).astype(float),
            "weight": 1.0,
            "views": 10.0,
            "shortcut": rng.random(3 * n),
            "posterior": chance if posterior else np.nan,
            "posterior_vision": _sigmoid(-2.0 + 1.5 * seen) if posterior else np.nan,
            "posterior_vision_text": _sigmoid(-2.0 + 1.5 * seen) if posterior else np.nan,
        }
    )
    facts.loc[facts["split"] == "traffic", "label"] = np.nan
    scores = {}
    for at in seeds:
        for model, factor in (("base", 0.3), ("multitower", 0.6), ("distilled", 1.0), ("mllm", 1.4)):
            noise = 0.4 * rng.normal(size=3 * n)
            found = _sigmoid(-2.0 + 1.5 * seen + factor * hidden + noise)
            scores[Cell(model, ISSUE, at)] = facts[["video_id", "split"]].assign(score=found)
    return side(ISSUE, facts[list(FACTS)], scores, seeds)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))
