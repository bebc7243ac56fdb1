"""Thresholds for a cascade from two columns of scores: no pipeline, no models, no notebook.

    python examples/cascade_thresholds.py
    python examples/cascade_thresholds.py --pictures docs/images     also draws the pictures of docs/cascade.md

The scores are drawn: 7 % positive, two correlated binormal scores, the second one better. Replace
 ``scored`` by your own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from coefvq.cascade.frontier import exact_frontier
from coefvq.cascade.thresholds import CascadeThresholds


def scored(videos: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, base scores, MLLM scores of ``videos`` videos, each [n]."""
    rng = np.random.default_rng(seed)
    y = (rng.random(videos) < 0.07).astype(float)
    shared = 0.6 * rng.normal(size=videos)
    base = 0.8 * rng.normal(size=videos) + shared + 1.6 * y - 2.0
    mllm = 0.7 * rng.normal(size=videos) + shared + 2.4 * y - 2.0
    return y, 1.0 / (1.0 + np.exp(-base)), 1.0 / (1.0 + np.exp(-mllm))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path)
    arguments = parser.parse_args()
    (y, base, mllm), (new_y, new_base, new_mllm) = scored(10_000, 1), scored(200_000, 2)
    for name, estimator in {
        "budget 5 %": CascadeThresholds(precision=0.7, qps=5),
        "recall floor": CascadeThresholds(mode="recall_floor", precision=0.7, max_recall_loss=0.05),
        "cost 1 : 10 : 100": CascadeThresholds(mode="cost"),
        "guarantee": CascadeThresholds(mode="guarantee", precision=0.7, qps=5),
    }.items():
        found = estimator.fit(base, mllm, y)
        flagged = found.predict(new_base, new_mllm) == 1
        print(
            f"{name:18} base >= {found.base_threshold_:.3f}, MLLM >= {found.decision_threshold_:.3f}; on new videos: "
            f"calls {100 * found.escalates(new_base).mean():.1f} %, precision {100 * new_y[flagged].mean():.1f} %, "
            f"recall {100 * flagged[new_y == 1].mean():.1f} %"
        )
    if arguments.pictures:
        draw(arguments.pictures, y, base, mllm)


def draw(folder: Path, y: np.ndarray, base: np.ndarray, mllm: np.ndarray) -> None:
    """The frontier, and what the two thresholds cut out of the plane of scores."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    found = CascadeThresholds(precision=0.7, qps=5).fit(base, mllm, y)
    for value, colour, name, size in ((0.0, "#999999", "negative", 3), (1.0, "#D55E00", "positive", 7)):
        rows = np.flatnonzero(y == value)[:1500]
        left.scatter(base[rows], mllm[rows], s=size, color=colour, label=name, linewidths=0)
    left.axvline(found.base_threshold_, color="#0072B2", linestyle="--")
    left.hlines(found.decision_threshold_, found.base_threshold_, 1.0, color="#009E73", linewidth=2)
    left.text(found.base_threshold_, 1.02, "base threshold", color="#0072B2", fontsize=8, ha="center")
    left.text(1.0, found.decision_threshold_ - 0.05, "decision threshold", color="#009E73", fontsize=8, ha="right")
    left.set(xlabel="base score", ylabel="MLLM score", xlim=(0, 1), ylim=(0, 1))
    left.legend(loc="lower right", fontsize=8)
    for precision, colour in ((0.6, "#56B4E9"), (0.7, "#0072B2"), (0.8, "#000000")):
        line = exact_frontier(y, base, mllm, precision)
        steps = line.undominated()
        right.step(
            line.qps_ratio[steps], 100 * line.recall[steps], where="post", color=colour, label=f"P {precision:.0%}"
        )
    right.plot(found.qps_ratio_, 100 * found.recall_, "o", color="#009E73", label="chosen: P 70 %, 5 % calls")
    right.set(xlabel="videos sent to the MLLM, %", ylabel="recall, %", xlim=(0, 30), ylim=(0, 100))
    right.legend(loc="lower right", fontsize=8)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "cascade.png", metadata={"Software": None})


if __name__ == "__main__":
    main()
