"""A scores table from a tiny world with a known posterior: base sees one factor of two, the MLLM both."""

from __future__ import annotations

import numpy as np
import pandas as pd


def scores_table(seed: int = 0, n: int = 400, *, posterior: bool = True) -> pd.DataFrame:
    """Rows of val, test and traffic, typed like scores.parquet."""
    rng = np.random.default_rng(seed)
    return pd.concat([_split(name, n, rng, posterior) for name in ("val", "test", "traffic")], ignore_index=True)


def _split(name: str, n: int, rng: np.random.Generator, with_posterior: bool) -> pd.DataFrame:
    seen, hidden = rng.normal(size=n), rng.normal(size=n)
    posterior = _sigmoid(-3.0 + 1.8 * seen + 1.8 * hidden)
    label = pd.array((rng.random(n) < posterior).astype(int), dtype="Int64")
    return pd.DataFrame(
        {
            "video_id": [f"{name}-{row}" for row in range(n)],
            "split": name,
            "label": pd.array([pd.NA] * n, dtype="Int64") if name == "traffic" else label,
            "weight": 1.0,
            "views": pd.array(rng.integers(0, 1000, n), dtype="Int64"),
            "posterior": posterior if with_posterior else np.nan,
            "base": _sigmoid(-3.0 + 1.7 * seen + 0.6 * rng.normal(size=n)),
            "mllm": _sigmoid(-3.0 + 1.7 * seen + 1.6 * hidden + 0.5 * rng.normal(size=n)),
        }
    )


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))
